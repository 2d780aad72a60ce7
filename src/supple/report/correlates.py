"""The figure of what goes along with a loss of plasticity: dead units, feature rank, magnitudes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supple.report.drawing import (
    SETTINGS,
    WIDE,
    draw_curve,
    frame,
    number,
    percents,
    powers_of_ten,
    spans_decades,
    task_axis,
    words,
)
from supple.report.labels import legend, legend_columns
from supple.report.statistics import Array
from supple.report.style import LIGHT, MethodStyle, Theme

PANELS: Mapping[str, str] = {
    "dead": "dead units",
    "rank": "rank of the last features",
    "weight_magnitude": "mean |weight|",
    "scale_magnitude": "mean |norm. scale|",
    "gradient_magnitude": "mean |gradient|",
    "reinitialized": "reinitialized a task",
}
"""What is drawn, by the column of tasks, and what people call it."""

_LOGARITHMIC = {"gradient_magnitude", "reinitialized"}


def drawn_panels(curves: Mapping[str, Mapping[str, Array]]) -> list[str]:
    """The panels that there is something to draw in.

    Args:
        curves: for each column of tasks, for each method, [bins, seeds].

    Returns:
        Columns of tasks; reinitialized only where something was.
    """
    found = []
    for name in PANELS:
        every = [curve[np.isfinite(curve)] for curve in curves.get(name, {}).values()]
        if any(len(values) and (name != "reinitialized" or values.any()) for values in every):
            found.append(name)
    return found


def correlates(
    centres: Array,
    curves: Mapping[str, Mapping[str, Array]],
    styles: Mapping[str, MethodStyle],
    title: str,
    reading: Sequence[str],
    theme: Theme = LIGHT,
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Draws what was measured beside accuracy, a panel each, over tasks.

    Args:
        centres: [bins], the mean number of a bin's tasks.
        curves: for each column of tasks, for each method, [bins, seeds]; NaN where there is nothing.
        styles: for each method how it is shown.
        title: what the figure shows.
        reading: how lines and bands came about.
        theme: the colours.
        size: width of the figure, and the height of a wide one with two rows, in inches.

    Returns:
        The figure.

    Raises:
        ValueError: if there is nothing to draw.
    """
    panels = drawn_panels(curves)
    if not panels:
        raise ValueError("there is nothing to draw; give curves with finite values")
    narrow = size[0] < 6
    columns = 2 if narrow else 3
    rows = -(-len(panels) // columns)
    legend_rows = -(-len(styles) // legend_columns(styles, size[0]))
    top, bottom, panel = 1.05 if narrow else 0.95, 0.6 + 0.2 * legend_rows, 1.75
    high = top + bottom + rows * panel - 0.35
    with matplotlib.rc_context({**SETTINGS, "font.size": 9}):
        figure = Figure(figsize=(size[0], high), facecolor=theme.background)
        grid = figure.subplots(
            rows,
            columns,
            squeeze=False,
            gridspec_kw={
                "left": 0.6 / size[0],
                "right": 1 - 0.25 / size[0],
                "top": 1 - (top + 0.1) / high,
                "bottom": bottom / high,
                "wspace": 0.36 if not narrow else 0.46,
                "hspace": 0.55,
            },
        )
        for k, axes in enumerate(grid.flat):
            if k >= len(panels):
                axes.set_visible(False)
                continue
            _panel(axes, panels[k], centres, curves[panels[k]], styles, theme, last=k + columns >= len(panels))
        legend(figure, styles, theme, size[0], high)
        words(figure, title, reading, theme)
    return figure


def _panel(
    axes: Axes,
    name: str,
    centres: Array,
    curves: Mapping[str, Array],
    styles: Mapping[str, MethodStyle],
    theme: Theme,
    last: bool,
) -> None:
    logarithmic = name in _LOGARITHMIC and spans_decades(np.concatenate([curve.ravel() for curve in curves.values()]))
    for method, curve in curves.items():
        shown = np.where(curve > 0, curve, np.nan) if logarithmic else curve
        draw_curve(axes, centres, shown, styles[method], theme, 1.6)
    frame(axes, theme)
    if logarithmic:
        powers_of_ten(axes, axes.yaxis)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, place: number(value))
    task_axis(axes, centres)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2.5, 5, 10], integer=True))
    if not last:
        axes.set_xlabel("")
    if name == "dead":
        axes.yaxis.set_major_formatter(percents)
        axes.set_ylim(bottom=0)
    axes.set_title(PANELS[name], color=theme.ink, fontsize=9.5, loc="left", pad=5)
