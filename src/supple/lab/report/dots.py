"""Figures with a row a method: a point with its interval in each of some panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supple.lab.report.drawing import SETTINGS, WIDE, frame, powers_of_ten, words
from supple.lab.report.statistics import Interval
from supple.lab.report.style import LIGHT, MethodStyle, Theme


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Args:
        title: what it is.
        values: for each row its mean and interval; rows may be missing.
        label: makes the label of a tick.
        logarithmic: whether the axis is; all values then have to be positive.
    """

    title: str
    values: Mapping[str, Interval]
    label: Callable[[float, float | None], str] | None = None
    logarithmic: bool = False


def dots(
    panels: Sequence[Panel],
    styles: Mapping[str, MethodStyle],
    title: str,
    reading: Sequence[str],
    theme: Theme = LIGHT,
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Draws a row for each method and a panel for each measurement.

    Args:
        panels: the panels.
        styles: for each row how it is shown, in order from the top.
        title: what the figure shows.
        reading: how points and bars came about.
        theme: the colours.
        size: width of the figure in inches; the height follows from the rows.

    Returns:
        The figure.
    """
    names = list(styles)
    left = 0.3 + 0.085 * max(len(style.label) for style in styles.values())
    fitting = max(1, int((size[0] - left) / 1.4))
    columns = min(len(panels), fitting, 4 if size[0] > 6 else 2)
    lines = -(-len(panels) // columns)
    panel = 0.26 * len(names) + 0.15
    top, between, bottom = 1.1, 0.75, 0.42
    high = top + lines * panel + (lines - 1) * between + bottom
    with matplotlib.rc_context({**SETTINGS, "font.size": 9}):
        figure = Figure(figsize=(size[0], high), facecolor=theme.background)
        wide = (size[0] - left - 0.2 - 0.3 * (columns - 1)) / columns
        for k, one in enumerate(panels):
            row, column = divmod(k, columns)
            axes = figure.add_axes(
                (
                    (left + column * (wide + 0.3)) / size[0],
                    1 - (top + row * (panel + between) + panel) / high,
                    wide / size[0],
                    panel / high,
                )
            )
            _panel(axes, one, styles, theme, wide, labelled=column == 0)
        words(figure, title, reading, theme)
    return figure


def _panel(
    axes: Axes, panel: Panel, styles: Mapping[str, MethodStyle], theme: Theme, wide: float, labelled: bool
) -> None:
    frame(axes, theme)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme.grid, linewidth=0.8, zorder=0)
    axes.spines["bottom"].set_visible(False)
    for place, (name, style) in enumerate(styles.items()):
        if name not in panel.values:
            continue
        mean, low, high = (float(part) for part in panel.values[name])
        colour = theme.of(style)
        if np.isfinite(low) and (low > 0 or not panel.logarithmic):
            axes.plot((low, high), (place, place), color=colour, linewidth=2, zorder=2, solid_capstyle="butt")
        axes.plot(mean, place, marker=style.marker, color=colour, markersize=6, zorder=3, linestyle="")
    axes.set_ylim(len(styles) - 0.4, -0.6)
    axes.set_yticks(range(len(styles)), [style.label for style in styles.values()] if labelled else [])
    axes.tick_params(axis="y", labelcolor=theme.ink)
    if panel.logarithmic:
        powers_of_ten(axes, axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(2 if wide < 1.8 else 3, steps=[1, 2, 2.5, 5, 10]))
        axes.margins(x=0.08)
    if panel.label:
        axes.xaxis.set_major_formatter(panel.label)
    axes.set_title(panel.title, color=theme.ink, fontsize=9.5, loc="left", pad=5)
