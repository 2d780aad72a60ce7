"""How long ``supple report`` takes on a large folder, and how much memory.

Run it with ``python benchmarks/report.py``; it writes results of the size of the paper's sweeps, 17,000 runs of 1,000
tasks, into a temporary folder (about 0.5 GB) and reports on them in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from supple.lab.study import results as form

PART = 256
SEEDS = 10
FREQUENCIES = [256, 512, 1024, 2048, 4096, 8192]
FACTORS = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
STEP_SIZES = [0.01, 0.05, 0.1]
UNITS = {"cbp": ("maturity", "replacement_rate"), "redo": ("frequency", "threshold")}


def columns() -> list[dict[str, object]]:
    """What is compared: sixteen methods, each with a grid of up to 108 points."""
    found: list[dict[str, object]] = [{"method": "base", "kind": "base"}]
    grid = list(itertools.product(FREQUENCIES, FACTORS, STEP_SIZES))
    for utility, pruning, reinit in itertools.product(
        ("gradient", "magnitude"), ("threshold", "proportional"), ("resample", "mean")
    ):
        words = {"utility": utility, "pruning": pruning, "reinit": reinit}
        name = (
            "swr"
            if list(words.values()) == ["gradient", "threshold", "resample"]
            else "swr_" + "_".join(words.values())
        )
        for frequency, factor, step_size in grid:
            numbers = {"frequency": frequency, "factor": factor, "optimizer.step_size": step_size}
            found.append({"method": name, "kind": "swr", **words, **numbers})
    for kind, (first, second) in UNITS.items():
        for utility in ("contribution", "activation", "gradient", "magnitude"):
            name = kind if utility == ("contribution" if kind == "cbp" else "activation") else f"{kind}_{utility}"
            for frequency, factor, step_size in grid:
                numbers = {first: frequency, second: factor, "optimizer.step_size": step_size}
                found.append({"method": name, "kind": kind, "utility": utility, **numbers})
    return found


def generate(folder: Path, runs: int, tasks: int) -> None:
    """Writes results of so many runs."""
    rows = []
    for column in itertools.cycle(columns()):
        if len(rows) >= runs:
            break
        chosen = [str(value) for name, value in column.items() if name not in ("method", "kind", "utility")]
        for seed in range(SEEDS):
            number = len(rows)
            settings = {"network.hidden": 100, "network.activation": "relu", "optimizer.name": "sgd", **column}
            settings.setdefault("optimizer.step_size", 0.05)
            rows.append({"run": number, "seed": seed, "part": number // PART, "point": ", ".join(chosen), **settings})
    rows = rows[:runs]
    parts = 1 + (len(rows) - 1) // PART
    manifest = {
        "format": form.FORMAT,
        "supple": "0.1.0",
        "name": "benchmark",
        "study": {
            "title": "A large folder",
            "problem": {"kind": "permuted"},
            "run": {"tasks": tasks, "seeds": SEEDS},
            "methods": {column["method"]: {"kind": column["kind"]} for column in columns()},
        },
        "tasks": tasks,
        "steps": 2000,
        "images": {"count": 60_000, "digest": ""},
        "scaled": {},
        "parts": [],
        "sessions": [],
    }
    (folder / form.MANIFEST).write_text(json.dumps(manifest))
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(folder / form.RUNS)
    rng = np.random.default_rng(0)
    for part in range(parts):
        members = np.arange(part * PART, min((part + 1) * PART, len(rows)))
        count = len(members) * tasks
        accuracy = 0.94 - 0.05 * np.repeat(np.arange(tasks) / tasks, len(members)) + 0.01 * rng.random(count)
        frame = pl.DataFrame(
            {
                "run": np.tile(members, tasks),
                "task": np.repeat(np.arange(tasks), len(members)),
                "accuracy": accuracy,
                "loss": 2.5 * (1 - accuracy),
                "dead": rng.random(count),
                "rank": rng.integers(40, 60, count),
                "weight_magnitude": rng.random(count),
                "scale_magnitude": rng.random(count),
                "gradient_magnitude": rng.random(count),
                "reinitialized": rng.integers(0, 5000, count),
            }
        ).cast(dict(form.TASKS_SCHEMA))
        place = form.part_folder(folder, part)
        place.mkdir(parents=True)
        frame.write_parquet(place / form.TASKS, compression="zstd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=17_000)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--formats", default="html,svg,md,tex,csv")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "results"
        folder.mkdir()
        start = time.perf_counter()
        generate(folder, options.runs, options.tasks)
        size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
        rows = options.runs * options.tasks
        print(f"{rows:,} rows, {size / 1e6:,.0f} MB, written in {time.perf_counter() - start:.0f} s", flush=True)
        program = "from supple.lab.cli import main; main()"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program, "report", str(folder), "--formats", options.formats],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        page = folder / "report" / "report.html"
        written = f", a page of {page.stat().st_size / 1e6:.1f} MB" if page.exists() else ""
        print(f"supple report: {seconds:.1f} s, {peak / 1e9:.2f} GB at most{written}")


if __name__ == "__main__":
    main()
