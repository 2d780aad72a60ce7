"""What is measured in a folder, against loops over all its rows."""

import numpy as np
import polars as pl
import pytest
from fake_results import Row, write
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.report.measured import Windows, common_tasks, measure
from supple.lab.study.results import load

ROWS = [
    Row("base", 0.9, 0.8, diverged=(1,)),
    Row("swr", 0.9, 0.91, disturbance=0.01, grid=[({"factor": 1e-6}, 0.0), ({"factor": 1e-5}, -0.02)]),
]


def rows_of(folder, run):
    return load(folder).tasks.filter(pl.col("run") == run).sort("task")


def test_windows():
    assert (Windows(1000).early, Windows(1000).late) == ((50, 150), (900, 1000))
    assert (Windows(60).early, Windows(60).late) == ((3, 9), (54, 60))
    assert (Windows(1).early, Windows(1).late) == ((0, 1), (0, 1))
    assert Windows.words((900, 1000)) == "tasks 901–1000"
    assert Windows.words((4, 5)) == "task 5"


@given(st.integers(1, 3000))
def test_windows_are_alike_and_lie_in_the_run(tasks):
    windows = Windows(tasks)
    for start, stop in (windows.early, windows.late):
        assert 0 <= start < stop <= tasks
        assert stop - start == windows.size


def test_numbers_of_each_run(tmp_path):
    folder = write(tmp_path, ROWS, tasks=30, seeds=3, part_runs=4)
    measured = measure(load(folder))
    assert measured.complete
    assert measured.tasks == 30
    assert len(measured.runs) == 9
    for row in measured.runs.iter_rows(named=True):
        frame = rows_of(folder, row["run"])
        accuracy = frame["accuracy"].to_list()
        # Three tasks around the third, and the last three.
        assert row["early"] == pytest.approx(np.mean(accuracy[2:5]))
        assert row["late"] == pytest.approx(np.mean(accuracy[27:]))
        assert row["change"] == pytest.approx(row["late"] - row["early"])
        assert row["diverged"] == (row["method"] == "base" and row["seed"] == 1)
        assert row["dead"] == pytest.approx(frame["dead"][29])
        assert row["reinitialized"] == (90 if row["kind"] == "swr" else 0)


def test_curves_are_means_of_bins_of_what_is_finite(tmp_path):
    folder = write(tmp_path, ROWS, tasks=250, seeds=2, part_runs=4)
    measured = measure(load(folder))
    assert measured.bin_width == 3
    runs = [3, 1, 0]
    centres, curves = measured.curves(runs)
    assert len(centres) == 84
    assert (centres[0], centres[-1]) == (2, 250)
    for name, curve in curves.items():
        assert curve.shape == (84, 3)
        for k, run in enumerate(runs):
            column = np.array([np.nan if v is None else v for v in rows_of(folder, run)[name]], dtype=float)
            for at in range(84):
                chunk = column[3 * at : 3 * at + 3]
                chunk = chunk[np.isfinite(chunk)]
                expected = chunk.mean() if len(chunk) else np.nan
                np.testing.assert_allclose(curve[at, k], expected, rtol=1e-6)
    assert np.isnan(curves["weight_magnitude"][-1, 1])


def test_disturbances_leave_out_steps_that_reinitialized_nothing(tmp_path):
    measured = measure(load(write(tmp_path, ROWS, tasks=10, seeds=2)))
    found = measured.disturbances()
    assert found["run"].to_list() == [2, 3, 4, 5]
    assert found["count"].to_list() == [4] * 4
    frame = measured.results.disturbances.filter(pl.col("run") == 3, pl.col("reinitialized") > 0)
    row = found.row(1, named=True)
    assert row["loss"] == pytest.approx((frame["loss_after"] - frame["loss_before"]).abs().mean())
    assert row["mean"] == pytest.approx(np.mean([np.mean(layers) for layers in frame["mean_change"].to_list()]))


def test_an_unfinished_folder(tmp_path):
    folder = write(tmp_path, ROWS, tasks=30, seeds=3, part_runs=3, done={0: 30, 1: 30, 2: 4})
    measured = measure(load(folder))
    assert not measured.complete
    assert (measured.tasks, len(measured.runs), measured.left_out) == (30, 6, 3)
    begun = measure(load(write(tmp_path / "begun", ROWS, tasks=30, seeds=3, part_runs=3, done={0: 12, 1: 11})))
    assert (begun.tasks, len(begun.runs), begun.left_out) == (11, 6, 3)
    with pytest.raises(ValueError, match=r"no task that was learned.*supple run permuted_mnist/small"):
        measure(load(write(tmp_path / "empty", ROWS, done=0)))


@given(st.lists(st.integers(0, 50), max_size=8))
def test_common_tasks(done):
    best = max([tasks * sum(d >= tasks for d in done) for tasks in range(51)])
    found = common_tasks(done)
    assert found * sum(d >= found for d in done) == best
