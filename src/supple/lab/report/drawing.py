"""What all figures share: their look, axes, labels and legends, and how they become files."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from supple.lab.report.statistics import Array, finite_interval
from supple.lab.report.style import MethodStyle, Theme

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "svg.fonttype": "path",
    "svg.hashsalt": "supple",
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
"""What differs from matplotlib's own settings; in force while a figure is drawn and while it is written."""


WIDE, NARROW = (8.0, 4.8), (4.4, 4.4)
"""Sizes of figures in inches; letters are of one size, so that the narrow one can be read on a phone."""


def box(
    size: tuple[float, float], left: float = 0.55, right: float = 0.95, bottom: float = 0.6, top: float = 0.9
) -> tuple[float, float, float, float]:
    """Where axes lie that leave the same margins whatever the size of the figure.

    Args:
        size: width and height of the figure in inches.
        left: margin in inches.
        right: margin in inches.
        bottom: margin in inches.
        top: margin in inches.

    Returns:
        (left, bottom, width, height) in shares of the figure.
    """
    return left / size[0], bottom / size[1], 1 - (left + right) / size[0], 1 - (bottom + top) / size[1]


def reading_of(width: int, seeds: int, unit: str = "task") -> list[str]:
    """How a line and its band came about.

    Args:
        width: tasks a point averages over.
        seeds: seeds it averages over.
        unit: what a task is called; several words are taken as they are.

    Returns:
        The words, in one part or two.
    """
    point = f"Each point: mean of {width} {unit}s" if width > 1 else f"Each point: {'one ' * (' ' not in unit)}{unit}"
    if seeds == 1:
        return [f"{point}, one seed"]
    return [f"{point}, {seeds} seeds", "band: 95% interval over seeds"]


def percents(share: float, place: float | None = None) -> str:
    """A share as a tick's label in per cent.

    Args:
        share: the share.
        place: where the tick is; not used.

    Returns:
        Such as "75%".
    """
    return f"{100 * share:.3g}%"


def number(value: Any) -> str:
    """A value as people write it.

    Args:
        value: the value.

    Returns:
        Such as "2048", "1e-6", "0.05" or "gradient".
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return str(value)
    if value and not 0.01 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def draw_curve(
    axes: Axes, centres: Array, curve: Array, style: MethodStyle, theme: Theme, width: float = 2.0
) -> tuple[float, float] | None:
    """Draws a line of means over seeds, and a band of their 95% interval.

    Args:
        axes: where.
        centres: [bins].
        curve: [bins, seeds]; NaN where there is nothing.
        style: of the line.
        theme: the colours.
        width: of the line in points.

    Returns:
        The last point of the line; None if there is none.
    """
    mean, low, high = finite_interval(curve.T)
    there = np.isfinite(mean)
    if not there.any():
        return None
    x, mean, low, high = centres[there], mean[there], low[there], high[there]
    axes.fill_between(x, low, high, color=theme.of(style), alpha=0.12, linewidth=0, zorder=2)
    marker = style.marker if len(x) == 1 else ""
    axes.plot(x, mean, color=theme.of(style), linewidth=width, linestyle=style.dash, marker=marker, zorder=3)
    return float(x[-1]), float(mean[-1])


def limit_bands(axes: Axes, within: tuple[float, float] = (-math.inf, math.inf)) -> None:
    """Lets lines fill the axes where a band is so wide, as that of a method of which one run failed, that it would not.

    A band may take as much room above and below as the lines take.

    Args:
        axes: the axes, with all of their lines.
        within: what no value is below and none above.
    """
    # Lines that mark a place of an axis are not in its numbers but in shares of the axes.
    lines = [line for line in axes.lines if line.get_transform() is axes.transData]
    if not lines:
        return
    points = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lines])
    low, high = float(points.min()), float(points.max())
    room = max(high - low, 0.01)
    bottom, top = axes.get_ylim()
    # A line at the very edge would be cut in half.
    edge = 0.02 * room
    axes.set_ylim(max(bottom, low - room, within[0] - edge), min(top, high + room, within[1] + edge))


def task_axis(axes: Axes, centres: Array) -> None:
    """Makes the horizontal axis one of tasks, from the first to the last.

    Args:
        axes: the axes.
        centres: [bins], the mean number of a bin's tasks.
    """
    half = centres[0] - 1
    tasks = centres[-1] + (half if len(centres) == 1 else min(half, centres[-1] - centres[-2] - half - 1))
    axes.set_xlim(1 if tasks > 1 else 0, max(tasks, 2))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("task", color=axes.xaxis.label.get_color(), labelpad=4)


def frame(axes: Axes, theme: Theme) -> None:
    """Axes, ticks and grid in the manner of all figures.

    Args:
        axes: the axes.
        theme: the colours.
    """
    axes.set_facecolor(theme.background)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=theme.grid, linewidth=0.8, zorder=0)
    axes.tick_params(colors=theme.muted, length=0, pad=6)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.xaxis.label.set_color(theme.muted)
    axes.yaxis.label.set_color(theme.muted)


def spans_decades(values: Array) -> bool:
    """Whether values are better shown on a logarithmic axis.

    Args:
        values: any shape.

    Returns:
        Whether the largest is 20 times the smallest of those above 0, or more.
    """
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(len(positive) and positive.max() >= 20 * positive.min())


def powers_of_ten(axes: Axes, axis: XAxis | YAxis) -> None:
    """Makes an axis logarithmic, with a few powers of ten for ticks.

    Args:
        axes: the axes.
        axis: one of its two axes.
    """
    (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(numticks=5))
    axis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def words(figure: Figure, title: str, reading: Sequence[str], theme: Theme) -> None:
    """Writes the title and, in as few lines as its parts fit in, how to read the figure; flush left with it.

    Args:
        figure: the figure.
        title: the title.
        reading: how to read it, in parts.
        theme: the colours.
    """
    wide, high = figure.get_size_inches()
    lines: list[str] = []
    for part in reading:
        # A letter is about 0.068 inches wide.
        if lines and len(lines[-1]) + 2 + len(part) <= (wide - 0.3) / 0.068:
            lines[-1] += f"; {part}"
        else:
            lines.append(part)
    text = "\n".join(lines)
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


def to_themed_svg(figure: Figure, pairs: Mapping[str, str]) -> bytes:
    """A figure as SVG that follows the reader's choice of a light or dark theme.

    Args:
        figure: the figure in the light theme.
        pairs: for each of its colours, as "#rrggbb", the one in the dark theme; others stay.

    Returns:
        The content of an SVG file.
    """
    names = {light: f"--c{k}" for k, light in enumerate(pairs)}
    # Hundredths of a point are enough for a line; the digits that follow make half of the file.
    short = re.sub(r' d="[^"]+"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), to_svg(figure).decode())
    svg = re.sub(
        r"(?<=: )#[0-9a-f]{6}\b",
        lambda found: f"var({names[found[0]]})" if found[0] in names else found[0],
        short,
    )

    def rule(theme: int) -> str:
        return "svg{" + ";".join(f"{names[pair[0]]}:{pair[theme]}" for pair in pairs.items()) + "}"

    style = f"<style>{rule(0)}@media(prefers-color-scheme:dark){{{rule(1)}}}</style>"
    return re.sub(r"(<svg\b[^>]*>)", rf"\1{style}", svg, count=1).encode()


def to_png(figure: Figure) -> bytes:
    """A figure as PNG.

    Args:
        figure: the figure.

    Returns:
        The content of a PNG file with 200 pixels an inch.
    """
    return _to(figure, "png")


def to_pdf(figure: Figure) -> bytes:
    """A figure as PDF; the same figure always gives the same bytes.

    Args:
        figure: the figure.

    Returns:
        The content of a PDF file.
    """
    return _to(figure, "pdf")


_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Creator": None, "Date": None, "Format": None, "Type": None},
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def _to(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(content, format=kind, dpi=200, facecolor=figure.get_facecolor(), metadata=_METADATA[kind])
    return content.getvalue()
