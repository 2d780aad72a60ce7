"""Class-incremental folders: what is measured, compared and said, against loops over their rows."""

import csv
import io
import shutil

import numpy as np
import polars as pl
import pytest
from compared import measured_of, view_of
from fake_results import Row, ahead, write, write_additions
from scipy import stats

from supple.lab.report import additions
from supple.lab.report.additions import accuracy_by_arrival, classes_after, epochs_of
from supple.lab.report.page import make_report
from supple.lab.report.style import BASELINES
from supple.lab.report.tables import points_table
from supple.lab.study import results as form
from supple.lab.study.results import load

ROWS = [
    ahead("base", -0.10, dead=0.4),
    ahead("reset", 0.0),
    ahead("reset_head", -0.08, kind="reset", settings={"parts": "head"}),
    ahead("cbp", -0.03, diverged=(2,)),
    ahead("swr", 0.02, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.05)]),
]
OPTIONS = {"additions": 6, "seeds": 4, "problem": {"epochs": 3}}


def view_for(folder, rows=ROWS, **options):
    return view_of(write_additions(folder, rows, **{**OPTIONS, **options}))


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return view_for(tmp_path_factory.mktemp("results") / "one")


def rows_of(view, **where):
    """The rows of additions as plain dictionaries, in order."""
    frame = view.measured.results.tasks
    return [row for row in frame.sort("run", "task").iter_rows(named=True) if where.items() <= row.items()]


def final(view, method, point=""):
    """The accuracy at the end of the last addition by seed."""
    runs = view.measured.runs.filter(method=method, point=point)
    last = view.measured.tasks - 1
    return {
        seed: rows_of(view, run=run, task=last)[0]["accuracy"] for run, seed in runs.select("run", "seed").iter_rows()
    }


def test_a_folder_is_read(view, tmp_path):
    results = view.measured.results
    assert dict(results.tasks.collect_schema()) == dict(form.ADDITIONS_SCHEMA)
    assert dict(results.epochs.collect_schema()) == dict(form.EPOCHS_SCHEMA)
    assert results.disturbances.is_empty()
    assert view.kind == "class_incremental"
    other = load(write(tmp_path / "other", [Row("base", 0.9, 0.8)], tasks=2))
    assert other.epochs.is_empty()
    assert dict(other.epochs.collect_schema()) == dict(form.EPOCHS_SCHEMA)
    assert view_of(tmp_path / "other").kind == "permuted"
    # A part that is not finished is read as it is now, whatever becomes of its files.
    begun = load(write_additions(tmp_path / "begun", ROWS[:1], **OPTIONS, done=2))
    shutil.rmtree(tmp_path / "begun" / "parts")
    assert begun.epochs["task"].unique().sort().to_list() == [0, 1]


@pytest.mark.parametrize(
    ("additions", "problem", "sizes", "words"),
    [
        (20, {"epochs": 1}, range(5, 101, 5), "95 and 100 classes"),
        (4, {"epochs": 1, "data": "mnist", "first": 2, "step": 3}, (2, 5, 8, 10), "10 classes"),
        (30, {"epochs": 1, "first": 1, "step": 1}, range(1, 31), "28 to 30 classes"),
    ],
)
def test_classes(tmp_path, additions, problem, sizes, words):
    view = view_for(tmp_path, ROWS[:1], additions=additions, seeds=1, problem=problem)
    assert view.classes == list(sizes)
    assert view.final_classes == words
    assert classes_after(view.measured.study.problem, additions) == sizes[-1]
    assert view.measured.results.tasks["classes"].to_list() == list(sizes)


@pytest.mark.parametrize("most", [400, 7])
def test_curves_over_epochs(view, monkeypatch, most):
    """Of 18 epochs, 3 an addition, with at most about 7 points: bins of 3, that is one an addition."""
    monkeypatch.setattr(additions, "EPOCH_BINS", most)
    runs = [13, 2, 0]
    epochs = epochs_of(view.measured, runs)
    assert epochs.width == (1 if most == 400 else 3)
    for run, line, seed in view.measured.runs.filter(pl.col("run").is_in(runs)).select("run", "method", "seed").rows():
        values = view.measured.results.epochs.filter(run=run)["test_accuracy"].to_list()
        curve = epochs.curves.filter(line=line, seed=seed)
        expected = [np.mean(values[k : k + epochs.width]) for k in range(0, 18, epochs.width)]
        np.testing.assert_allclose(curve["accuracy"], expected, rtol=1e-6)
        np.testing.assert_allclose(
            curve["x"], [np.mean(range(k, k + epochs.width)) + 1 for k in range(0, 18, epochs.width)]
        )
    assert epochs.bounds == [0, 3, 6, 9, 12, 15, 18]
    assert epochs.classes == [5, 10, 15, 20, 25, 30]


def test_bins_of_epochs_begin_anew_at_each_addition(view, monkeypatch):
    monkeypatch.setattr(additions, "EPOCH_BINS", 9)
    ends = epochs_of(view.measured, [0]).curves["x"].to_list()
    assert ends == [1.5, 3, 4.5, 6, 7.5, 9, 10.5, 12, 13.5, 15, 16.5, 18]


def test_no_epochs(tmp_path):
    folder = write_additions(tmp_path, ROWS[:1], **OPTIONS)
    for path in folder.rglob(form.EPOCHS):
        path.unlink()
    assert epochs_of(measured_of(folder), [0]) is None
    assert "regular-accuracy" not in {figure.name for figure in view_of(folder).figures()}


def test_classes_in_order_of_arrival(tmp_path):
    problem = {"epochs": 1, "data": "mnist", "first": 2, "step": 3}
    view = view_for(tmp_path, ROWS[3:4], additions=4, seeds=3, problem=problem)
    arrival = accuracy_by_arrival(view.measured, [2, 0], view.classes)
    lists = view.measured.results.tasks.filter(pl.col("task") == 3)
    each = lists.filter(run=0)["class_accuracy"][0].to_list()
    expected = [np.mean(each[start:stop]) for start, stop in ((0, 2), (2, 5), (5, 8), (8, 10))]
    assert arrival.filter(seed=0)["x"].to_list() == [1.5, 4, 7, 9.5]
    np.testing.assert_allclose(arrival.filter(seed=0)["accuracy"], expected)
    assert lists.filter(run=2)["class_accuracy"][0].to_list() == []
    assert arrival.filter(seed=2)["accuracy"].to_list() == [0, 0, 0, 0]


def test_rows_and_differences(view):
    assert [row.name for row in view.lines] == ["base", "reset", "reset_head", "cbp", "swr"]
    assert view.scratch.name == "reset"
    scratch = final(view, "reset")
    assert set(view.behind) == {"base", "reset_head", "cbp", "swr"}
    for name in ("base", "reset_head", "cbp"):
        own = final(view, name)
        d = [own[seed] - scratch[seed] for seed in range(4)]
        low, high = stats.t.interval(0.95, 3, np.mean(d), stats.sem(d))
        assert view.behind[name] == pytest.approx((np.mean(d), low, high), abs=1e-6)
    assert final(view, "cbp")[2] == 0
    cbp = view.lines[3]
    assert (cbp.diverged, len(cbp.runs)) == (1, 4)
    assert view.lines[2].settings["parts"] == "head"


def test_the_network_from_scratch_is_all_of_it(tmp_path):
    head = ahead("reset", -0.08, settings={"parts": "head"})
    assert view_for(tmp_path / "head", [ROWS[0], head]).scratch is None
    whole = ahead("anew", kind="reset")
    assert view_for(tmp_path / "both", [ROWS[0], head, whole]).scratch.name == "anew"


@pytest.mark.parametrize(
    ("settings", "grid", "scratch"),
    [
        ({"parts": "network+momentum"}, [], True),
        ({}, [({"parts": "network"}, 0.0), ({"parts": "momentum+network"}, -0.05)], True),
        ({}, [({"parts": "network"}, 0.0), ({"parts": "head"}, -0.05)], False),
        ({}, [({"parts": "network"}, -0.05), ({"parts": "head"}, 0.0)], False),
    ],
)
def test_every_point_of_the_network_from_scratch_is_all_of_it(tmp_path, settings, grid, scratch):
    view = view_for(tmp_path, [ROWS[0], ahead("reset", settings=settings, grid=grid)])
    assert (view.scratch is not None) == scratch


@pytest.mark.parametrize(
    ("settings", "grid", "label"),
    [
        ({}, [], "scratch"),
        ({"parts": "network+momentum"}, [], "scratch"),
        ({"parts": "head"}, [], "reset head"),
        ({"parts": "layer_norms"}, [], "reset layer norms"),
        ({}, [({"parts": "network"}, 0.0), ({"parts": "head"}, -0.05)], "reset"),
    ],
)
def test_only_the_whole_network_is_called_scratch(tmp_path, settings, grid, label):
    rows = [ROWS[0], ahead("reset", settings=settings, grid=grid)]
    report = make_report([load(write_additions(tmp_path / "one", rows, **OPTIONS))])
    style = report.views[0].lines[1].style
    assert style.label == label
    assert (style == BASELINES["reset"]) == (label == "scratch")
    assert report.styles["reset"] == style
    # A page has one style for a name.
    both = [tmp_path / "one", write_additions(tmp_path / "two", [ROWS[0], ahead("reset")], **OPTIONS)]
    assert (make_report([load(one) for one in both]).styles["reset"] == BASELINES["reset"]) == (label == "scratch")


def test_the_answer(view, tmp_path):
    means = {name: 100 * np.mean(list(final(view, name).values())) for name in ("base", "reset")}
    assert view.answer.startswith(
        f"With 30 classes, plain training ended at a test accuracy of {means['base']:.1f}%, "
        f"{means['reset'] - means['base']:.1f} points below the network trained from scratch on the same classes (95%"
    )
    assert ". SWR, on average the best method, ended at 67." in view.answer
    assert "points above that network (95% interval +" in view.answer
    assert "CBP is not clearly behind SWR" in view.answer
    assert view.answer.endswith(" 1 of 24 runs diverged (CBP 1).")
    for word in ("task", "plasticity", "fell", "nan"):
        assert word not in view.answer
    without = view_for(tmp_path / "a", [ROWS[0], ROWS[4]]).answer
    assert "scratch" not in without
    assert "points above plain training (95% interval +" in without
    assert without.endswith("None of 12 runs diverged.")
    no_base = view_for(tmp_path / "b", [ROWS[1], ROWS[4]]).answer
    assert no_base.startswith("With 30 classes, the network trained from scratch on the same classes ended at a test")
    assert ". SWR ended at " in no_base
    alone = view_for(tmp_path / "c", ROWS[:1], seeds=1, additions=1).answer
    assert alone.startswith("With 5 classes, plain training ended at a test accuracy of ")
    assert alone.endswith("The run did not diverge. One seed gives no interval, so this may be chance.")


def test_what_is_not_finished_is_said(tmp_path):
    view = view_for(tmp_path / "a", done={0: 6, 1: 2})
    assert view.partial == (
        "This is about the 16 runs that have learned all classes; 8 others are not so far yet. There is nothing of "
        "swr yet."
    )
    view = view_for(tmp_path / "b", done=2)
    assert view.partial == "This is about the 24 runs that have learned their first 10 of 30 classes."
    assert view.answer.startswith("With 10 classes, ")


def test_the_table(view):
    table = view.table
    assert table.header == [
        "method", "final", "against base", "p (Holm)", "against scratch", "diverged", "dormant, %", "rank",
        "reinitialized", "seeds",
    ]  # fmt: skip
    assert all(len(row) == len(table.header) for row in table.rows)
    assert [row[0] for row in table.rows] == ["base", "scratch", "reset head", "CBP", "SWR"]
    base, scratch, cbp = table.rows[0], table.rows[1], table.rows[3]
    assert base[2:4] == ["–", "–"]
    assert scratch[4] == "–"
    assert cbp[5] == "1 of 4"
    assert "with 30 classes" in table.note
    assert "scratch is the network trained from scratch on the same classes" in table.note
    assert "task" not in table.note
    numbers = {row["method"]: row for row in csv.DictReader(io.StringIO(table.to_csv()))}
    reference = final(view, "reset")
    for name in ("base", "reset_head", "cbp"):
        own = final(view, name)
        assert float(numbers[name]["final"]) == pytest.approx(np.mean(list(own.values())))
        gaps = [own[seed] - reference[seed] for seed in own]
        assert float(numbers[name]["from_scratch"]) == pytest.approx(np.mean(gaps), abs=1e-6)
        runs = view.measured.runs.filter(method=name)["run"].to_list()
        last = [rows_of(view, run=run, task=5)[0] for run in runs]
        dormant = [row["dead"] for row in last if row["dead"] is not None]
        assert float(numbers[name]["dormant"]) == pytest.approx(np.mean(dormant))
        acted = [sum(row["reinitialized"] for row in rows_of(view, run=run)) for run in runs]
        assert float(numbers[name]["reinitialized"]) == pytest.approx(np.mean(acted))
    assert numbers["reset"]["from_scratch"] == ""
    points = list(csv.DictReader(io.StringIO(points_table(view.comparison).to_csv())))
    assert [row["best"] for row in points] == ["True", "False"]


def test_the_table_without_a_network_from_scratch(tmp_path):
    table = view_for(tmp_path / "a", [ROWS[0], ROWS[3]]).table
    assert "against scratch" not in table.header
    assert "from scratch" not in table.note
    # Where it comes first there is one comparison with it, not two.
    table = view_for(tmp_path / "b", [ROWS[1], ROWS[3]]).table
    assert table.header.count("against scratch") == 1
    assert all(len(row) == len(table.header) for row in table.rows)
