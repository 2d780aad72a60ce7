"""What a folder of results holds, at a glance: a row a method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from supple.lab.study.results import Results


def summary_of(results: Results) -> list[tuple[str, ...]]:
    """Rows of words, the first of them headings: runs and tasks of each method, and how it did in the last tenth."""
    runs = results.runs.select("run", "method", "done")
    late = results.tasks.join(runs, on="run").filter(10 * (pl.col("task") + 1) > 9 * pl.col("done"))
    accuracy = dict(late.group_by("method").agg(pl.mean("accuracy")).iter_rows())
    found: list[tuple[str, ...]] = [("method", "runs", "tasks", "accuracy in the last tenth")]
    for (method,), some in runs.group_by("method", maintain_order=True):
        least, most = some["done"].min(), some["done"].max()
        tasks = f"{most} of {results.study.run.tasks}" if least == most else f"{least} to {most}"
        found.append((str(method), str(len(some)), tasks, f"{accuracy[method]:.1%}" if method in accuracy else "-"))
    return found
