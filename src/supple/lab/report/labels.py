"""Which line is which method: labels at the ends of lines, and legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from supple.lab.report.style import MethodStyle, Theme


def end_labels(
    axes: Axes,
    ends: Mapping[str, tuple[float, float]],
    styles: Mapping[str, MethodStyle],
    theme: Theme,
) -> None:
    """Writes each method's label beside the end of its line, joined to it by a thin line.

    Args:
        axes: the axes, with their final limits.
        ends: for each method the last point of its line.
        styles: for each method how it is shown.
        theme: the colours.
    """
    methods = list(ends)
    bottom, top = axes.get_ylim()
    # Where labels that were moved apart would lie below or above the axes, the axes grow, and with them the distances.
    for _ in range(4):
        gap = 0.21 * (top - bottom) / _inches(axes)[1]
        places = spread([ends[method][1] for method in methods], gap)
        bottom, top = min([bottom, *places]), max([top, *places])
    right = axes.get_xlim()[1]
    # A step is the same on paper whatever the size of the figure.
    step = 0.063 * (right - axes.get_xlim()[0]) / _inches(axes)[0]
    for method, place in zip(methods, places, strict=True):
        x, y = ends[method]
        style = styles[method]
        axes.plot(
            (x, right + 1.5 * step, right + 3.5 * step),
            (y, place, place),
            color=theme.of(style),
            linewidth=1,
            clip_on=False,
            zorder=1,
        )
        axes.text(right + 4.5 * step, place, style.label, color=theme.ink, va="center", weight="bold")
    axes.set_ylim(bottom, top)


def _inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the axes in inches."""
    figure, box = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    wide, high = figure.get_size_inches()
    return box.width * wide, box.height * high


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Moves positions apart until neighbours are at least a gap apart, each as little as that allows together.

    Positions too close form a block, which is centred on their mean; blocks that then touch are joined.

    Args:
        positions: the positions.
        gap: the smallest distance.

    Returns:
        The new positions, in the same order as the old and sorted alike.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    blocks: list[tuple[float, list[int]]] = []
    for item in order:
        centre, members = positions[item], [item]
        while blocks and centre - blocks[-1][0] < gap * (len(members) + len(blocks[-1][1])) / 2:
            other, earlier = blocks.pop()
            size = len(members) + len(earlier)
            centre, members = (centre * len(members) + other * len(earlier)) / size, earlier + members
        blocks.append((centre, members))
    placed = list(positions)
    for centre, members in blocks:
        for k, item in enumerate(members):
            placed[item] = centre + gap * (k - (len(members) - 1) / 2)
    return placed


def legend(figure: Figure, styles: Mapping[str, MethodStyle], theme: Theme, wide: float, high: float) -> None:
    """Writes which line is which method along the bottom.

    Args:
        figure: the figure.
        styles: for each method how it is shown.
        theme: the colours.
        wide: width of the figure in inches.
        high: height of the figure in inches.
    """
    handles = [
        Line2D([], [], color=theme.of(style), linestyle=style.dash, linewidth=2, label=style.label)
        for style in styles.values()
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.1 / wide, 0.04 / high),
        ncols=legend_columns(styles, wide),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=9,
        handlelength=2.2,
        columnspacing=1.2,
        borderaxespad=0,
        borderpad=0.2,
    )


def legend_columns(styles: Mapping[str, MethodStyle], wide: float) -> int:
    """How many entries of a legend fit beside each other.

    Args:
        styles: the entries.
        wide: width of the figure in inches.

    Returns:
        The number, at least 1.
    """
    longest = max(len(style.label) for style in styles.values())
    return max(1, min(len(styles), math.floor((wide - 0.3) / (0.55 + 0.08 * longest))))
