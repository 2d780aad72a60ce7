"""What a comparison of methods measured, and what follows from it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supple.lab.report.statistics import Array, Interval, mean_interval, window
from supple.lab.report.style import method_style

COLUMNS = ("task", "method", "seed", "accuracy", "loss", "dead_share", "reinitialized")
"""The columns of a comparison's CSV file."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods compared on the same tasks with the same seeds.

    Args:
        methods: their names, C of them.
        seeds: the seeds, S of them.
        accuracy: [tasks, S, C], online accuracy averaged over a task, 0 to 1.
        loss: [tasks, S, C], online cross-entropy averaged over a task, in nats.
        dead: [tasks, S, C], share of dead hidden units at the start of a task, 0 to 1.
        reinitialized: [tasks, S, C], weights or units reinitialized during a task.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: Array
    loss: Array
    dead: Array
    reinitialized: NDArray[np.int64]

    @property
    def tasks(self) -> int:
        """Number of tasks that were learned."""
        return len(self.accuracy)

    @property
    def window(self) -> int:
        """Number of tasks at the beginning, and at the end, that a summary averages over."""
        return window(self.tasks)

    @property
    def ends(self) -> tuple[str, str]:
        """The tasks at the beginning and at the end, as "tasks 1–15" and "tasks 61–75"."""
        if self.window == 1:
            return "task 1", f"task {self.tasks}"
        return f"tasks 1–{self.window}", f"tasks {self.tasks - self.window + 1}–{self.tasks}"

    def curves(self) -> dict[str, Array]:
        """Accuracy over tasks.

        Returns:
            For each method, [tasks, S], 0 to 1.
        """
        return {method: self.accuracy[:, :, c] for c, method in enumerate(self.methods)}

    def rows(self) -> Iterator[tuple[int, str, int, float, float, float, int]]:
        """The numbers one by one.

        Yields:
            The values of :data:`COLUMNS` for each task, method and seed.
        """
        for task in range(self.tasks):
            for c, method in enumerate(self.methods):
                for s, seed in enumerate(self.seeds):
                    at = (task, s, c)
                    measured = (float(self.accuracy[at]), float(self.loss[at]), float(self.dead[at]))
                    yield task + 1, method, seed, *measured, int(self.reinitialized[at])

    def write_csv(self, path: Path) -> None:
        """Writes :meth:`rows` under a header.

        Args:
            path: the CSV file, which is replaced where it is there.

        Raises:
            OSError: if it cannot be written.
        """
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(self.rows())


@dataclass(frozen=True)
class Summary:
    """What became of one method; intervals are over seeds, differences are taken seed by seed.

    Args:
        method: its name.
        early: accuracy over the first tasks.
        late: accuracy over the last tasks.
        change: late minus early.
        gain: late minus late accuracy of the first method.
        dead: share of dead hidden units at the start of the last task, averaged over seeds.
        reinitialized: weights or units reinitialized in a run, averaged over seeds.
    """

    method: str
    early: Interval
    late: Interval
    change: Interval
    gain: Interval
    dead: float
    reinitialized: float


def summarize(comparison: Comparison) -> list[Summary]:
    """Summarizes each method.

    Args:
        comparison: what was measured; the first method is what the others are compared with.

    Returns:
        A summary a method, in order.
    """
    span = comparison.window
    early = comparison.accuracy[:span].mean(axis=0)
    late = comparison.accuracy[-span:].mean(axis=0)
    return [
        Summary(
            method,
            early=mean_interval(early[:, c]),
            late=mean_interval(late[:, c]),
            change=mean_interval(late[:, c] - early[:, c]),
            gain=mean_interval(late[:, c] - late[:, 0]),
            dead=float(comparison.dead[-1, :, c].mean()),
            reinitialized=float(comparison.reinitialized[:, :, c].sum(axis=0).mean()),
        )
        for c, method in enumerate(comparison.methods)
    ]


def percent(interval: Interval, signed: bool = False) -> str:
    """A share with its interval in per cent, such as "74.2 ± 0.3"; "-" stands for an interval that there is not.

    A dash alone stands for a mean of nothing, such as the difference of methods that have no seed in common.

    Args:
        interval: of a share, symmetric about its mean.
        signed: whether to put a sign in front, as for a difference.

    Returns:
        The text.
    """
    if np.isnan(interval.mean):
        return "–"
    mean = f"{100 * interval.mean:{'+' if signed else ''}.1f}".replace("-", "−")
    half = "-" if np.isnan(interval.high) else f"{50 * (interval.high - interval.low):.1f}"
    return f"{mean} ± {half}"


def answer(comparison: Comparison, summaries: list[Summary]) -> str:
    """What the comparison shows, in plain words computed from the numbers.

    A fall, a rise or a difference is called one only if its 95% interval leaves out 0; with one seed there is no
    interval, and the text says so.

    Args:
        comparison: what was measured.
        summaries: from :func:`summarize`.

    Returns:
        One sentence; with one seed two.
    """
    span = comparison.window
    first, last = (f"first {span} tasks", f"last {span}") if span > 1 else ("first task", "last")
    late = comparison.accuracy[-span:].mean(axis=0)
    column = comparison.methods.index

    def gap(best: str, other: str) -> Interval:
        return mean_interval(late[:, column(best)] - late[:, column(other)])

    labels = {method: method_style(method).label for method in comparison.methods}
    text = sentence(summaries, labels, gap, f" on the {first}", f" on the {last}")
    return text + (" One seed gives no interval, so this may be chance." if len(comparison.seeds) == 1 else "")


def sentence(
    summaries: list[Summary],
    labels: Mapping[str, str],
    gap: Callable[[str, str], Interval],
    first: str,
    last: str,
    subject: str = "plain training",
) -> str:
    """What became of the method that others are compared with, and of the best of the others.

    Args:
        summaries: of the methods; the first is what the others are compared with.
        labels: what people call them.
        gap: gives the late accuracy of one method minus that of another, seed by seed.
        first: where the early accuracies are from, such as " on the first 15 tasks".
        last: where the late accuracies are from.
        subject: what the first method is.

    Returns:
        A sentence.
    """
    base, others = summaries[0], summaries[1:]
    lost = " (loss of plasticity)" if base.change.high < 0 else ""
    text = f"The accuracy of {subject} {_move(base, first, last)}{lost}"
    if others:
        best = max(others, key=lambda summary: float(summary.late.mean))
        gaps = {labels[other.method]: gap(best.method, other.method) for other in others if other is not best}
        text += (
            f", while {labels[best.method]}, on average the best method at the end, {_move(best)} and ended "
            f"{compared(best.gain)}{also(gaps)}"
        )
    return text + "."


def _move(summary: Summary, first: str = "", last: str = "") -> str:
    """From where to where the accuracy went."""
    change = summary.change
    ends = f"from {100 * summary.early.mean:.1f}%{first} to {100 * summary.late.mean:.1f}%{last}"
    if np.isnan(change.low):
        return f"went {ends}"
    if change.low <= 0 <= change.high:
        return f"went {ends} (no clear change)"
    return f"{'rose' if change.mean > 0 else 'fell'} {ends}"


def compared(gain: Interval, other: str = "it") -> str:
    """How far a method is from another one.

    Args:
        gain: difference of their accuracies.
        other: what the other one is called.

    Returns:
        Such as "2.1 points above it (95% interval +1.9 to +2.3)".
    """
    if np.isnan(gain.mean):
        return f"without a seed in common with {other}"
    points = f"{abs(100 * gain.mean):.1f} points {'above' if gain.mean >= 0 else 'below'} {other}"
    if np.isnan(gain.low):
        return points
    ends = f"95% interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}".replace("-", "−")
    unclear = ", which may be chance" if gain.low <= 0 <= gain.high else ""
    return f"{points} ({ends}{unclear})"


def also(gaps: Mapping[str, Interval], best: str = "it") -> str:
    """Which other methods are not clearly behind the best, seed by seed.

    Args:
        gaps: for the label of each, the accuracy of the best minus its own.
        best: what the best is called.

    Returns:
        Such as "; CBP is not clearly behind it"; empty if all are.
    """
    near = [label for label, gap in gaps.items() if gap.low <= 0]
    if not near:
        return ""
    if len(near) > 4:
        return f"; {len(near)} others are not clearly behind {best}"
    listed = " and ".join([", ".join(near[:-1]), near[-1]] if len(near) > 1 else near)
    return f"; {listed} {'are' if len(near) > 1 else 'is'} not clearly behind {best}"
