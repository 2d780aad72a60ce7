"""What is measured in a folder, against loops over all its rows."""

import numpy as np
import polars as pl
import pytest
from fake_results import Row, write
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.report.measures import bin_width, common_tasks, early_tasks, final_tasks, measure
from supple.lab.report.texts import spanned
from supple.lab.study.results import load

ROWS = [
    Row("base", 0.9, 0.8, diverged=(1,)),
    Row("swr", 0.9, 0.91, disturbance=0.01, grid=[({"factor": 1e-6}, 0.0), ({"factor": 1e-5}, -0.02)]),
]


def rows_of(folder, run):
    return load(folder).tasks.filter(pl.col("run") == run).sort("task")


def test_final_and_early_tasks():
    assert (early_tasks(1000), final_tasks(1000)) == (range(50, 150), range(900, 1000))
    assert (early_tasks(75), final_tasks(75)) == (range(4, 12), range(67, 75))
    assert (early_tasks(1), final_tasks(1)) == (range(1), range(1))
    assert spanned(range(900, 1000)) == "tasks 901–1000"
    assert spanned(range(4, 5)) == "task 5"


@given(st.integers(1, 3000))
def test_final_and_early_tasks_are_as_many_and_lie_in_the_run(tasks):
    assert len(early_tasks(tasks)) == len(final_tasks(tasks)) >= 1
    assert min(early_tasks(tasks)) >= 0
    assert final_tasks(tasks).stop == tasks


@given(st.integers(1, 2000), st.integers(1, 50))
def test_bin_width_is_the_smallest_that_fits(tasks, bins):
    width = bin_width(tasks, bins)
    assert -(-tasks // width) <= bins
    assert width == 1 or -(-tasks // (width - 1)) > bins


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
    assert measured.width == 3
    curves = measured.curves([3, 1, 0], ["accuracy", "weight_magnitude", "scale_magnitude", "rank"])
    assert curves.columns == ["line", "seed", "accuracy", "weight_magnitude", "scale_magnitude", "rank", "x"]
    for run, line, seed in ((3, "swr", 1), (1, "base", 1), (0, "base", 0)):
        curve, frame = curves.filter(line=line, seed=seed), rows_of(folder, run)
        assert curve["x"].to_list() == [*range(2, 250, 3), 250]
        for name in curves.columns[2:-1]:
            column = frame[name].cast(float).fill_null(np.nan).to_numpy()
            chunks = [column[k : k + 3] for k in range(0, 250, 3)]
            expected = [np.mean(c[np.isfinite(c)]) if np.isfinite(c).any() else np.nan for c in chunks]
            np.testing.assert_allclose(curve[name].fill_null(np.nan).to_numpy(), expected, rtol=1e-6)
    assert curves.filter(line="base", seed=1)["weight_magnitude"][-1] is None


def test_disturbances_leave_out_steps_that_reinitialized_nothing(tmp_path):
    measured = measure(load(write(tmp_path, ROWS, tasks=10, seeds=2)))
    found = measured.disturbances
    assert found["run"].to_list() == [2, 3, 4, 5]
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
