"""Class-incremental studies: tasks are additions of classes, and accuracy is that on test images.

More classes are harder, so that a fall of accuracy over additions says nothing about plasticity. What does is the
difference from the network trained from scratch on the same classes: the method "reset" of the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from supple.lab.report import tables
from supple.lab.report.additions import Epochs, accuracy_by_arrival, classes_after, drawn_again, epochs_of, whole
from supple.lab.report.comparison import Comparison, Line, best_of
from supple.lab.report.facts import Facts
from supple.lab.report.figures import Canvas, Panel, panel, reading_of, whole_axis
from supple.lab.report.measures import final_tasks
from supple.lab.report.statistics import Interval
from supple.lab.report.texts import counted, gap_text, number, percents, points
from supple.lab.report.view import Curves, View
from supple.lab.study.schema import ResidualNetwork

SCRATCH = "the network trained from scratch on the same classes"
"""What the whole network drawn again at each addition is."""


class ClassIncrementalView(View):
    """A class-incremental folder; its methods are compared also with the network trained from scratch."""

    kind: ClassVar[str] = "class_incremental"
    unit: ClassVar[str] = "classes"
    images_of: ClassVar[str] = ""
    measures: ClassVar[Sequence[str]] = (
        "accuracy", "classes", "weight_magnitude", "scale_magnitude", "reinitialized", "dead_before", "dead",
        "rank_before", "rank",
    )  # fmt: skip
    how_to_read: ClassVar[Sequence[str]] = (
        "At each addition more classes of images come, and the network goes on learning all that it has seen. More "
        "classes are harder, so accuracy falls in any case. What shows a loss of plasticity is the difference from a "
        "network trained from scratch on the same classes (scratch), seed by seed.",
        "Test accuracy is measured on test images of the classes seen so far, after each epoch; at the end of an "
        "addition it is that of the network that is kept. Final test accuracy is the mean of that over the last 10% of "
        "the additions, at least one; the first classes count as an addition.",
        "Dormant units are those of a transformer's MLPs, or between a residual block's convolutions, whose output is "
        "nearly 0 on all of up to 1,000 images; rank is that of what the output layer reads. They are measured as an "
        "addition begins, with the network that goes on to learn it; the table has those on the last new classes.",
        "Shares of diverging runs have no interval: the exact sign test judges them, on the seeds of which one of two "
        "runs diverged and the other did not. Where SWR alone diverged for no seed, it does not diverge more often.",
    )

    def __init__(self, comparison: Comparison) -> None:
        super().__init__(comparison)
        anew = [line for line in self.lines if line.kind == "reset" and whole(drawn_again(line.runs))]
        self.scratch = next((line for line in anew if line.name == line.kind), anew[0] if anew else None)

    @classmethod
    def labels(cls, runs: Sequence[pl.DataFrame]) -> Mapping[str, str]:
        """What the row "reset" is called where not all of its runs draw the whole network again."""
        drawn = {parts for frame in runs for parts in drawn_again(frame.filter(method="reset", kind="reset"))}
        if whole(drawn):
            return {}
        return {"reset": f"reset {drawn.pop()}" if len(drawn) == 1 else "reset"}

    @cached_property
    def classes(self) -> list[int]:
        """Classes seen at each addition that the report is about, the first classes counting as one."""
        return [classes_after(self.measured.study.problem, k + 1) for k in range(self.measured.tasks)]

    @property
    def final_classes(self) -> str:
        """The numbers of classes that final accuracy averages over, such as "95 and 100 classes"."""
        sizes = [self.classes[k] for k in final_tasks(self.measured.tasks)]
        joint = " and " if len(sizes) == 2 else " to "
        return f"{joint.join(map(str, sorted({sizes[0], sizes[-1]})))} classes"

    @cached_property
    def behind(self) -> dict[str, Interval]:
        """For each line that has seeds in common with ``scratch`` its final accuracy minus that, seed by seed."""
        if self.scratch is None:
            return {}
        gaps = {line.name: self.comparison.gap(line, self.scratch) for line in self.lines if line is not self.scratch}
        return {name: gap for name, gap in gaps.items() if math.isfinite(gap.mean)}

    @property
    def answer(self) -> str:
        """What the folder shows, in plain words."""
        first = self.comparison.first
        plain = self.comparison.subject
        subject = SCRATCH if first is self.scratch else plain
        late = first.interval("late")
        text = f"With {self.final_classes}, {subject} ended at a test accuracy of {100 * late.mean:.1f}%"
        shown = []
        if first.name in self.behind:
            shown.append(self.behind[first.name])
            text += f", {gap_text(shown[0], SCRATCH)}"
        others = [line for line in self.lines if line not in (first, self.scratch)]
        if others:
            best = best_of(others)
            label = best.style.label
            gap = self.behind.get(best.name)
            shown.append(self.comparison.gap(best, first) if gap is None else gap)
            against = gap_text(shown[-1], plain if gap is None else "that network")
            average = ", on average the best method," if len(others) > 1 else ""
            text += f". {label}{average} ended at {100 * best.interval('late').mean:.1f}%, {against}"
            text += self.comparison.lead(best, others, label)
        chance = any(math.isfinite(one.mean) and not one.known for one in shown or [late])
        return f"{text}. {self._diverged}{' One seed gives no interval, so this may be chance.' if chance else ''}"

    @property
    def _diverged(self) -> str:
        count = sum(len(line.runs) for line in self.lines)
        lost = [line for line in self.lines if line.diverged]
        if not lost:
            return f"None of {count:,} runs diverged." if count > 1 else "The run did not diverge."
        named = f" ({', '.join(f'{line.style.label} {line.diverged:,}' for line in lost)})" if len(lost) < 5 else ""
        return f"{sum(line.diverged for line in lost):,} of {count:,} runs diverged{named}."

    @property
    def so_far(self) -> str:
        """How far the runs of a study that is not finished have come."""
        study = self.measured.study
        return f"first {self.classes[-1]:,} of {classes_after(study.problem, study.run.tasks):,} classes"

    def columns(self) -> list[tables.Column]:
        """What the table says of each method."""
        found = [tables.outcome_column("final", "late"), *tables.gain_columns(self.comparison)]
        if self.scratch is not None:
            # Where it comes first, every line is compared with it already.
            header = "" if self.scratch is self.comparison.first else f"against {self.scratch.style.label}"
            found.append(tables.interval_column(header, "from_scratch", lambda line: self.behind.get(line.name)))
        dormant = tables.average_column("dormant, %", "dormant", "dead", scale=100)
        return [*found, tables.diverged_column(True), dormant, tables.RANK, tables.REINITIALIZED, tables.SEEDS]

    def note(self) -> str:
        """How to read the table."""
        scratch = f"; {self.scratch.style.label} is {SCRATCH}" if self.scratch is not None else ""
        return (
            f"Test accuracy in per cent: final is with {self.final_classes}; mean over seeds ± half of the 95% "
            f"interval (Student's). Differences are taken seed by seed, in points{scratch}. A run that diverged counts "
            "as 0. Dormant units and rank are those on the last new classes before they are learned, without runs that "
            "diverged."
        )

    def problem_facts(self) -> Facts:
        """What the problem is."""
        problem: Any = self.measured.study.problem
        kept = "that of the best validation accuracy" if problem.restore else "the last one"
        what = (
            f"class-incremental images, {problem.first} classes at first, {problem.step} more at each addition, "
            f"{counted(problem.epochs, 'epoch')} with each number of classes, the network kept at the end of an "
            f"addition is {kept}"
        )
        images = [
            f"all {words}" if count is None else f"{count:,} {words}"
            for count, words in ((problem.train_images, "for training"), (problem.test_images, "for test"))
        ]
        augmented = [
            f"flip with probability {number(problem.flip)}" if problem.flip else "",
            f"crop after padding by {counted(problem.padding, 'pixel')}" if problem.padding else "",
            f"rotation by up to {number(problem.rotation)} degrees" if problem.rotation else "",
        ]
        images.append(f"{problem.validation:,} of those for training kept for validation")
        augmentation = ", ".join(filter(None, augmented)) or "none"
        return [("Problem", what), ("Images of a class", ", ".join(images)), ("Augmentation", augmentation)]

    def network_text(self) -> str:
        """The network in words."""
        network: Any = self.measured.study.network
        if isinstance(network, ResidualNetwork):
            parts = [
                "residual network",
                f"4 stages of {counted(network.depth, 'block')}, from {network.width} channels",
            ]
        else:
            parts = [
                "vision transformer",
                f"{counted(network.depth, 'layer')} of width {network.width} with {counted(network.heads, 'head')}",
                f"{network.hidden} hidden units a layer",
                f"patches of {network.patch_size} x {network.patch_size}",
                f"dropout {number(network.dropout)}" if network.dropout else "no dropout",
                "reparameterized layer norm" if network.reparameterized else "layer norm",
            ]
        parts += [
            f"products in {network.precision}" if network.precision != "float32" else "",
            "compiled" if network.compiled else "",
        ]
        return ", ".join(filter(None, parts))

    def length_text(self) -> str:
        """How long a network learns, such as "20 numbers of classes, 5 to 100: 2,000 epochs, 1,050,000 steps"."""
        problem: Any = self.measured.study.problem
        steps, additions = self.measured.results.steps, self.measured.study.run.tasks
        last = classes_after(problem, additions)
        classes = f"{problem.first} to {last}" if additions > 1 else f"{last}"
        epochs, taken = counted(additions * problem.epochs, "epoch"), counted(sum(steps), "step")
        return f"{counted(additions, 'number')} of classes, {classes}: {epochs}, {taken} a network"

    def beside_final(self) -> tuple[Panel, str]:
        """The difference from training from scratch, or from the first where there is none, and what it is in words."""
        reference, called = self.comparison.first, self.comparison.first.style.label
        if self.scratch is not None and self.behind:
            reference, called = self.scratch, SCRATCH
        gaps = self.comparison.values("late", minus=reference)
        return Panel(f"against {reference.style.label}, points", gaps, label=points), f"its difference from {called}"

    @cached_property
    def over_tasks(self) -> pl.DataFrame:
        """The curves of :attr:`measures` over additions; a point lies where its classes are."""
        found = super().over_tasks
        classes = found.group_by("x").agg(classes=pl.mean("classes"))
        return found.drop("classes").join(classes, on="x", maintain_order="left").drop("x").rename({"classes": "x"})

    @cached_property
    def epochs(self) -> Epochs | None:
        """Test accuracy over epochs."""
        return epochs_of(self.measured, self.comparison.runs)

    @cached_property
    def arrival(self) -> pl.DataFrame:
        """Test accuracy of the classes in their order of arrival."""
        return accuracy_by_arrival(self.measured, self.comparison.runs, self.classes)

    def curves(self, lines: Sequence[Line]) -> Iterator[Curves]:
        """The figures of curves of some lines."""
        diverged, found, epochs = any(line.diverged for line in lines), self.over_tasks, self.epochs
        share: dict[str, Any] = {"label": percents, "within": (0, 1)}
        classes, last = whole_axis("classes seen", self.classes[0], self.classes[-1]), self.classes[-1]

        def reading(unit: str, counts: str, width: int = 1) -> list[str]:
            return [*reading_of(lines, width, unit), *([counts] if diverged else [])]

        if epochs is not None:
            caption = "Test accuracy by epoch, which falls where classes come, on the classes seen so far,"
            how = reading("epoch", "once diverged a run counts as 0", epochs.width)
            layout = {"reading": how, "axis": epoch_axis(epochs)}
            yield "accuracy", caption, "Test accuracy by epoch", [panel("", epochs.curves, **share)], layout
        panels, caption = [panel("test accuracy", found, **share)], "Test accuracy at the end of each addition"
        behind = self.behind_scratch(found, lines)
        if behind is not None:
            panels.append(panel("against training from scratch, points", behind, label=points, within=(-1, 1)))
            caption += f", and its difference from {SCRATCH},"
        how = reading("end of an addition", "a diverged run counts as 0")
        layout = {"reading": how, "axis": classes, "columns": 2, "tall": 2.75}
        yield "additions", caption, "After each addition", panels, layout
        caption = "Test accuracy of the classes in their order of arrival, in the end,"
        how = reading("classes that came together", "a diverged run counts as 0")
        layout = {"reading": how, "axis": whole_axis("class, in order of arrival", 1, last)}
        yield "classes", caption, "Old and new classes", [panel("", self.arrival, **share)], layout
        caption = "Dormant units and rank of what the output layer reads as each addition begins,"
        dormant: dict[str, Any] = {"label": percents, "bottom": 0, "alike": "dormant"}
        panels = [
            panel("dormant, old classes", found, "dead_before", **dormant),
            panel("dormant, new classes", found, "dead", **dormant),
            panel("rank, old classes", found, "rank_before", alike="rank"),
            panel("rank, new classes", found, "rank", alike="rank"),
        ]
        layout = {"reading": reading("start of an addition", "without diverged runs"), "axis": classes, "tall": 1.9}
        yield "dormant", caption, "Units and features", panels, {**layout, "columns": 2}
        caption = "Mean magnitude of weights and normalization scales as each addition begins,"
        # Where nothing is ever reinitialized there is no line; and nothing is below 0.
        acting = found.filter((pl.col("reinitialized").fill_null(0) > 0).any().over("line"))
        panels = [
            panel("mean |weight|", found, "weight_magnitude"),
            panel("mean |norm. scale|", found, "scale_magnitude"),
            panel("reinitialized an addition", acting, "reinitialized", logarithmic=True, within=(0, math.inf)),
        ]
        yield "magnitudes", caption, "Weights and scales", panels, layout

    def behind_scratch(self, found: pl.DataFrame, lines: Sequence[Line]) -> pl.DataFrame | None:
        """Accuracy minus that of the network trained from scratch, seed by seed; None if no other has its seeds."""
        if self.scratch is None:
            return None
        own = found.filter(pl.col("line").is_in([line.name for line in lines]))
        scratch = found.filter(line=self.scratch.name).select("seed", "x", reference="accuracy")
        both = own.join(scratch, on=["seed", "x"], maintain_order="left")
        if not set(both["line"]) - {self.scratch.name}:
            return None
        return both.with_columns(pl.col("accuracy") - pl.col("reference"))


def epoch_axis(epochs: Epochs) -> Callable[[Axes, Canvas], None]:
    """Makes the horizontal axis one of epochs, with a line at each addition and the classes seen between them."""

    def make(axes: Axes, canvas: Canvas) -> None:
        starts, stops = epochs.bounds[:-1], epochs.bounds[1:]
        for start in starts[1:]:
            axes.axvline(start, color=canvas.theme.grid, linewidth=0.8, zorder=0)
        every = math.ceil(len(starts) / (8 if canvas.narrow else 14))
        labelled = range((len(starts) - 1) % every, len(starts), every)
        axes.set_xlim(starts[0], stops[-1])
        axes.set_xticks([(starts[k] + stops[k]) / 2 for k in labelled], [str(epochs.classes[k]) for k in labelled])
        each = set(np.diff(epochs.bounds).tolist())
        axes.set_xlabel(
            f"classes seen, {counted(each.pop(), 'epoch')} with each number" if len(each) == 1 else "classes seen"
        )

    return make
