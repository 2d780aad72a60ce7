"""What a folder of results holds, at a glance: a row a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from supple.lab.study.results import Results


def summary_of(results: Results) -> list[tuple[str, ...]]:
    """Rows of words, the first of them headings: runs and tasks of each method, and how it did in the last tenth."""
    outcome = results.outcome
    runs = results.runs.select("run", "method", "done")
    late = results.tasks.join(runs, on="run").filter(10 * (pl.col("task") + 1) > 9 * pl.col("done"))
    values = dict(late.group_by("method").agg(pl.mean(outcome.column)).iter_rows())
    form = ".1%" if outcome.share else ".4g"
    shown = {method: format(float(value), form) for method, value in values.items()}
    found: list[tuple[str, ...]] = [("method", "runs", "tasks", f"{outcome.name} in the last tenth")]
    for (method,), some in runs.group_by("method", maintain_order=True):
        done = some["done"].to_list()
        least, most = min(done), max(done)
        tasks = f"{most} of {results.study.run.tasks}" if least == most else f"{least} to {most}"
        found.append((str(method), str(len(some)), tasks, shown.get(method, "-")))
    return found
