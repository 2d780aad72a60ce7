"""Class-incremental folders: what is measured, compared and said, against loops over their rows."""

import csv
import io
import shutil

import fake_results
import numpy as np
import polars as pl
import pytest
from fake_incremental import Row, write
from scipy import stats

from supple.lab.report.files import make_report
from supple.lab.report.incremental import measured as incremental
from supple.lab.report.incremental.measured import class_accuracy, classes_seen, epoch_curves, final_words
from supple.lab.report.incremental.problem import classes_after
from supple.lab.report.measured import measure
from supple.lab.report.style import STYLES
from supple.lab.report.tables import points_table
from supple.lab.report.variants import row_styles
from supple.lab.report.views import section_of, table_of
from supple.lab.study import results as form
from supple.lab.study.results import load

ROWS = [
    Row("base", -0.10, dead=0.4),
    Row("reset", 0.0),
    Row("reset_head", -0.08, kind="reset", settings={"parts": "head"}),
    Row("cbp", -0.03, diverged=(2,)),
    Row("swr", 0.02, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.05)]),
]
OPTIONS = {"additions": 6, "seeds": 4, "problem": {"epochs": 3}}


def section_for(folder, rows=ROWS, kind="student", **options):
    measured = measure(load(write(folder, rows, **{**OPTIONS, **options})))
    kinds = dict(measured.results.runs.select("method", "kind").iter_rows())
    return section_of(measured, row_styles(kinds), "one", kind)


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    return section_for(tmp_path_factory.mktemp("results") / "one")


def rows_of(section, **where):
    """The rows of additions as plain dictionaries, in order."""
    frame = section.measured.results.tasks
    return [row for row in frame.sort("run", "task").iter_rows(named=True) if where.items() <= row.items()]


def final(section, method, point=""):
    """The accuracy at the end of the last addition by seed."""
    runs = section.measured.runs.filter(method=method, point=point)
    last = section.measured.tasks - 1
    return {
        seed: rows_of(section, run=run, task=last)[0]["accuracy"]
        for run, seed in runs.select("run", "seed").iter_rows()
    }


def test_a_folder_is_read(section, tmp_path):
    results = section.measured.results
    assert dict(results.tasks.collect_schema()) == dict(form.ADDITIONS_SCHEMA)
    assert dict(results.epochs.collect_schema()) == dict(form.EPOCHS_SCHEMA)
    assert results.disturbances.is_empty()
    assert section.measured.incremental
    other = load(fake_results.write(tmp_path / "other", [fake_results.Row("base", 0.9, 0.8)], tasks=2))
    assert other.epochs.is_empty()
    assert dict(other.epochs.collect_schema()) == dict(form.EPOCHS_SCHEMA)
    assert not measure(other).incremental
    # A part that is not finished is read as it is now, whatever becomes of its files.
    begun = load(write(tmp_path / "begun", ROWS[:1], **OPTIONS, done=2))
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
    measured = measure(load(write(tmp_path, ROWS[:1], additions=additions, seeds=1, problem=problem)))
    assert classes_seen(measured) == list(sizes)
    assert final_words(measured) == words
    assert classes_after(measured.problem, additions) == sizes[-1]
    assert classes_after({}, 3) is None


@pytest.mark.parametrize("most", [400, 7])
def test_curves_over_epochs(section, monkeypatch, most):
    """Of 18 epochs, 3 an addition, with at most about 7 points: bins of 3, that is one an addition."""
    monkeypatch.setattr(incremental, "EPOCH_BINS", most)
    runs = [13, 2, 0]
    curves = epoch_curves(section.measured, runs)
    assert curves.width == (1 if most == 400 else 3)
    frame = section.measured.results.epochs
    for column, run in enumerate(runs):
        values = frame.filter(run=run).sort("epoch")["test_accuracy"].to_list()
        expected = [np.mean(values[k : k + curves.width]) for k in range(0, 18, curves.width)]
        np.testing.assert_allclose(curves.accuracy[:, column], expected, rtol=1e-6)
    ends = [np.mean(range(k, k + curves.width)) + 1 for k in range(0, 18, curves.width)]
    np.testing.assert_allclose(curves.ends, ends)
    assert curves.bounds.tolist() == [0, 3, 6, 9, 12, 15, 18]
    assert curves.classes.tolist() == [5, 10, 15, 20, 25, 30]


def test_bins_of_epochs_begin_anew_at_each_addition(section, monkeypatch):
    monkeypatch.setattr(incremental, "EPOCH_BINS", 9)
    curves = epoch_curves(section.measured, [0])
    assert curves.ends.tolist() == [1.5, 3, 4.5, 6, 7.5, 9, 10.5, 12, 13.5, 15, 16.5, 18]


def test_no_epochs(tmp_path):
    folder = write(tmp_path, ROWS[:1], **OPTIONS)
    for path in folder.rglob(form.EPOCHS):
        path.unlink()
    assert epoch_curves(measure(load(folder)), [0]) is None


def test_classes_in_order_of_arrival(tmp_path):
    problem = {"epochs": 1, "data": "mnist", "first": 2, "step": 3}
    measured = measure(load(write(tmp_path, ROWS[3:4], additions=4, seeds=3, problem=problem)))
    centres, accuracy = class_accuracy(measured, [2, 0])
    assert centres.tolist() == [1.5, 4, 7, 9.5]
    lists = measured.results.tasks.filter(pl.col("task") == 3)
    each = lists.filter(run=0)["class_accuracy"][0].to_list()
    expected = [np.mean(each[start:stop]) for start, stop in ((0, 2), (2, 5), (5, 8), (8, 10))]
    np.testing.assert_allclose(accuracy[:, 1], expected)
    assert lists.filter(run=2)["class_accuracy"][0].to_list() == []
    assert accuracy[:, 0].tolist() == [0, 0, 0, 0]


def test_rows_and_differences(section):
    assert [row.name for row in section.rows] == ["base", "reset", "reset_head", "cbp", "swr"]
    assert section.scratch.name == "reset"
    scratch = final(section, "reset")
    assert set(section.from_scratch) == {"base", "reset_head", "cbp", "swr"}
    for name in ("base", "reset_head", "cbp"):
        own = final(section, name)
        d = [own[seed] - scratch[seed] for seed in range(4)]
        low, high = stats.t.interval(0.95, 3, np.mean(d), stats.sem(d))
        assert section.from_scratch[name] == pytest.approx((np.mean(d), low, high), abs=1e-6)
    assert final(section, "cbp")[2] == 0
    cbp = section.rows[3]
    assert (cbp.diverged, cbp.count) == (1, 4)
    assert section.rows[2].settings["parts"] == "head"


def test_the_network_from_scratch_is_all_of_it(tmp_path):
    head = Row("reset", -0.08, settings={"parts": "head"})
    assert section_for(tmp_path / "head", [ROWS[0], head]).scratch is None
    whole = Row("anew", kind="reset")
    assert section_for(tmp_path / "both", [ROWS[0], head, whole]).scratch.name == "anew"


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
    section = section_for(tmp_path, [ROWS[0], Row("reset", settings=settings, grid=grid)])
    assert (section.scratch is not None) == scratch


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
    rows = [ROWS[0], Row("reset", settings=settings, grid=grid)]
    report = make_report([write(tmp_path / "one", rows, **OPTIONS)])
    style = report.sections[0].rows[1].style
    assert style.label == label
    assert (style == STYLES["reset"]) == (label == "scratch")
    assert report.styles["reset"] == style
    # A page has one style for a name.
    both = [tmp_path / "one", write(tmp_path / "two", [ROWS[0], Row("reset")], **OPTIONS)]
    assert (make_report(both).styles["reset"] == STYLES["reset"]) == (label == "scratch")


def test_the_answer(section, tmp_path):
    means = {name: 100 * np.mean(list(final(section, name).values())) for name in ("base", "reset")}
    assert section.answer.startswith(
        f"With 30 classes, plain training ended at a test accuracy of {means['base']:.1f}%, "
        f"{means['reset'] - means['base']:.1f} points below the network trained from scratch on the same classes (95%"
    )
    assert ". SWR, on average the best method, ended at 67." in section.answer
    assert "points above that network (95% interval +" in section.answer
    assert "CBP is not clearly behind SWR" in section.answer
    assert section.answer.endswith(" 1 of 24 runs diverged (CBP 1).")
    for word in ("task", "plasticity", "fell", "nan"):
        assert word not in section.answer
    without = section_for(tmp_path / "a", [ROWS[0], ROWS[4]]).answer
    assert "scratch" not in without
    assert "points above plain training (95% interval +" in without
    assert without.endswith("None of 12 runs diverged.")
    no_base = section_for(tmp_path / "b", [ROWS[1], ROWS[4]]).answer
    assert no_base.startswith("With 30 classes, the network trained from scratch on the same classes ended at a test")
    assert ". SWR ended at " in no_base
    alone = section_for(tmp_path / "c", ROWS[:1], seeds=1, additions=1).answer
    assert alone.startswith("With 5 classes, plain training ended at a test accuracy of ")
    assert alone.endswith("The run did not diverge. One seed gives no interval, so this may be chance.")


def test_what_is_not_finished_is_said(tmp_path):
    section = section_for(tmp_path / "a", done={0: 6, 1: 2})
    assert section.partial == (
        "This is about the 16 runs that have learned all classes; 8 others are not so far yet. There is nothing of "
        "swr yet."
    )
    section = section_for(tmp_path / "b", done=2)
    assert section.partial == "This is about the 24 runs that have learned their first 10 of 30 classes."
    assert section.answer.startswith("With 10 classes, ")


@pytest.mark.parametrize("kind", ["student", "bca"])
def test_the_table(section, tmp_path, kind):
    if kind == "bca":
        section = section_for(tmp_path / "bca", kind=kind)
    table = table_of(section)
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
    reference = final(section, "reset")
    for name in ("base", "reset_head", "cbp"):
        own = final(section, name)
        assert float(numbers[name]["final"]) == pytest.approx(np.mean(list(own.values())))
        gaps = [own[seed] - reference[seed] for seed in own]
        assert float(numbers[name]["from_scratch"]) == pytest.approx(np.mean(gaps), abs=1e-6)
        runs = section.measured.runs.filter(method=name)["run"].to_list()
        last = [rows_of(section, run=run, task=5)[0] for run in runs]
        dormant = [row["dead"] for row in last if row["dead"] is not None]
        assert float(numbers[name]["dormant"]) == pytest.approx(np.mean(dormant))
        acted = [sum(row["reinitialized"] for row in rows_of(section, run=run)) for run in runs]
        assert float(numbers[name]["reinitialized"]) == pytest.approx(np.mean(acted))
    assert numbers["reset"]["from_scratch"] == ""
    points = list(csv.DictReader(io.StringIO(points_table(section).to_csv())))
    assert [row["best"] for row in points] == ["True", "False"]


def test_the_table_without_a_network_from_scratch(tmp_path):
    table = table_of(section_for(tmp_path / "a", [ROWS[0], ROWS[3]]))
    assert "against scratch" not in table.header
    assert "from scratch" not in table.note
    # Where it comes first there is one comparison with it, not two.
    table = table_of(section_for(tmp_path / "b", [ROWS[1], ROWS[3]]))
    assert table.header.count("against scratch") == 1
    assert all(len(row) == len(table.header) for row in table.rows)
