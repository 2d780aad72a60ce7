"""Figures, drawn without matplotlib's global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supple.report.statistics import Array, bin_means, bin_width, mean_interval
from supple.report.style import LIGHT, Theme, method_style

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.fonttype": "path",
    "svg.hashsalt": "supple",
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


WIDE, NARROW = (8.0, 4.8), (4.4, 4.4)
"""Sizes of figures in inches; letters are of one size, so that the narrow one can be read on a phone."""


def accuracy_over_tasks(
    curves: Mapping[str, Array],
    title: str,
    theme: Theme = LIGHT,
    width: int | None = None,
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Draws accuracy over tasks: a line for each method, with a band of the 95% interval over seeds.

    Args:
        curves: for each method, accuracy [tasks, seeds], 0 to 1.
        title: what the figure shows.
        theme: the colours.
        width: tasks a point averages over; None: so many that there are at most 25 points.
        size: width and height in inches.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no curves, or a method has no style.
    """
    if not curves:
        raise ValueError("there are no curves to draw; give at least one method")
    tasks, seeds = next(iter(curves.values())).shape
    width = width or bin_width(tasks)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, facecolor=theme.background)
        axes = figure.add_axes(_box(size))
        ends = {method: _curve(axes, method, curve, width, theme) for method, curve in curves.items()}
        _frame(axes, tasks, theme)
        _end_labels(axes, ends, theme)
        _words(figure, title, _reading(width, seeds), theme)
    return figure


def _box(size: tuple[float, float]) -> tuple[float, float, float, float]:
    """Where the axes lie, in shares of the figure: (left, bottom, width, height). Margins are the same in inches."""
    left, right, bottom, top = 0.55, 0.95, 0.6, 0.9
    return left / size[0], bottom / size[1], 1 - (left + right) / size[0], 1 - (bottom + top) / size[1]


def _reading(width: int, seeds: int) -> list[str]:
    """How a line and its band came about."""
    point = f"Each point: mean of {width} tasks" if width > 1 else "Each point: one task"
    if seeds == 1:
        return [f"{point}, one seed"]
    return [f"{point}, {seeds} seeds", "band: 95% interval over seeds"]


def _curve(axes: Axes, method: str, curve: Array, width: int, theme: Theme) -> tuple[float, float]:
    """Draws one method; returns the last point of its line."""
    x, binned = bin_means(curve, width)
    mean, low, high = mean_interval(binned.T)
    colour, first = theme.colour(method), method == "base"
    axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, zorder=2)
    axes.plot(x, mean, color=colour, linewidth=2.0, linestyle=(0, (4, 1.6)) if first else "-", zorder=3)
    return float(x[-1]), float(mean[-1])


def _frame(axes: Axes, tasks: int, theme: Theme) -> None:
    """Axes, ticks and grid."""
    axes.set_facecolor(theme.background)
    axes.set_xlim(1 if tasks > 1 else 0, max(tasks, 2))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, place: f"{100 * share:.3g}%")
    axes.grid(axis="y", color=theme.grid, linewidth=0.8, zorder=0)
    axes.tick_params(colors=theme.muted, length=0, pad=6)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.set_xlabel("task", color=theme.muted, labelpad=4)


def _end_labels(axes: Axes, ends: Mapping[str, tuple[float, float]], theme: Theme) -> None:
    """Writes each method's label beside the end of its line, joined to it by a thin line."""
    bottom, top = axes.get_ylim()
    methods = list(ends)
    places = spread([ends[method][1] for method in methods], 0.21 * (top - bottom) / _inches(axes)[1])
    right = axes.get_xlim()[1]
    # A step is the same on paper whatever the size of the figure.
    step = 0.063 * (right - axes.get_xlim()[0]) / _inches(axes)[0]
    for method, place in zip(methods, places, strict=True):
        x, y = ends[method]
        colour = theme.colour(method)
        axes.plot(
            (x, right + 1.5 * step, right + 3.5 * step),
            (y, place, place),
            color=colour,
            linewidth=1,
            clip_on=False,
            zorder=1,
        )
        axes.text(right + 4.5 * step, place, method_style(method).label, color=theme.ink, va="center", weight="bold")
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


def _words(figure: Figure, title: str, reading: Sequence[str], theme: Theme) -> None:
    """Title and, in one line or two, how to read the figure; flush left with it."""
    wide, high = figure.get_size_inches()
    text = "; ".join(reading) if wide > 6 else "\n".join(reading)
    figure.text(0.15 / wide, 1 - 0.26 / high, title, color=theme.ink, size=13, weight="bold", va="center")
    figure.text(0.15 / wide, 1 - 0.48 / high, text, color=theme.muted, size=9.5, va="top", linespacing=1.3)


def to_svg(figure: Figure) -> bytes:
    """A figure as SVG; the same figure always gives the same bytes.

    Args:
        figure: the figure.

    Returns:
        The content of an SVG file.
    """
    return _to(figure, "svg")


def to_png(figure: Figure) -> bytes:
    """A figure as PNG.

    Args:
        figure: the figure.

    Returns:
        The content of a PNG file with 200 pixels an inch.
    """
    return _to(figure, "png")


def _to(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    metadata = {"Creator": None, "Date": None, "Format": None, "Type": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(content, format=kind, dpi=200, facecolor=figure.get_facecolor(), metadata=metadata)
    return content.getvalue()
