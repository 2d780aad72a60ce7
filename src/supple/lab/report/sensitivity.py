"""The figure of a sweep: final accuracy over a setting, a line for each value of another, and a map of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from supple.lab.report.drawing import SETTINGS, WIDE, frame, number, percents, words
from supple.lab.report.statistics import Array, finite_interval
from supple.lab.report.style import LIGHT, MethodStyle, Theme
from supple.lab.report.variants import luminance, shades

MAP = colormaps["cividis"]
"""Colours of the map, which people with any common form of colour blindness see alike."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """Final accuracy over one setting or two.

    Args:
        names: of the settings, one or two; the first is the axis, the second has a line for each value.
        values: for each setting its values, in order.
        late: [values of the first, values of the second or 1, seeds], 0 to 1; NaN where nothing was run.
        best: places of the point with the highest mean.
        fixed: other settings of the sweep, which are at their values of the best point.
    """

    names: tuple[str, ...]
    values: tuple[Sequence[Any], ...]
    late: Array
    best: tuple[int, int]
    fixed: Mapping[str, Any]


def drawn_styles(sweep: Sweep, style: MethodStyle) -> list[MethodStyle]:
    """Styles of the lines.

    Args:
        sweep: the sweep.
        style: the method's.

    Returns:
        A style a value of the second setting.
    """
    count = sweep.late.shape[1]
    return [style] if count == 1 else shades(style, count)


def sensitivity(
    sweep: Sweep,
    style: MethodStyle,
    reference: tuple[MethodStyle, float] | None,
    title: str,
    reading: Sequence[str],
    theme: Theme = LIGHT,
    size: tuple[float, float] = WIDE,
) -> Figure:
    """Draws a sweep: curves, and with two settings a map beside or below them.

    Args:
        sweep: what was measured.
        style: the method's.
        reference: style and final accuracy of what the method is compared with.
        title: what the figure shows.
        reading: how points came about.
        theme: the colours.
        size: width of the figure, and height of curves, in inches.

    Returns:
        The figure.
    """
    narrow, two = size[0] < 6, len(sweep.names) == 2
    lines = drawn_styles(sweep, style)
    labels = [f"{sweep.names[1]} {number(value)}" for value in sweep.values[1]] if two else []
    per_row = (
        max(1, int(((size[0] - 0.2) / (1 if narrow else 1.9)) / (0.5 + 0.075 * max(map(len, labels))))) if two else 1
    )
    legend_high = 0.2 * -(-len(labels) // per_row)
    top, bottom, chart = 1.05 if narrow else 0.95, 0.6 + legend_high, 2.7
    map_high = 0.75 + 0.3 * len(sweep.values[1]) if two else 0.0
    high = top + chart + bottom + (map_high + 0.2 if two and narrow else 0.0)
    with matplotlib.rc_context({**SETTINGS, "font.size": 9}):
        figure = Figure(figsize=(size[0], high), facecolor=theme.background)
        wide = size[0] - 0.75 if narrow or not two else 0.52 * size[0] - 0.6
        axes = figure.add_axes((0.55 / size[0], 1 - (top + chart) / high, wide / size[0], chart / high))
        _curves(axes, sweep, lines, labels, reference, theme)
        if two:
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(-0.3 / wide, -0.5 / chart),
                ncols=per_row,
                frameon=False,
                labelcolor=theme.ink,
                fontsize=8.5,
                handlelength=1.8,
                columnspacing=1.0,
                borderaxespad=0,
            )
            if narrow:
                place = (0.75, 0.55, size[0] - 0.95, map_high - 0.75)
            else:
                tall = min(chart, map_high - 0.4)
                place = (0.52 * size[0] + 0.75, high - top - tall, 0.48 * size[0] - 0.95, tall)
            _map(
                figure.add_axes((place[0] / size[0], place[1] / high, place[2] / size[0], place[3] / high)),
                sweep,
                theme,
            )
        words(figure, title, reading, theme)
    return figure


def _curves(
    axes: Axes,
    sweep: Sweep,
    lines: Sequence[MethodStyle],
    labels: Sequence[str],
    reference: tuple[MethodStyle, float] | None,
    theme: Theme,
) -> None:
    places = np.arange(len(sweep.values[0]))
    for k, style in enumerate(lines):
        mean, low, high = finite_interval(sweep.late[:, k].T)
        there = np.isfinite(mean)
        colour = theme.of(style)
        # Neighbours beside each other, so that bars of different lines do not hide each other.
        shift = 0.0 if len(lines) == 1 else 0.3 * (k / (len(lines) - 1) - 0.5)
        x = places[there] + shift
        axes.vlines(x, low[there], high[there], color=colour, linewidth=1.2, alpha=0.6, zorder=2)
        label = labels[k] if labels else None
        axes.plot(
            x, mean[there], color=colour, marker=style.marker, markersize=4.5, linewidth=1.5, label=label, zorder=3
        )
        if k == sweep.best[1]:
            at = sweep.best[0]
            axes.plot(
                at + shift, mean[at], marker="o", markersize=12, color="none", markeredgecolor=theme.ink, zorder=4
            )
    if reference is not None:
        axes.axhline(reference[1], color=theme.of(reference[0]), linewidth=1.3, linestyle=(0, (4, 1.6)), zorder=1)
        axes.annotate(
            reference[0].label,
            (1, reference[1]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            color=theme.muted,
            ha="right",
            va="bottom",
            fontsize=8.5,
        )
    frame(axes, theme)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xticks(places, [number(value) for value in sweep.values[0]])
    axes.set_xlabel(sweep.names[0], color=theme.muted, labelpad=4)
    axes.yaxis.set_major_formatter(percents)


def _map(axes: Axes, sweep: Sweep, theme: Theme) -> None:
    mean = finite_interval(sweep.late.reshape(-1, sweep.late.shape[2]).T).mean.reshape(sweep.late.shape[:2]).T
    finite = mean[np.isfinite(mean)]
    low, span = float(finite.min()), float(np.ptp(finite)) or 1.0
    for (y, x), value in np.ndenumerate(mean):
        if not np.isfinite(value):
            continue
        colour = to_hex(MAP((value - low) / span))
        axes.fill_between((x - 0.5, x + 0.5), y - 0.5, y + 0.5, color=colour, linewidth=0, zorder=1)
        ink = "#fefefe" if luminance(colour) < 0.2 else "#101010"
        bold = (x, y) == sweep.best
        axes.text(
            x, y, f"{100 * value:.1f}", color=ink, ha="center", va="center", fontsize=8,
            weight="bold" if bold else "normal", zorder=3,
        )  # fmt: skip
        if bold:
            axes.plot(
                (x - 0.46, x + 0.46, x + 0.46, x - 0.46, x - 0.46),
                (y - 0.46, y - 0.46, y + 0.46, y + 0.46, y - 0.46),
                color=ink, linewidth=1.6, zorder=2,
            )  # fmt: skip
    frame(axes, theme)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlim(-0.5, mean.shape[1] - 0.5)
    axes.set_ylim(-0.5, mean.shape[0] - 0.5)
    axes.set_xticks(range(mean.shape[1]), [number(value) for value in sweep.values[0]])
    axes.set_yticks(range(mean.shape[0]), [number(value) for value in sweep.values[1]])
    axes.set_xlabel(sweep.names[0], color=theme.muted, labelpad=4)
    axes.set_title(f"{sweep.names[1]} (up), final accuracy, %", color=theme.muted, fontsize=9, loc="left", pad=5)
