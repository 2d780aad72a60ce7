"""The demo: a small study, trained in the command's own process as one population, with curves that grow meanwhile."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import polars as pl
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from supple.lab.report.measures import bin_width
from supple.lab.report.style import DARK, label_of, own_style
from supple.lab.study import files
from supple.lab.study.compare import one_thread
from supple.lab.study.manifest import Manifest
from supple.lab.study.part import Stopped
from supple.lab.study.problem import StudyProblem
from supple.lab.study.progress import Bars, Tally, Watcher
from supple.lab.study.results import TASKS, Results, dump_table, load
from supple.lab.study.run_config import RunConfig, free_memory
from supple.lab.study.running import scaled, session


def train(config: RunConfig, problem: StudyProblem, watcher: Watcher, stop: threading.Event) -> Results:
    """Trains all runs of a study together, into an empty folder, until it is done or ``stop`` is set.

    The results are those of the tasks that were learned to their end.
    """
    study = config.study
    steps = problem.steps(study.run.tasks, study.run.seeds)
    changed = scaled(config.original or study, study)
    manifest = Manifest(config.folder, config.name, study, steps, problem.identity(), changed)
    networks = len(study.columns) * len(study.run.seeds)
    needed = problem.images_memory + problem.part_memory(study.columns[0], len(study.run.seeds), len(study.columns))
    if needed > (allowed := free_memory(config.device, 1)):
        raise ValueError(
            f"{networks:,} networks, which the demo trains together, take {needed / 1e6:,.0f} MB, more than the "
            f"{allowed / 1e6:,.0f} MB that may be taken; give fewer --seeds or --tasks"
        )
    manifest.add_missing(study.columns, study.run.seeds, lambda *counts: networks)
    manifest.sessions.append(session(config))
    part, began = manifest.part(0), time.monotonic()
    rows: list[pl.DataFrame] = []
    watcher.start({0: (networks, 0)}, steps)

    def on_step(taken: int) -> None:
        # Often enough for a bar; it takes longer to draw than a step.
        if taken % 20 == 0:
            watcher.step(0, len(rows), taken)
        if stop.is_set():
            raise Stopped

    with one_thread():
        trainer = problem.trainer(part.columns, part.seeds, part.runs)
        try:
            for task in range(study.run.tasks):
                learned = trainer.learn(on_step)
                rows.append(learned.rows[TASKS])
                named = zip((column.method for column in part.columns), learned.accuracy, strict=True)
                watcher.stage(0, task + 1, list(named))
        except Stopped:
            pass
    manifest.sessions[-1]["seconds"] = round(time.monotonic() - began, 1)
    manifest.write()
    if rows:
        files.write(part.folder, {TASKS: dump_table(pl.concat(rows))})
    return load(config.folder)


class TaskLines(Tally):
    """Follows a demo with a line for every tenth of its tasks and the accuracy on them, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._seen: dict[str, list[float]] = defaultdict(list)

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Writes a line if one is due."""
        super().stage(part, done, accuracy)
        for method, value in accuracy:
            self._seen[method].append(value)
        task, tasks = int(done), len(self._steps)
        every = max(1, tasks // 10)
        if task % every == 0 or task == tasks:
            latest = ((label_of(method), np.mean(values[-every:])) for method, values in self._seen.items())
            shown = "  ".join(f"{label} {100 * value:.1f}%" for label, value in latest)
            self.say(f"task {task}/{tasks}  {shown}  ({self.pace()})")


class Curves(Bars):
    """Follows a demo with a bar and a table in which the curves of all methods grow, on a terminal."""

    def __init__(self, console: Console, bars: int = 25) -> None:
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._length = bars
        super().__init__(console)

    def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
        """Lets the curves grow."""
        for method, value in accuracy:
            self._seen[method].append(value)
        super().stage(part, done, accuracy)

    def _view(self) -> Group:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for name in ("", "first tasks", "latest tasks"):
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        table.add_column("accuracy over tasks", min_width=self._length, no_wrap=True)
        width, span = bin_width(max(1, len(self._steps)), self._length), max(1, len(self._steps) // 10)
        binned = {
            method: [float(np.mean(values[k : k + width])) for k in range(0, len(values), width)]
            for method, values in self._seen.items()
        }
        every = [value for values in binned.values() for value in values]
        for method, values in self._seen.items():
            style = own_style(method)
            colour = "" if style is None else DARK.of(style)
            early, latest = np.mean(values[:span]), np.mean(values[-span:])
            curve = Text(sparkline(binned[method], min(every), max(every)), style=colour)
            label = Text(label_of(method), style=f"bold {colour}")
            table.add_row(label, f"{100 * early:.1f}%", f"{100 * latest:.1f}%", curve)
        return Group(table, self._progress)


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], low: float, high: float) -> str:
    """Values as a row of bars, between the value of the lowest and that of the highest."""
    if high <= low:
        return _BARS[len(_BARS) // 2] * len(values)
    heights = np.clip((np.asarray(values) - low) / (high - low) * len(_BARS), 0, len(_BARS) - 1)
    return "".join(_BARS[int(height)] for height in heights)
