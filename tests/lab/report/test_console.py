"""What a terminal shows while a comparison runs, and at its end."""

import io

import numpy as np
from rich.console import Console

from supple.lab.report.comparison import Comparison, summarize
from supple.lab.report.console import Curves, Plain, sparkline, summary_table

METHODS = ("base", "swr")


def comparison(tasks, seeds=2):
    """Base falls from 80% by a point a task, SWR stays at 90%."""
    accuracy = np.empty((tasks, seeds, 2))
    accuracy[:, :, 0] = 0.8 - 0.01 * np.arange(tasks)[:, None]
    accuracy[:, :, 1] = 0.9
    zeros = np.zeros_like(accuracy)
    return Comparison(METHODS, tuple(range(seeds)), accuracy, zeros, zeros, zeros.astype(np.int64))


def run(watcher, tasks, steps):
    with watcher:
        for done in range(1, tasks + 1):
            for _ in range(steps):
                watcher.step()
            watcher.task(comparison(done))


def test_sparkline():
    assert sparkline(np.array([0.0, 0.5, 1.0]), 0, 1) == "▁▅█"
    assert sparkline(np.linspace(0, 1, 8), 0, 1) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([-5.0, 5.0]), 0, 1) == "▁█"
    assert len(set(sparkline(np.ones(3), 1, 1))) == 1


def test_plain_lines_now_and_then():
    out = io.StringIO()
    run(Plain(Console(file=out, width=60), 25, 3, 4), 25, 3)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{k}/25" for k in (*range(2, 25, 2), 25)]
    # Tasks 1 and 2 have 80% and 79%.
    assert "base 79.5%  SWR 90.0%" in lines[0]
    assert all("network steps/s" in line and "s left" in line for line in lines)


def test_curves_grow():
    out = io.StringIO()
    run(Curves(Console(file=out, width=100, force_terminal=True, color_system=None), METHODS, 10, 40, 4), 10, 40)
    last = out.getvalue()[out.getvalue().rindex("first tasks") :]
    # The first two tasks have 80% and 79%, the last two 72% and 71%.
    assert "79.5%" in last
    assert "71.5%" in last
    assert "task 10/10" in last
    assert "network steps/s" in last
    base, swr = (line for line in last.splitlines() if line.strip().startswith(("base", "SWR")))
    assert swr.count("█") == 10
    heights = [mark for mark in base if mark in "▁▂▃▄▅▆▇█"]
    assert len(heights) == 10
    assert heights == sorted(heights, reverse=True)


def test_summary_table_fits_a_terminal():
    out = io.StringIO()
    measured = comparison(100)
    Console(file=out, width=80).print(summary_table(measured, summarize(measured)))
    text = out.getvalue()
    assert "…" not in text
    for said in ("tasks 1–20", "tasks 81–100", "70.5 ± 0.0", "−80.0 ± 0.0", "90.0 ± 0.0", "2 seeds"):
        assert said in text
