"""The figure of what goes along with a loss of plasticity: dead units, feature rank, magnitudes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from supple.lab.report.drawing import WIDE, percents
from supple.lab.report.panels import CurvePanel, curve_panels
from supple.lab.report.statistics import Array
from supple.lab.report.style import LIGHT, MethodStyle, Theme

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
    panels = [
        CurvePanel(
            PANELS[name],
            curves[name],
            percents if name == "dead" else None,
            bottom=0 if name == "dead" else None,
            logarithmic=name in _LOGARITHMIC,
        )
        for name in drawn_panels(curves)
    ]
    return curve_panels(centres, panels, styles, title, reading, theme, size)
