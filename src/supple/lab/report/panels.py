"""Figures of several panels, each with a line for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supple.lab.report.drawing import (
    SETTINGS,
    WIDE,
    draw_curve,
    frame,
    limit_bands,
    number,
    powers_of_ten,
    spans_decades,
    task_axis,
    words,
)
from supple.lab.report.labels import legend, legend_columns
from supple.lab.report.statistics import Array
from supple.lab.report.style import LIGHT, MethodStyle, Theme


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """What one panel shows.

    Args:
        title: what it is.
        curves: for each method [points, seeds]; NaN where there is nothing.
        label: makes the label of a tick of the vertical axis.
        bottom: where the vertical axis begins; None: below the lines.
        logarithmic: whether the vertical axis is logarithmic where values span decades.
        within: where the vertical axis ends at the latest, for what a diverged run makes a very wide band of.
        alike: panels with the same word here have the same vertical axis.
    """

    title: str
    curves: Mapping[str, Array]
    label: Callable[[float, float | None], str] | None = None
    bottom: float | None = None
    logarithmic: bool = False
    within: tuple[float, float] | None = None
    alike: str = ""


def curve_panels(
    centres: Array,
    panels: Sequence[CurvePanel],
    styles: Mapping[str, MethodStyle],
    title: str,
    reading: Sequence[str],
    theme: Theme = LIGHT,
    size: tuple[float, float] = WIDE,
    *,
    axis: Callable[[Axes, Array], None] = task_axis,
    columns: tuple[int, int] = (3, 2),
    tall: float = 1.75,
) -> Figure:
    """Draws a panel for each measurement, with a line for each method and a band of the 95% interval over seeds.

    Args:
        centres: [points], where the points lie on the horizontal axis.
        panels: the panels.
        styles: for each method how it is shown.
        title: what the figure shows.
        reading: how lines and bands came about.
        theme: the colours.
        size: width of the figure, in inches; the height follows from the panels.
        axis: makes the horizontal axis one of the centres.
        columns: panels beside each other in a wide figure and in a narrow one.
        tall: height of a panel with what is written around it, in inches.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no panels.
    """
    if not panels:
        raise ValueError("there is nothing to draw; give curves with finite values")
    narrow = size[0] < 6
    beside = columns[1] if narrow else columns[0]
    rows = -(-len(panels) // beside)
    legend_rows = -(-len(styles) // legend_columns(styles, size[0]))
    top, bottom = 1.05 if narrow else 0.95, 0.6 + 0.2 * legend_rows
    high = top + bottom + rows * tall - 0.35
    with matplotlib.rc_context({**SETTINGS, "font.size": 9}):
        figure = Figure(figsize=(size[0], high), facecolor=theme.background)
        grid = figure.subplots(
            rows,
            beside,
            squeeze=False,
            gridspec_kw={
                "left": 0.6 / size[0],
                "right": 1 - 0.25 / size[0],
                "top": 1 - (top + 0.1) / high,
                "bottom": bottom / high,
                "wspace": 0.46 if narrow else 0.36 if beside > 2 else 0.2,
                "hspace": 0.55 * (1.75 / tall),
            },
        )
        for k, axes in enumerate(grid.flat):
            if k >= len(panels):
                axes.set_visible(False)
                continue
            _panel(axes, panels[k], centres, styles, theme, axis, ticks=4 if tall < 2.5 else 6)
            if k + beside < len(panels):
                axes.set_xlabel("")
        _make_alike(dict(zip(panels, grid.flat, strict=False)))
        legend(figure, styles, theme, size[0], high)
        words(figure, title, reading, theme)
    return figure


def _panel(
    axes: Axes,
    panel: CurvePanel,
    centres: Array,
    styles: Mapping[str, MethodStyle],
    theme: Theme,
    axis: Callable[[Axes, Array], None],
    ticks: int,
) -> None:
    every = np.concatenate([curve.ravel() for curve in panel.curves.values()])
    logarithmic = panel.logarithmic and spans_decades(every)
    for method, curve in panel.curves.items():
        shown = np.where(curve > 0, curve, np.nan) if logarithmic else curve
        draw_curve(axes, centres, shown, styles[method], theme, 1.6)
    frame(axes, theme)
    if logarithmic:
        powers_of_ten(axes, axes.yaxis)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(panel.label or (lambda value, place: number(value)))
    axis(axes, centres)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10], integer=True))
    if panel.within:
        limit_bands(axes, panel.within)
    if panel.bottom is not None:
        axes.set_ylim(bottom=panel.bottom)
    axes.set_title(panel.title, color=theme.ink, fontsize=9.5, loc="left", pad=5)


def _make_alike(drawn: Mapping[CurvePanel, Axes]) -> None:
    for word in {panel.alike for panel in drawn if panel.alike}:
        members = [axes for panel, axes in drawn.items() if panel.alike == word]
        lows, highs = zip(*(axes.get_ylim() for axes in members), strict=True)
        for axes in members:
            axes.set_ylim(min(lows), max(highs))
