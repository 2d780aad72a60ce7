"""How a study shows in a terminal, or in a log, how far it has come."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from supple.lab.escaping import short, shown

_SHOWN = 12
"""Methods whose accuracy is shown while a study runs."""


class Watcher:
    """What follows a run; this one says nothing. What runs are compared by may be no share (``per_cent``)."""

    per_cent = True

    def start(self, parts: Mapping[int, tuple[int, float]], steps: Sequence[int]) -> None:
        """Called when it is known what is to be trained, and again where a part was halved.

        For each part there are its runs, and the tasks it has learned, with the part of the last one.
        """

    def step(self, part: int, task: int, step: int) -> None:
        """Called now and then with the task that a part learns, and the steps of it that it has taken."""

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Called after each stage of a part with the tasks that have been learned, with the part of the last one.

        The accuracy of each column, averaged over seeds, comes with the name of its method.
        """

    def say(self, message: str) -> None:
        """Called with what somebody should know, in one sentence."""


class Tally(Watcher):
    """Counts how far a study has come; what should be known it prints on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._runs: dict[int, int] = {}
        self._done: dict[int, float] = {}
        self._accuracy: dict[int, Mapping[str, tuple[float, int]]] = {}
        self._steps: Sequence[int] = ()
        self._before = [0]
        self._began, self._at_start = time.monotonic(), 0.0

    def start(self, parts: Mapping[int, tuple[int, float]], steps: Sequence[int]) -> None:
        """Takes up what is to be trained."""
        self._steps, self._before = steps, [0, *accumulate(steps)]
        for part, (runs, done) in parts.items():
            self._runs[part], self._done[part] = runs, done
        self._began, self._at_start = time.monotonic(), self.steps

    def step(self, part: int, task: int, step: int) -> None:
        """Notes how far a part has come."""
        # Where classes have unlike numbers of images, seeds have unlike numbers of steps.
        self._done[part] = task + min(1.0, step / self._steps[task])

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Notes how far a part has come and its accuracies, averaged over the points of a grid."""
        self._done[part] = done
        values: dict[str, list[float]] = defaultdict(list)
        for method, value in accuracy:
            values[method].append(value)
        weight = self._runs[part] // len(accuracy)
        self._accuracy[part] = {method: (sum(some) / len(some), weight * len(some)) for method, some in values.items()}

    def say(self, message: str) -> None:
        """Prints it."""
        self.console.print(shown(message), highlight=False, soft_wrap=True)

    @property
    def steps(self) -> float:
        """Network steps that have been taken, in this and earlier sessions."""
        return sum(self._runs[part] * self._taken(done) for part, done in self._done.items())

    @property
    def share(self) -> float:
        """Share of all network steps that have been taken."""
        return self.steps / self._total if self._total else 1.0

    @property
    def _total(self) -> int:
        return sum(self._runs.values()) * self._before[-1]

    def _taken(self, done: float) -> float:
        """Steps of a run that has learned so many tasks."""
        whole = int(done)
        return self._before[whole] + (done - whole) * self._steps[whole] if done > whole else self._before[whole]

    def pace(self) -> str:
        """Network steps a second and the time left, as text."""
        taken, passed = self.steps - self._at_start, time.monotonic() - self._began
        if taken <= 0 or passed <= 0:
            return ""
        left = (self._total - self.steps) * passed / taken
        return f"{pace(taken / passed)} network steps/s, {duration(left)} left"

    def accuracies(self) -> dict[str, float]:
        """Accuracy on the latest tasks of the parts, by method; of the first methods where there are many."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for part in sorted(self._accuracy):
            for method, (value, weight) in self._accuracy[part].items():
                sums[method][0] += value * weight
                sums[method][1] += weight
        return {method: total / weight for method, (total, weight) in [*sums.items()][:_SHOWN]}

    def value(self, value: float) -> str:
        """An accuracy, or what else runs are compared by, as text."""
        return f"{100 * value:.1f}%" if self.per_cent else f"{value:.4g}"

    def line(self) -> str:
        """All of it in one line."""
        each = [f"{short(method)} {self.value(value)}" for method, value in self.accuracies().items()]
        return "  ".join(filter(None, (f"{100 * self.share:.1f}%", *each, f"({self.pace()})" if self.pace() else "")))

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *error: object) -> None:
        return


class Lines(Tally):
    """Follows a study with a line every so many seconds, for logs and pipes; the first comes after the first stage."""

    def __init__(self, console: Console, every: float = 30.0) -> None:
        super().__init__(console)
        self._every, self._last = every, float("-inf")

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Writes a line if one is due."""
        super().stage(part, done, accuracy)
        if time.monotonic() - self._last >= self._every or self.share == 1:
            self._last = time.monotonic()
            self.say(self.line())


class Bars(Tally):
    """Follows a study with a bar and a table of accuracies that change in place, on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            BarColumn(bar_width=40), TextColumn("{task.percentage:>5.1f}%"), TextColumn("{task.description}"),
            console=console,
        )  # fmt: skip
        self._bar = self._progress.add_task("", total=1.0)
        self._live = Live(self._view(), console=console, refresh_per_second=4)

    def step(self, part: int, task: int, step: int) -> None:
        """Moves the bar on."""
        super().step(part, task, step)
        self._show()

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Shows the new accuracies."""
        super().stage(part, done, accuracy)
        self._show()

    def _show(self) -> None:
        self._progress.update(self._bar, completed=self.share, description=self.pace())
        self._live.update(self._view())

    def _view(self) -> Group:
        table = Table(box=None, padding=(0, 2), show_header=False)
        for method, value in self.accuracies().items():
            table.add_row(shown(short(method)), self.value(value))
        return Group(table, self._progress)

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()


def pace(value: float) -> str:
    """A number of things a second: such as "12,743", or "0.124" where it is small."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time in the two units that say it best: such as "45 s", "3 min 20 s", "7 h 5 min" or "12 d 4 h"."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    for (name, size), (smaller, part) in pairwise(units):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {smaller}"
    return f"{whole} s"
