"""Measures what share of a study's time goes into writing results and checkpoints.

Trains one part of a study into a temporary folder, as ``supple run`` does, and adds up the time of all writes. Long
runs write larger tables; ``--earlier`` starts with a table that already holds as many tasks.

Example:
    $ python benchmarks/writing.py permuted_mnist/small --seeds 5 --tasks 10
    $ python benchmarks/writing.py permuted_mnist/large --seeds 2 --tasks 3 --earlier 900
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import polars as pl
import torch
from engine import images

from supple.lab.study import checkpoint, files
from supple.lab.study.part import Part
from supple.lab.study.permuted import PermutedProblem
from supple.lab.study.results import CHECKPOINT, TASKS, dump_table
from supple.lab.study.shipped import find
from supple.lab.study.spec import read


class Timed(Part):
    """A part that notes how long it writes."""

    writes = 0
    seconds = 0.0

    def _save(self, *arguments: object) -> None:
        began = time.perf_counter()
        super()._save(*arguments)  # type: ignore[arg-type]
        self.seconds += time.perf_counter() - began
        self.writes += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="permuted_mnist/small")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--earlier", type=int, default=0, help="tasks that the table already holds")
    options = parser.parse_args()
    torch.set_num_threads(1)
    study = read(find(options.study)[0])
    with tempfile.TemporaryDirectory() as folder:
        part = Timed(Path(folder), 0, 0, study.columns, range(options.seeds))
        problem = PermutedProblem(study, images(options.images))
        part.train(problem, 1)
        _lengthen(part, options.earlier)
        part.writes, part.seconds = 0, 0.0
        began = time.perf_counter()
        part.train(problem, 1 + options.earlier + options.tasks)
        passed = time.perf_counter() - began
        size = sum(file.stat().st_size for file in part.folder.iterdir())
    print(
        f"{part.size} runs, {options.tasks} tasks: {passed:.1f} s, of which {part.seconds:.2f} s "
        f"({100 * part.seconds / passed:.2f}%) in {part.writes} writes; {size / 1e6:.1f} MB of files"
    )


def _lengthen(part: Part, tasks: int) -> None:
    """Lets the table and the checkpoint of a part that has learned one task look as if it had learned more before."""
    frame = pl.read_parquet(part.folder / TASKS)
    frames = [frame.with_columns(pl.lit(task, pl.Int32).alias("task")) for task in range(tasks + 1)]
    contents = {path.name: path.read_bytes() for path in part.folder.glob("*.parquet")}
    state = {**checkpoint.load(part.folder / CHECKPOINT), "tasks": tasks + 1}
    files.write(part.folder, {**contents, TASKS: dump_table(pl.concat(frames)), CHECKPOINT: checkpoint.dump(state)})


if __name__ == "__main__":
    main()
