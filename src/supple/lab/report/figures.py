"""Accuracy over tasks, drawn without matplotlib's global state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from supple.lab.report.drawing import (
    SETTINGS,
    WIDE,
    box,
    draw_curve,
    frame,
    limit_bands,
    percents,
    reading_of,
    task_axis,
    words,
)
from supple.lab.report.labels import end_labels, legend, legend_columns
from supple.lab.report.statistics import Array, bin_means, bin_width
from supple.lab.report.style import LIGHT, MethodStyle, Theme, method_style


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
    binned = {method: bin_means(curve, width) for method, curve in curves.items()}
    styles = {method: method_style(method) for method in curves}
    centres = next(iter(binned.values()))[0]
    values = {method: curve for method, (_, curve) in binned.items()}
    return binned_accuracy(centres, values, styles, title, reading_of(width, seeds), theme, size)


def binned_accuracy(
    centres: Array,
    curves: Mapping[str, Array],
    styles: Mapping[str, MethodStyle],
    title: str,
    reading: Sequence[str],
    theme: Theme = LIGHT,
    size: tuple[float, float] = WIDE,
    axis: Callable[[Axes, Array], None] = task_axis,
    width: float = 2.0,
    crowded: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Figure:
    """Draws accuracy that is averaged over bins of tasks already.

    Args:
        centres: [bins], the mean number of a bin's tasks.
        curves: for each method, accuracy [bins, seeds], 0 to 1; NaN where there is none.
        styles: for each method how it is shown.
        title: what the figure shows.
        reading: how lines and bands came about.
        theme: the colours.
        size: width and height in inches.
        axis: makes the horizontal axis one of the centres.
        width: of the lines in points.
        crowded: whether a narrow figure needs all of its width for the lines.
        within: where the vertical axis ends at the latest.

    Returns:
        The figure.
    """
    shown = {method: styles[method] for method in curves}
    longest = max(len(style.label) for style in shown.values())
    # Beside the lines of a narrow figure there is no room for long labels; they go below.
    below = size[0] < 6 and (crowded or longest > 10)
    rows = 0.2 * -(-len(shown) // legend_columns(shown, size[0])) + 0.1 if below else 0.0
    right = 0.25 if below else max(0.95, 0.45 + 0.096 * longest)
    size = (size[0], size[1] + rows)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, facecolor=theme.background)
        axes = figure.add_axes(box(size, right=right, bottom=0.6 + rows, top=1.0 if size[0] < 6 else 0.9))
        ends = {}
        for method, curve in curves.items():
            last = draw_curve(axes, centres, curve, styles[method], theme, width)
            if last is not None:
                ends[method] = last
        frame(axes, theme)
        axis(axes, centres)
        axes.yaxis.set_major_formatter(percents)
        limit_bands(axes, within)
        if below:
            legend(figure, shown, theme, *size)
        else:
            end_labels(axes, ends, shown, theme)
        words(figure, title, reading, theme)
    return figure
