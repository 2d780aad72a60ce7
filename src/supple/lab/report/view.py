"""What a report says about one folder: its figures, table and sentences, for tasks that are equally hard.

A problem that asks for something else says so in a class of its own, in a file of its own beside this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import polars as pl

from supple.lab.escaping import short
from supple.lab.report import tables
from supple.lab.report.comparison import Comparison, Line, fate, groups
from supple.lab.report.facts import Facts, data_text, network_text, optimizer_text, run_facts
from supple.lab.report.figures import Figure, Panel, curves, dots, panel, reading_of, whole_axis
from supple.lab.report.measures import early_tasks, final_tasks
from supple.lab.report.style import Style
from supple.lab.report.sweeps import sweep_figure
from supple.lab.report.texts import number, percents, points, spanned, words

Curves = tuple[str, str, str, Sequence[Panel], Mapping[str, Any]]
"""A figure of curves: the ending of its name, its caption, title and panels, and what else :func:`curves` takes."""


class View:
    """A folder, ready to be shown.

    ``kind`` is the kind of problem that the class is for. In words, ``problem`` is what it is, ``unit`` what tasks are
    called, ``images_of`` what the number of images is of, and ``how_to_read`` what a reader has to know. Curves are
    drawn of the columns ``measures`` of tasks.
    """

    kind: ClassVar[str] = ""
    problem: ClassVar[str] = ""
    unit: ClassVar[str] = "tasks"
    images_of: ClassVar[str] = " a task"
    measures: ClassVar[Sequence[str]] = (
        "accuracy", "dead", "rank", "weight_magnitude", "scale_magnitude", "gradient_magnitude", "reinitialized",
    )  # fmt: skip
    how_to_read: ClassVar[Sequence[str]] = (
        "Accuracy is measured online: on each batch before the network learns from it, averaged over the task. Final "
        "accuracy is that of the last 10% of the tasks; after 10% of tasks means as many tasks around the one at 10%.",
        "Dead units and rank are those at the start of the last task.",
    )

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.measured = comparison.measured
        self.lines = comparison.lines
        self.key, self.title = comparison.key, comparison.title

    @classmethod
    def labels(cls, runs: Sequence[pl.DataFrame]) -> Mapping[str, str]:
        """What those are called that are not what their name says, by the runs of all folders of this kind."""
        return {}

    @property
    def answer(self) -> str:
        """What the folder shows, in plain words."""
        tasks = self.measured.tasks
        text = fate(self.comparison, early_tasks(tasks), final_tasks(tasks))
        diverged, count = sum(line.diverged for line in self.lines), sum(len(line.runs) for line in self.lines)
        if diverged:
            text += f" {diverged:,} of {count:,} runs diverged."
        if max(len(line.seeds) for line in self.lines) == 1:
            text += " One seed gives no interval, so this may be chance."
        return text

    @property
    def so_far(self) -> str:
        """How far the runs of a study that is not finished have come."""
        return f"first {self.measured.tasks:,} of {self.measured.study.run.tasks:,} tasks"

    @property
    def partial(self) -> str:
        """What is missing of a study that is not finished; empty where nothing is."""
        measured = self.measured
        if measured.complete:
            return ""
        tasks = f"their {self.so_far}" if measured.tasks < measured.study.run.tasks else f"all {self.unit}"
        more = f"; {measured.left_out:,} others are not so far yet" if measured.left_out else ""
        here = {line.name for line in self.lines}
        lacking = [
            short(name) for name in measured.results.runs["method"].unique(maintain_order=True) if name not in here
        ]
        nothing = f" There is nothing of {', '.join(lacking)} yet." if lacking else ""
        return f"This is about the {len(measured.runs):,} runs that have learned {tasks}{more}.{nothing}"

    @property
    def facts(self) -> Facts:
        """What exactly was run; what is not known is left out."""
        results, study = self.measured.results, self.measured.study
        problem: Any = study.problem
        found = [
            ("Study", results.name),
            *self.problem_facts(),
            ("Data", data_text(results, self.images_of)),
            ("Network", self.network_text()),
            ("Optimizer", optimizer_text(study.optimizer, problem.batch_size)),
            ("Length", self.length_text()),
            *run_facts(self.measured),
        ]
        return [(name, text) for name, text in found if text]

    def problem_facts(self) -> Facts:
        """What the problem is."""
        return [("Problem", self.problem or words(self.measured.study.problem.kind))]

    def network_text(self) -> str:
        """The network in words."""
        return network_text(self.measured.study.network)

    def length_text(self) -> str:
        """How long a network learns, in words."""
        steps = self.measured.results.steps
        each = f" of {steps[0]:,} steps" if len(set(steps)) == 1 else ""
        return f"{len(steps):,} tasks{each}: {sum(steps):,} steps a network"

    @property
    def table(self) -> tables.Table:
        """The methods, each at its best setting."""
        return tables.methods_table(self.comparison, self.columns(), self.note())

    def columns(self) -> list[tables.Column]:
        """What the table says of each method."""
        return [
            tables.outcome_column("final", "late"),
            tables.outcome_column("after 10%", "early"),
            tables.outcome_column("change", "change", signed=True),
            *tables.gain_columns(self.comparison),
            tables.average_column("dead, %", "dead", "dead", scale=100),
            tables.RANK,
            tables.REINITIALIZED,
            tables.diverged_column(any(line.diverged for line in self.lines)),
            tables.SEEDS,
        ]

    def note(self) -> str:
        """How to read the table."""
        tasks = self.measured.tasks
        outcome = self.measured.outcome
        what = f"{outcome.name[0].upper()}{outcome.name[1:]}{' in per cent' if outcome.share else ''}"
        return (
            f"{what}: final is {spanned(final_tasks(tasks))}, after 10% {spanned(early_tasks(tasks))}; "
            "mean over seeds ± half of the 95% interval (Student's). Differences are taken seed by seed."
        )

    def figures(self) -> Iterator[Figure]:
        """The figures, in the order of the page: curves, disturbances, sweeps."""
        shared = groups(self.lines)
        if len(shared) > 1:
            yield self._overview()
        for ending, title, lines in shared:
            for curve in self.curves(lines):
                yield from self._curves_figure(ending, title, lines, *curve)
        yield from self._disturbances()
        for line in self.lines:
            if line.grid:
                yield sweep_figure(self.key, line, self.comparison.first)

    def beside_final(self) -> tuple[Panel, str]:
        """What the overview shows beside final accuracy, and what it is in words."""
        share = self.measured.outcome.share
        title = "change, points" if share else "change"
        shown = Panel(title, self.comparison.values("change"), label=points if share else number)
        return shown, "its change since 10% of tasks"

    @cached_property
    def over_tasks(self) -> pl.DataFrame:
        """The curves of :attr:`measures` over tasks."""
        columns = list(dict.fromkeys([*self.measures, self.measured.outcome.column]))
        return self.measured.curves(self.comparison.runs, columns)

    def curves(self, lines: Sequence[Line]) -> Iterator[Curves]:
        """The figures of curves of some lines."""
        tasks, found = self.measured.tasks, self.over_tasks
        layout = {
            "reading": reading_of(lines, self.measured.width),
            "axis": whole_axis("task", min(1, tasks - 1), max(tasks, 2)),
        }
        outcome = self.measured.outcome
        share: dict[str, Any] = {"label": percents, "within": (0, 1)} if outcome.share else {}
        accuracy = panel(outcome.name, found, outcome.column, **share)
        acting = found.filter(pl.col("reinitialized").max() > 0)
        beside = [
            panel("dead units", found, "dead", label=percents, bottom=0),
            panel("rank of the last features", found, "rank"),
            panel("mean |weight|", found, "weight_magnitude"),
            panel("mean |norm. scale|", found, "scale_magnitude"),
            panel("mean |gradient|", found, "gradient_magnitude", logarithmic=True),
            panel("reinitialized a task", acting, "reinitialized", logarithmic=True),
        ]
        caption = "Dead units, feature rank, magnitudes and reinitializations over tasks"
        title = f"{outcome.name[0].upper()}{outcome.name[1:]} over tasks"
        yield "accuracy", title, title, [accuracy], layout
        yield "correlates", caption, "What goes along with it", beside, layout

    def _overview(self) -> Figure:
        """Final accuracy of all methods, and one number more."""
        outcome = self.measured.outcome
        worst_last = 1 if outcome.lower else -1
        styles = styles_of(sorted(self.lines, key=lambda line: worst_last * line.interval("late").mean))
        beside, what = self.beside_final()
        label = percents if outcome.share else number
        panels = [Panel(f"final {outcome.name}", self.comparison.values("late"), label=label), beside]
        reading = ["Point: mean over seeds", "bar: 95% interval"]
        return Figure(
            f"{self.key}-overview",
            f"Final {outcome.name} of all methods, and {what}. The numbers are in the table.",
            list(styles.values()),
            lambda canvas: dots(canvas, panels, styles, "All methods, from the best", reading),
        )

    def _curves_figure(
        self, ending: str, group: str, lines: Sequence[Line], name: str, caption: str, title: str,
        panels: Sequence[Panel], layout: Mapping[str, Any],
    ) -> Iterator[Figure]:  # fmt: skip
        """A figure of curves of some lines, with the panels that there is something to draw in; none without any."""
        styles = styles_of(lines)
        own = pl.col("line").is_in(list(styles))
        there = [one for one in (replace(each, values=each.values.filter(own)) for each in panels) if not one.empty]
        layout = {"tall": TALL, **layout} if len(panels) == 1 else layout
        if there:
            yield Figure(
                f"{self.key}{ending}-{name}",
                f"{caption} of {', '.join(line.style.label for line in lines)}.",
                list(styles.values()),
                lambda canvas: curves(canvas, there, styles, f"{title}{group}", **layout),
            )

    def _disturbances(self) -> Iterator[Figure]:
        """What a reinitialization changes, method by method."""
        changes = self.measured.disturbances
        found = self.measured.named(changes.filter(pl.col("run").is_in(self.comparison.runs)))
        styles = styles_of([line for line in self.lines if (found["line"] == line.name).any()])
        titles = {
            "loss": "loss, nats", "gradient": "mean |gradient|", "mean": "mean of activations",
            "std": "std of activations",
        }  # fmt: skip
        values = ((title, found.select("line", "seed", value=column)) for column, title in titles.items())
        panels = [one for one in (Panel(*each, logarithmic=True) for each in values) if not one.empty]
        if panels:
            reading = ["Mean absolute change on the batch of its step", "bar: 95% interval over seeds"]
            yield Figure(
                f"{self.key}-disturbances",
                "Mean absolute change of loss, gradient and activations across a reinitialization, for each method.",
                list(styles.values()),
                lambda canvas: dots(canvas, panels, styles, "What a reinitialization changes at once", reading),
            )


TALL = 3.7
"""Height in inches of a figure of one panel."""


def styles_of(lines: Sequence[Line]) -> dict[str, Style]:
    """How lines are shown, by name."""
    return {line.name: line.style for line in lines}
