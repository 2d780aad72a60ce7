"""Figures of class-incremental folders: which there are, what they draw, and that nothing is cut off."""

import numpy as np
import polars as pl
import pytest
from compared import view_of
from fake_results import ahead, write_additions
from figure_texts import texts_of, texts_outside

from supple.lab.report.comparison import groups
from supple.lab.report.figures import Canvas
from supple.lab.report.style import DARK, LIGHT

ROWS = [
    ahead("base", -0.10, dead=0.4),
    ahead("reset", 0.0),
    ahead("reset_layer_norms", -0.08, kind="reset", settings={"parts": "layer_norms"}),
    ahead("redo", -0.03, diverged=(1,)),
    ahead("swr", 0.02, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.05)]),
]
KEYS = ["regular-accuracy", "regular-additions", "regular-classes", "regular-dormant", "regular-magnitudes"]


def view_for(folder, rows=ROWS, **options):
    return view_of(write_additions(folder, rows, **{"additions": 6, "seeds": 3, "problem": {"epochs": 3}, **options}))


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return view_for(tmp_path_factory.mktemp("results") / "one")


def drawn(view, canvas=None):
    return {figure.name: figure.draw(canvas or Canvas()) for figure in view.figures()}


@pytest.fixture(scope="module")
def figures(view):
    return drawn(view)


def line_of(axes, view, name):
    """The line of a method."""
    style = next(line.style for line in view.lines if line.name == name)
    (line,) = (line for line in axes.lines if line.get_color() == style.colour)
    return line


@pytest.mark.one_in(2)
@pytest.mark.parametrize("canvas", [Canvas(), Canvas(DARK, narrow=True)])
def test_nothing_is_cut_off(view, canvas):
    figures = drawn(view, canvas)
    assert list(figures) == [*KEYS, "regular-sweep-swr"]
    for figure in figures.values():
        assert texts_outside(figure) == []
    shown = {text.get_text() for key in KEYS for text in texts_of(figures[key])}
    assert {row.style.label for row in view.lines} <= shown
    assert not any("task" in text for text in shown)
    assert any("a diverged run counts as 0" in text for text in shown)


def test_what_is_drawn(view, figures):
    tasks = view.measured.results.tasks
    epochs = view.measured.results.epochs
    for row in view.lines:
        runs = [tasks.filter(run=run).sort("task") for run in row.best["run"]]
        accuracy = np.array([run["accuracy"].to_list() for run in runs])
        test, against = figures["regular-additions"].axes
        line = line_of(test, view, row.name)
        assert line.get_xdata().tolist() == [5, 10, 15, 20, 25, 30]
        np.testing.assert_allclose(line.get_ydata(), accuracy.mean(axis=0), rtol=1e-6)
        reference = np.array(
            [tasks.filter(run=run).sort("task")["accuracy"].to_list() for run in view.scratch.best["run"]]
        )
        line = line_of(against, view, row.name)
        np.testing.assert_allclose(line.get_ydata(), (accuracy - reference).mean(axis=0), atol=1e-7)
        by_epoch = np.array(
            [epochs.filter(run=run).sort("epoch")["test_accuracy"].to_list() for run in row.best["run"]]
        )
        line = line_of(figures["regular-accuracy"].axes[0], view, row.name)
        assert line.get_xdata().tolist() == list(range(1, 19))
        np.testing.assert_allclose(line.get_ydata(), by_epoch.mean(axis=0), rtol=1e-6)
        last = [list(run["class_accuracy"][5]) or [0.0] * 30 for run in runs]
        line = line_of(figures["regular-classes"].axes[0], view, row.name)
        np.testing.assert_allclose(line.get_ydata(), np.mean(last, axis=0).reshape(6, 5).mean(axis=1), rtol=1e-6)
        for axes, column in zip(
            figures["regular-dormant"].axes, ("dead_before", "dead", "rank_before", "rank"), strict=True
        ):
            values = np.array([run[column].cast(float).fill_null(np.nan).to_list() for run in runs], dtype=float)
            there = np.isfinite(values).any(axis=0)
            line = line_of(axes, view, row.name)
            np.testing.assert_allclose(line.get_ydata(), np.nanmean(values[:, there], axis=0), rtol=1e-6)
        for axes, column in zip(
            figures["regular-magnitudes"].axes, ("weight_magnitude", "scale_magnitude"), strict=False
        ):
            values = np.array([run[column].cast(float).fill_null(np.nan).to_list() for run in runs], dtype=float)
            np.testing.assert_allclose(line_of(axes, view, row.name).get_ydata(), np.nanmean(values, axis=0), rtol=1e-6)


def test_axes(figures):
    axes = figures["regular-accuracy"].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "15", "20", "25", "30"]
    assert axes.get_xticks().tolist() == [1.5, 4.5, 7.5, 10.5, 13.5, 16.5]
    assert axes.get_xlabel() == "classes seen, 3 epochs with each number"
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_color() == LIGHT.grid]
    assert marks == [3, 6, 9, 12, 15]
    # No accuracy lies beyond 0 and 100%, however wide the band of a method with a run that diverged.
    for one in (axes, figures["regular-additions"].axes[0], figures["regular-classes"].axes[0]):
        low, high = one.get_ylim()
        assert low > -0.05
        assert high < 1.05
    before, new = figures["regular-dormant"].axes[:2]
    assert before.get_ylim() == new.get_ylim()
    assert before.get_ylim()[0] == 0


def test_marks_of_additions_do_not_count_as_lines_that_fill_the_axes(tmp_path):
    """Two seeds that are far apart make a band of nearly everything."""
    view = view_for(tmp_path, [ahead("base")], seeds=2, additions=2, noise=0.2, problem={"epochs": 100})
    axes = drawn(view)["regular-accuracy"].axes[0]
    values = line_of(axes, view, "base").get_ydata()
    room = values.max() - values.min()
    assert axes.get_ylim()[0] >= max(0, values.min() - room) - 0.02 * room - 1e-9


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("epochs", "words"), [(1, "1 epoch with"), (3, "3 epochs with")])
def test_epochs_of_each_number_of_classes(tmp_path, epochs, words):
    view = view_for(tmp_path, ROWS[:1], seeds=1, additions=2, problem={"epochs": epochs})
    assert drawn(view)["regular-accuracy"].axes[0].get_xlabel() == f"classes seen, {words} each number"


def test_figures_say_what_becomes_of_runs_that_diverged(figures):
    shown = {key: " ".join(text.get_text() for text in texts_of(figure)) for key, figure in figures.items()}
    assert "once diverged a run counts as 0" in shown["regular-accuracy"]
    assert "a diverged run counts as 0" in shown["regular-additions"]
    for key in ("regular-dormant", "regular-magnitudes"):
        assert "without diverged runs" in shown[key]


@pytest.mark.slow
def test_differences_are_those_of_a_seed(tmp_path):
    """Base has the seeds 0, 1 and 2, scratch 2 and 0 in this order, and SWR one that no other has."""
    rows = [ahead("base", -0.1, seeds=(0, 1, 2)), ahead("reset", seeds=(2, 0)), ahead("swr", 0.02, seeds=(3,))]
    view = view_for(tmp_path, rows)
    rows = [
        ("base", 0, 10.0),
        ("base", 1, 11.0),
        ("base", 2, 12.0),
        ("reset", 2, 2.0),
        ("reset", 0, 0.5),
        ("swr", 3, 7.0),
    ]
    frame = pl.DataFrame(rows, ["line", "seed", "accuracy"], orient="row").with_columns(x=pl.lit(5.0))
    found = view.behind_scratch(frame, view.lines).select("line", "seed", "accuracy").rows()
    assert sorted(found) == [("base", 0, 9.5), ("base", 2, 10.0), ("reset", 0, 0.0), ("reset", 2, 0.0)]
    last = {(run["method"], run["seed"]): run["late"] for run in view.measured.runs.iter_rows(named=True)}
    gaps = [last["base", seed] - last["reset", seed] for seed in (0, 2)]
    assert set(view.behind) == {"base"}
    assert float(view.behind["base"].mean) == pytest.approx(np.mean(gaps))
    line = line_of(drawn(view)["regular-additions"].axes[1], view, "base")
    assert line.get_ydata()[-1] == pytest.approx(np.mean(gaps))
    table = view.table
    assert [row[4] for row in table.rows][1:] == ["–", "–"]
    assert table.rows[0][4].startswith(f"{100 * np.mean(gaps):+.1f} ± ".replace("-", "−"))
    assert table.rows[2][2] == "–"
    assert "SWR" not in {text.get_text() for text in drawn(view)["regular-additions"].axes[1].texts}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("rows", [["base", "reset"], ["base", "reset", "swr"], ["reset", "swr"]])
def test_no_seed_in_common(tmp_path, rows):
    view = view_for(tmp_path, [ahead(name, seeds=(k, k + 4)) for k, name in enumerate(rows)])
    assert view.behind == {}
    assert len(drawn(view)["regular-additions"].axes) == 1
    for said in (view.answer, *(cell for row in view.table.rows for cell in row)):
        assert "nan" not in said
    if "swr" in rows:
        first = "plain training" if rows[0] == "base" else "scratch"
        assert f"without a seed in common with {first}. None of" in view.answer


@pytest.mark.slow
def test_parts_of_a_run_each_that_are_not_all_done(tmp_path):
    """The seeds 0 of base, 1 of scratch and 0 of SWR: one pair, and none with scratch."""
    rows = [ahead("base"), ahead("reset"), ahead("swr", 0.02)]
    view = view_for(tmp_path, rows, seeds=2, part_runs=1, done={0: 6, 3: 6, 4: 6})
    assert list(drawn(view)) == KEYS
    assert "points above plain training. None of 3 runs diverged. One seed gives no interval" in view.answer
    assert "nan" not in view.answer
    # The seeds 0 and 1 of base do not make one pair of its differences an interval.
    view = view_for(tmp_path / "two", rows, seeds=2, part_runs=1, done={0: 6, 1: 6, 3: 6, 4: 6})
    assert view.answer.endswith("One seed gives no interval, so this may be chance.")


def test_an_overview_without_a_seed_in_common(tmp_path):
    rows = [ahead(f"swr_{k}", kind="swr", settings={"factor": 1e-4 * (k + 1)}, seeds=(1, 2)) for k in range(8)]
    view = view_for(tmp_path, [ahead("base", seeds=(1, 2)), ahead("reset", seeds=(0,)), *rows], additions=2)
    overview = next(view.figures()).draw(Canvas())
    assert len(view.behind) == 0
    assert {axes.get_title(loc="left") for axes in overview.axes} == {"final accuracy", "against base, points"}


@pytest.mark.slow
def test_many_methods(tmp_path):
    parts = ("head", "layer_norms", "attention", "mlp", "momentum")
    rows = [*ROWS[:2], *ROWS[3:], ahead("cbp", -0.03)]
    rows += [ahead(f"reset_{part}", -0.05, kind="reset", settings={"parts": part}) for part in parts]
    view = view_for(tmp_path / "many", rows, seeds=2, additions=3, network={"reparameterized": True})
    assert [key for key, _, _ in groups(view.lines)] == ["", "-reset"]
    figures = drawn(view, Canvas(narrow=True))
    assert "regular-overview" in figures
    assert "regular-reset-additions" in figures
    for figure in figures.values():
        assert texts_outside(figure) == []
    styles = [row.style for row in view.lines]
    assert len({style.colour for style in styles}) == len(styles)
    without = view_for(tmp_path / "without", [row for row in rows if row.name != "reset"], seeds=2, additions=3)
    overview = next(without.figures())
    assert {axes.get_title(loc="left") for axes in overview.draw(Canvas()).axes} == {
        "final accuracy",
        "against base, points",
    }


@pytest.mark.one_in(2)
@pytest.mark.parametrize("additions", [1, 2])
def test_few_additions(tmp_path, additions):
    view = view_for(tmp_path, [ROWS[0]], seeds=1, additions=additions)
    for canvas in (Canvas(), Canvas(narrow=True)):
        figures = drawn(view, canvas)
        assert list(figures) == KEYS
        assert all(texts_outside(figure) == [] for figure in figures.values())


def test_all_runs_diverged(tmp_path):
    view = view_for(tmp_path, [ahead("base"), ahead("swr", diverged=(0, 1, 2))])
    figures = drawn(view)
    assert list(figures) == KEYS
    assert line_of(figures["regular-additions"].axes[0], view, "swr").get_ydata()[-1] == 0
