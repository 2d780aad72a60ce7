"""Which figures a class-incremental folder is shown in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from supple.lab.report.dots import Panel
from supple.lab.report.drawing import percents
from supple.lab.report.drawn import Drawn, overview, points, row_groups, seeds_reading, sweep_figure
from supple.lab.report.figures import binned_accuracy
from supple.lab.report.incremental.axes import arrival_axis, classes_axis, epoch_axis
from supple.lab.report.incremental.measured import EpochCurves, class_accuracy, epoch_curves
from supple.lab.report.incremental.section import SCRATCH, IncrementalSection
from supple.lab.report.panels import CurvePanel, curve_panels
from supple.lab.report.section import Row
from supple.lab.report.statistics import Array
from supple.lab.report.style import MethodStyle
from supple.lab.report.variants import colour_pairs

_COLUMNS = (
    "accuracy", "classes", "weight_magnitude", "scale_magnitude", "reinitialized", "dead_before", "dead",
    "rank_before", "rank",
)  # fmt: skip

ByRow = Mapping[str, Array]
"""For each name of a row [points, runs]."""


def incremental_figures(section: IncrementalSection) -> Iterator[Drawn]:
    """The figures of a class-incremental folder.

    Accuracy over epochs, at the end of each addition and of the classes in their order of arrival; magnitudes, dormant
    units and rank at each addition; sweeps.

    Args:
        section: the folder.

    Yields:
        The figures, in the order of the page.
    """
    measured = section.measured
    runs = [run for row in section.rows for run in row.runs]
    place = {run: k for k, run in enumerate(runs)}

    def by_row(values: Array) -> dict[str, Array]:
        return {row.name: values[:, [place[run] for run in row.runs]] for row in section.rows}

    _, found = measured.curves(runs, _COLUMNS)
    curves = {name: by_row(values) for name, values in found.items()}
    classes = np.nanmean(found["classes"], axis=1)
    epochs = epoch_curves(measured, runs)
    arrival, of_classes = class_accuracy(measured, runs)
    groups = row_groups(section.rows)
    if len(groups) > 1:
        yield _overview(section)
    for ending, title, rows in groups:
        group = _Group(section, f"{section.key}{ending}", title, rows)
        if epochs is not None:
            yield group.over_epochs(epochs, by_row(epochs.accuracy))
        yield group.at_the_end(classes, curves["accuracy"])
        yield group.by_arrival(arrival, by_row(of_classes), int(classes[-1]))
        yield from group.dormant_units(classes, curves)
        yield from group.magnitudes(classes, curves)
    for row in section.rows:
        if row.grid:
            yield sweep_figure(section, row)


def from_scratch(section: IncrementalSection, rows: Sequence[Row], accuracy: ByRow) -> dict[str, Array]:
    """Accuracy minus that of the network trained from scratch, seed by seed.

    Args:
        section: the folder.
        rows: those that are compared with it.
        accuracy: for each row of the folder [additions, runs of its best point].

    Returns:
        For each row that has seeds in common with that network [additions, those seeds]; empty if none but itself has.
    """
    if section.scratch is None:
        return {}
    seeds = dict(section.measured.runs.select("run", "seed").iter_rows())
    reference = {seeds[run]: k for k, run in enumerate(section.scratch.runs)}
    against = accuracy[section.scratch.name]
    found = {}
    for row in rows:
        both = [(k, reference[seeds[run]]) for k, run in enumerate(row.runs) if seeds[run] in reference]
        if both:
            own, other = (list(places) for places in zip(*both, strict=True))
            found[row.name] = accuracy[row.name][:, own] - against[:, other]
    return found if found.keys() - {section.scratch.name} else {}


class _Group:
    """Methods that share figures."""

    def __init__(self, section: IncrementalSection, key: str, title: str, rows: Sequence[Row]) -> None:
        self.section, self.key, self.title, self.rows = section, key, title, rows
        self.styles: dict[str, MethodStyle] = {row.name: row.style for row in rows}
        self.pairs = colour_pairs(list(self.styles.values()))
        self.named = ", ".join(style.label for style in self.styles.values())

    def reading(self, unit: str, width: int = 1, diverged: str = "a diverged run counts as 0") -> list[str]:
        """How lines came about, and what diverged runs, where there are any, count as."""
        found = seeds_reading(self.rows, width, unit)
        return [*found, diverged] if any(row.diverged for row in self.rows) else found

    def of(self, curves: ByRow) -> dict[str, Array]:
        return {name: curves[name] for name in self.styles if name in curves}

    def over_epochs(self, epochs: EpochCurves, accuracy: ByRow) -> Drawn:
        reading = self.reading("epoch", epochs.width, "once diverged a run counts as 0")
        return Drawn(
            f"{self.key}-accuracy",
            f"Test accuracy over epochs, on the classes seen so far, of {self.named}. It falls where classes come.",
            lambda size, theme: binned_accuracy(
                epochs.ends, self.of(accuracy), self.styles, f"Test accuracy by epoch{self.title}", reading, theme,
                size, lambda axes, centres: epoch_axis(axes, epochs, theme), 1.4, crowded=True, within=(0, 1),
            ),
            self.pairs,
        )  # fmt: skip

    def at_the_end(self, classes: Array, accuracy: ByRow) -> Drawn:
        panels = [CurvePanel("test accuracy", self.of(accuracy), percents, within=(0, 1))]
        behind = from_scratch(self.section, self.rows, accuracy)
        if behind:
            panels.append(CurvePanel("against training from scratch, points", behind, points, within=(-1, 1)))
        return self._panels(
            "additions",
            f"Test accuracy at the end of each addition of classes{', and the difference from ' * bool(behind)}"
            f"{SCRATCH * bool(behind)}, of {self.named}. The last numbers are in the table.",
            "After each addition", panels, classes, self.reading(unit="end of an addition"), (len(panels), 1), 2.75,
        )  # fmt: skip

    def by_arrival(self, arrival: Array, accuracy: ByRow, classes: int) -> Drawn:
        def axis(axes: Axes, centres: Array) -> None:
            arrival_axis(axes, classes)

        reading = self.reading(unit="classes that came together")
        return Drawn(
            f"{self.key}-classes",
            f"Test accuracy of the classes in their order of arrival, in the end, of {self.named}.",
            lambda size, theme: binned_accuracy(
                arrival, self.of(accuracy), self.styles, f"Old and new classes{self.title}", reading, theme,
                size, axis, within=(0, 1),
            ),
            self.pairs,
        )  # fmt: skip

    def dormant_units(self, classes: Array, curves: Mapping[str, ByRow]) -> Iterator[Drawn]:
        panels = [
            CurvePanel("dormant, old classes", self.of(curves["dead_before"]), percents, 0, alike="dormant"),
            CurvePanel("dormant, new classes", self.of(curves["dead"]), percents, 0, alike="dormant"),
            CurvePanel("rank, old classes", self.of(curves["rank_before"]), alike="rank"),
            CurvePanel("rank, new classes", self.of(curves["rank"]), alike="rank"),
        ]
        yield from self._where_measured(
            "dormant",
            f"Share of dormant units and rank of the class token as each addition begins, of {self.named}.",
            "Units and features", panels, classes, (2, 2), 1.9,
        )  # fmt: skip

    def magnitudes(self, classes: Array, curves: Mapping[str, ByRow]) -> Iterator[Drawn]:
        panels = [
            CurvePanel("mean |weight|", self.of(curves["weight_magnitude"])),
            CurvePanel("mean |norm. scale|", self.of(curves["scale_magnitude"])),
        ]
        acting = {name: values for name, values in self.of(curves["reinitialized"]).items() if np.nansum(values)}
        if acting:
            panels.append(CurvePanel("reinitialized an addition", acting, logarithmic=True, within=(0, math.inf)))
        yield from self._where_measured(
            "magnitudes",
            f"Mean magnitude of weights and of normalization scales as each addition begins, of {self.named}.",
            "Weights and scales", panels, classes, (len(panels), 2), 1.9,
        )  # fmt: skip

    def _where_measured(
        self, key: str, alt: str, title: str, panels: Sequence[CurvePanel], classes: Array,
        columns: tuple[int, int], tall: float,
    ) -> Iterator[Drawn]:  # fmt: skip
        there = [panel for panel in panels if any(np.isfinite(values).any() for values in panel.curves.values())]
        if there:
            yield self._panels(
                key, alt, title, there, classes, self.reading("start of an addition", diverged="without diverged runs"),
                columns, tall,
            )  # fmt: skip

    def _panels(
        self, key: str, alt: str, title: str, panels: Sequence[CurvePanel], classes: Array, reading: Sequence[str],
        columns: tuple[int, int], tall: float,
    ) -> Drawn:  # fmt: skip
        draw = partial(
            curve_panels, classes, panels, self.styles, f"{title}{self.title}", reading,
            axis=classes_axis, columns=columns, tall=tall,
        )  # fmt: skip
        return Drawn(f"{self.key}-{key}", alt, lambda size, theme: draw(theme=theme, size=size), self.pairs)


def _overview(section: IncrementalSection) -> Drawn:
    """Final test accuracy of all methods, beside the difference from the first or from training from scratch."""
    if section.scratch is not None and section.from_scratch:
        against = f"against {section.scratch.style.label}, points"
        return overview(section, Panel(against, section.from_scratch, points), f"its difference from {SCRATCH}")
    first = section.rows[0]
    gains = {
        one.method: one.gain for one in section.summaries if one.method != first.name and np.isfinite(one.gain.mean)
    }
    label = first.style.label
    return overview(section, Panel(f"against {label}, points", gains, points), f"its difference from {label}")
