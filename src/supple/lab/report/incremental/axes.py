"""Horizontal axes of figures about additions of classes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from supple.lab.report.incremental.facts import counted
from supple.lab.report.incremental.measured import EpochCurves
from supple.lab.report.statistics import Array
from supple.lab.report.style import Theme

_LABEL = 0.42
"""The least distance between the labels of additions, in inches."""


def epoch_axis(axes: Axes, curves: EpochCurves, theme: Theme) -> None:
    """Makes the horizontal axis one of epochs, with a line at each addition and the classes seen between them.

    Args:
        axes: the axes.
        curves: what is drawn in it.
        theme: the colours.
    """
    starts, stops = curves.bounds[:-1], curves.bounds[1:]
    for start in starts[1:]:
        axes.axvline(start, color=theme.grid, linewidth=0.8, zorder=0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    wide = axes.get_position().width * figure.get_size_inches()[0]
    every = max(1, int(np.ceil(_LABEL * len(starts) / wide)))
    labelled = range((len(starts) - 1) % every, len(starts), every)
    axes.set_xlim(starts[0], stops[-1])
    axes.set_xticks([(starts[k] + stops[k]) / 2 for k in labelled], [str(curves.classes[k]) for k in labelled])
    each = {int(epochs) for epochs in stops - starts}
    many = f", {counted(each.pop(), 'epoch')} with each number" if len(each) == 1 else ""
    axes.set_xlabel(f"classes seen{many}", color=axes.xaxis.label.get_color(), labelpad=4)


def classes_axis(axes: Axes, classes: Array) -> None:
    """Makes the horizontal axis one of classes seen.

    Args:
        axes: the axes.
        classes: [additions], classes seen at each.
    """
    _whole_numbers(axes, classes[0], classes[-1], "classes seen")


def arrival_axis(axes: Axes, classes: int) -> None:
    """Makes the horizontal axis one of classes in their order of arrival.

    Args:
        axes: the axes.
        classes: how many.
    """
    _whole_numbers(axes, 1, classes, "class, in order of arrival")


def _whole_numbers(axes: Axes, low: float, high: float, label: str) -> None:
    axes.set_xlim(low - (low == high), high + (low == high))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(label, color=axes.xaxis.label.get_color(), labelpad=4)
