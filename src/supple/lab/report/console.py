"""How a comparison shows itself in a terminal while it runs, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from supple.lab.report.comparison import Comparison, Summary, percent
from supple.lab.report.statistics import Array, bin_means, bin_width
from supple.lab.report.style import DARK, method_style

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Array, low: float, high: float) -> str:
    """Values as a row of bars.

    Args:
        values: [n].
        low: the value of the lowest bar.
        high: the value of the highest bar.

    Returns:
        n characters.
    """
    span = high - low
    heights = np.full(len(values), 0.5) if span <= 0 else (np.asarray(values) - low) / span
    return "".join(_BARS[int(np.clip(height * len(_BARS), 0, len(_BARS) - 1))] for height in heights)


class Watcher(Protocol):
    """What follows a run."""

    def __enter__(self) -> Watcher: ...

    def __exit__(self, *error: object) -> None: ...

    def step(self) -> None:
        """Called after each step."""

    def task(self, so_far: Comparison) -> None:
        """Called after each task.

        Args:
            so_far: what was measured up to and with that task.
        """


class Plain:
    """Follows a run with a line now and then, for logs and pipes.

    Args:
        console: where lines go.
        tasks: tasks of the run.
        steps: steps a task.
        networks: networks that learn at once.
        lines: about how many lines.
    """

    def __init__(self, console: Console, tasks: int, steps: int, networks: int, lines: int = 10) -> None:
        self.console, self.tasks, self.steps, self.networks = console, tasks, steps, networks
        self.every = max(1, tasks // lines)

    def __enter__(self) -> Plain:
        self.started = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        return

    def step(self) -> None:
        """Says nothing."""

    def task(self, so_far: Comparison) -> None:
        """Writes a line if one is due.

        Args:
            so_far: what was measured up to and with the task that was learned last.
        """
        done = so_far.tasks
        if done % self.every and done != self.tasks:
            return
        pace = (time.monotonic() - self.started) / done
        latest = so_far.accuracy[-self.every :].mean(axis=(0, 1))
        shown = "  ".join(
            f"{method_style(method).label} {100 * value:.1f}%"
            for method, value in zip(so_far.methods, latest, strict=True)
        )
        rate = self.networks * self.steps / pace
        line = (
            f"task {done}/{self.tasks}  {shown}  ({rate:,.0f} network steps/s, {pace * (self.tasks - done):.0f} s left)"
        )
        self.console.print(line, soft_wrap=True, highlight=False)


class Curves:
    """Follows a run with a progress bar and a table in which the curves of all methods grow.

    Args:
        console: a terminal.
        methods: their names.
        tasks: tasks of the run.
        steps: steps a task.
        networks: networks that learn at once.
        bars: length of a curve.
    """

    def __init__(
        self, console: Console, methods: Sequence[str], tasks: int, steps: int, networks: int, bars: int = 25
    ) -> None:
        self.methods, self.tasks, self.steps, self.networks, self.bars = methods, tasks, steps, networks, bars
        self.progress = Progress(
            TextColumn("task {task.fields[done]}/{task.fields[tasks]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("passed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
        )
        self.bar = self.progress.add_task("", total=tasks * steps, done=0, tasks=tasks, rate="")
        self.so_far: Comparison | None = None
        self.taken = 0
        self.live = Live(self._view(), console=console, refresh_per_second=4)

    def __enter__(self) -> Curves:
        self.started = time.monotonic()
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def step(self) -> None:
        """Moves the bar on, every so many steps."""
        self.taken += 1
        if self.taken % 20 == 0 or self.taken == self.tasks * self.steps:
            rate = self.networks * self.taken / (time.monotonic() - self.started)
            self.progress.update(self.bar, completed=self.taken, rate=f"{rate:,.0f} network steps/s,")

    def task(self, so_far: Comparison) -> None:
        """Lets the curves grow.

        Args:
            so_far: what was measured up to and with the task that was learned last.
        """
        self.so_far = so_far
        self.progress.update(self.bar, done=so_far.tasks)
        self.live.update(self._view())

    def _view(self) -> Group:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for name in ("", "first tasks", "latest tasks"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        table.add_column("accuracy over tasks", min_width=self.bars, no_wrap=True)
        for c, method in enumerate(self.methods):
            style = method_style(method)
            cells = ("", "", "") if self.so_far is None else self._cells(self.so_far, c)
            table.add_row(
                Text(style.label, style=f"bold {DARK.colour(method)}"),
                *cells[:2],
                Text(cells[2], style=DARK.colour(method)),
            )
        return Group(table, self.progress)

    def _cells(self, so_far: Comparison, c: int) -> tuple[str, str, str]:
        """Accuracy on the first and the latest tasks, and the curve, of a method; all curves share a scale."""
        span = max(1, round(0.2 * self.tasks))
        _, binned = bin_means(so_far.accuracy.mean(axis=1), bin_width(self.tasks, self.bars))
        early, latest = so_far.accuracy[:span, :, c].mean(), so_far.accuracy[-span:, :, c].mean()
        return f"{100 * early:.1f}%", f"{100 * latest:.1f}%", sparkline(binned[:, c], binned.min(), binned.max())


def summary_table(comparison: Comparison, summaries: list[Summary]) -> Table:
    """The summaries as a table for the terminal.

    Args:
        comparison: what was measured.
        summaries: from :func:`supple.lab.report.comparison.summarize`.

    Returns:
        The table.
    """
    table = Table(box=None, padding=(0, 1), header_style="bold", caption_justify="left")
    seeds = len(comparison.seeds)
    table.caption = f"accuracy in %: mean ± half of the 95% interval, {seeds} seed{'s' * (seeds > 1)}"
    table.add_column("method", no_wrap=True)
    for name in (*comparison.ends, "change", "dead units, %", "reinitialized"):
        table.add_column(name, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            method_style(summary.method).label,
            percent(summary.early),
            percent(summary.late),
            percent(summary.change, signed=True),
            f"{100 * summary.dead:.1f}",
            f"{summary.reinitialized:,.0f}",
        )
    return table
