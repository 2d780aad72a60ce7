"""Figures of class-incremental folders: which there are, what they draw, and that nothing is cut off."""

import numpy as np
import pytest
from fake_incremental import Row, write
from figure_texts import texts_of, texts_outside
from matplotlib.figure import Figure

from supple.lab.report.drawing import NARROW, WIDE, limit_bands
from supple.lab.report.drawn import row_groups
from supple.lab.report.incremental.axes import epoch_axis
from supple.lab.report.incremental.drawn import from_scratch
from supple.lab.report.incremental.measured import EpochCurves
from supple.lab.report.measured import measure
from supple.lab.report.style import DARK, LIGHT
from supple.lab.report.variants import row_styles
from supple.lab.report.views import figures_of, section_of, table_of
from supple.lab.study.results import load

ROWS = [
    Row("base", -0.10, dead=0.4),
    Row("reset", 0.0),
    Row("reset_layer_norms", -0.08, kind="reset", settings={"parts": "layer_norms"}),
    Row("redo", -0.03, diverged=(1,)),
    Row("swr", 0.02, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.05)]),
]
KEYS = ["one-accuracy", "one-additions", "one-classes", "one-dormant", "one-magnitudes"]


def section_for(folder, rows=ROWS, **options):
    options = {"additions": 6, "seeds": 3, "problem": {"epochs": 3}, **options}
    measured = measure(load(write(folder, rows, **options)))
    return section_of(measured, row_styles(dict(measured.results.runs.select("method", "kind").iter_rows())), "one")


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    return section_for(tmp_path_factory.mktemp("results") / "one")


def drawn(section, size=WIDE, theme=LIGHT):
    return {figure.key: figure.draw(size, theme) for figure in figures_of(section)}


def line_of(axes, section, name, theme=LIGHT):
    """The line of a method: the one of its colour with most points; labels have thin ones to their words."""
    style = next(row.style for row in section.rows if row.name == name)
    lines = [line for line in axes.lines if line.get_color() == theme.of(style)]
    return max(lines, key=lambda line: line.get_linewidth() if len(line.get_xdata()) != 3 else 0)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_is_cut_off(section, size, theme):
    figures = drawn(section, size, theme)
    assert list(figures) == [*KEYS, "one-sweep-swr"]
    for figure in figures.values():
        assert texts_outside(figure) == []
    shown = {text.get_text() for key in KEYS for text in texts_of(figures[key])}
    assert {row.style.label for row in section.rows} <= shown
    assert not any("task" in text for text in shown)
    assert any("a diverged run counts as 0" in text for text in shown)


def test_what_is_drawn(section):
    figures = drawn(section)
    tasks = section.measured.results.tasks
    epochs = section.measured.results.epochs
    for row in section.rows:
        runs = [tasks.filter(run=run).sort("task") for run in row.runs]
        accuracy = np.array([run["accuracy"].to_list() for run in runs])
        test, against = figures["one-additions"].axes
        line = line_of(test, section, row.name)
        assert line.get_xdata().tolist() == [5, 10, 15, 20, 25, 30]
        np.testing.assert_allclose(line.get_ydata(), accuracy.mean(axis=0), rtol=1e-6)
        reference = np.array([tasks.filter(run=run).sort("task")["accuracy"].to_list() for run in section.scratch.runs])
        line = line_of(against, section, row.name)
        np.testing.assert_allclose(line.get_ydata(), (accuracy - reference).mean(axis=0), atol=1e-7)
        by_epoch = np.array([epochs.filter(run=run).sort("epoch")["test_accuracy"].to_list() for run in row.runs])
        line = line_of(figures["one-accuracy"].axes[0], section, row.name)
        assert line.get_xdata().tolist() == list(range(1, 19))
        np.testing.assert_allclose(line.get_ydata(), by_epoch.mean(axis=0), rtol=1e-6)
        last = [list(run["class_accuracy"][5]) or [0.0] * 30 for run in runs]
        line = line_of(figures["one-classes"].axes[0], section, row.name)
        np.testing.assert_allclose(line.get_ydata(), np.mean(last, axis=0).reshape(6, 5).mean(axis=1), rtol=1e-6)
        for axes, column in zip(
            figures["one-dormant"].axes, ("dead_before", "dead", "rank_before", "rank"), strict=True
        ):
            values = np.array([run[column].cast(float).fill_null(np.nan).to_list() for run in runs], dtype=float)
            there = np.isfinite(values).any(axis=0)
            line = line_of(axes, section, row.name)
            np.testing.assert_allclose(line.get_ydata(), np.nanmean(values[:, there], axis=0), rtol=1e-6)
        for axes, column in zip(figures["one-magnitudes"].axes, ("weight_magnitude", "scale_magnitude"), strict=False):
            values = np.array([run[column].cast(float).fill_null(np.nan).to_list() for run in runs], dtype=float)
            np.testing.assert_allclose(
                line_of(axes, section, row.name).get_ydata(), np.nanmean(values, axis=0), rtol=1e-6
            )


def test_axes(section):
    figures = drawn(section)
    axes = figures["one-accuracy"].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "10", "15", "20", "25", "30"]
    assert axes.get_xticks().tolist() == [1.5, 4.5, 7.5, 10.5, 13.5, 16.5]
    assert axes.get_xlabel() == "classes seen, 3 epochs with each number"
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_color() == LIGHT.grid]
    assert marks == [3, 6, 9, 12, 15]
    # No accuracy lies beyond 0 and 100%, however wide the band of a method with a run that diverged.
    for one in (axes, figures["one-additions"].axes[0], figures["one-classes"].axes[0]):
        low, high = one.get_ylim()
        assert low > -0.05
        assert high < 1.05
    before, new = figures["one-dormant"].axes[:2]
    assert before.get_ylim() == new.get_ylim()
    assert before.get_ylim()[0] == 0


def test_marks_of_additions_do_not_count_as_lines_that_fill_the_axes(tmp_path):
    axes = Figure().add_axes((0.1, 0.1, 0.8, 0.8))
    limit_bands(axes)
    epochs = np.arange(1.0, 7.0)
    curves = EpochCurves(epochs, np.zeros((6, 1)), np.array([0.0, 3.0, 6.0]), np.array([5, 10]), 1)
    axes.fill_between(epochs, 0.0, 1.0)
    epoch_axis(axes, curves, LIGHT)
    limit_bands(axes)
    assert axes.get_ylim()[0] < 0.01
    axes.plot(epochs, np.linspace(0.6, 0.7, 6))
    limit_bands(axes, (0, 1))
    assert axes.get_ylim() == pytest.approx((0.5, 0.8))
    # Two seeds that are far apart make a band of nearly everything.
    section = section_for(tmp_path, [Row("base")], seeds=2, additions=2, noise=0.2, problem={"epochs": 100})
    axes = drawn(section)["one-accuracy"].axes[0]
    values = line_of(axes, section, "base").get_ydata()
    room = values.max() - values.min()
    assert axes.get_ylim()[0] >= max(0, values.min() - room) - 0.02 * room - 1e-9


@pytest.mark.parametrize(("epochs", "words"), [(1, "1 epoch with"), (3, "3 epochs with")])
def test_epochs_of_each_number_of_classes(tmp_path, epochs, words):
    section = section_for(tmp_path, ROWS[:1], seeds=1, additions=2, problem={"epochs": epochs})
    assert drawn(section)["one-accuracy"].axes[0].get_xlabel() == f"classes seen, {words} each number"


def test_figures_say_what_becomes_of_runs_that_diverged(section):
    shown = {key: " ".join(text.get_text() for text in figure.texts) for key, figure in drawn(section).items()}
    assert "once diverged a run counts as 0" in shown["one-accuracy"]
    assert "a diverged run counts as 0" in shown["one-additions"]
    for key in ("one-dormant", "one-magnitudes"):
        assert "without diverged runs" in shown[key]


def test_differences_are_those_of_a_seed(tmp_path):
    """Base has the seeds 0, 1 and 2, scratch 2 and 0 in this order, and SWR one that no other has."""
    rows = [Row("base", -0.1, seeds=(0, 1, 2)), Row("reset", seeds=(2, 0)), Row("swr", 0.02, seeds=(3,))]
    section = section_for(tmp_path, rows)
    accuracy = {"base": [[10.0, 11.0, 12.0]], "reset": [[2.0, 0.5]], "swr": [[7.0]]}
    found = from_scratch(section, section.rows, {name: np.array(values) for name, values in accuracy.items()})
    assert {name: values.tolist() for name, values in found.items()} == {"base": [[9.5, 10.0]], "reset": [[0.0, 0.0]]}
    last = {(run["method"], run["seed"]): run["late"] for run in section.measured.runs.iter_rows(named=True)}
    gaps = [last["base", seed] - last["reset", seed] for seed in (0, 2)]
    assert set(section.from_scratch) == {"base"}
    assert float(section.from_scratch["base"].mean) == pytest.approx(np.mean(gaps))
    line = line_of(drawn(section)["one-additions"].axes[1], section, "base")
    assert line.get_ydata()[-1] == pytest.approx(np.mean(gaps))
    table = table_of(section)
    assert [row[4] for row in table.rows][1:] == ["–", "–"]
    assert table.rows[0][4].startswith(f"{100 * np.mean(gaps):+.1f} ± ".replace("-", "−"))
    assert table.rows[2][2] == "–"
    assert "SWR" not in {text.get_text() for text in drawn(section)["one-additions"].axes[1].texts}


@pytest.mark.parametrize("rows", [["base", "reset"], ["base", "reset", "swr"], ["reset", "swr"]])
def test_no_seed_in_common(tmp_path, rows):
    section = section_for(tmp_path, [Row(name, seeds=(k, k + 4)) for k, name in enumerate(rows)])
    assert section.from_scratch == {}
    assert len(drawn(section)["one-additions"].axes) == 1
    for said in (section.answer, *(cell for row in table_of(section).rows for cell in row)):
        assert "nan" not in said
    if "swr" in rows:
        first = "plain training" if rows[0] == "base" else "scratch"
        assert f"without a seed in common with {first}. None of" in section.answer


def test_parts_of_a_run_each_that_are_not_all_done(tmp_path):
    """The seeds 0 of base, 1 of scratch and 0 of SWR: one pair, and none with scratch."""
    rows = [Row("base"), Row("reset"), Row("swr", 0.02)]
    section = section_for(tmp_path, rows, seeds=2, part_runs=1, done={0: 6, 3: 6, 4: 6})
    assert list(drawn(section)) == KEYS
    assert "points above plain training. None of 3 runs diverged. One seed gives no interval" in section.answer
    assert "nan" not in section.answer
    # The seeds 0 and 1 of base do not make one pair of its differences an interval.
    section = section_for(tmp_path / "two", rows, seeds=2, part_runs=1, done={0: 6, 1: 6, 3: 6, 4: 6})
    assert section.answer.endswith("One seed gives no interval, so this may be chance.")


def test_an_overview_without_a_seed_in_common(tmp_path):
    rows = [Row(f"swr_{k}", kind="swr", settings={"factor": 1e-4 * (k + 1)}, seeds=(1, 2)) for k in range(8)]
    section = section_for(tmp_path, [Row("base", seeds=(1, 2)), Row("reset", seeds=(0,)), *rows], additions=2)
    overview = next(iter(figures_of(section))).draw(WIDE, LIGHT)
    assert len(section.from_scratch) == 0
    assert {axes.get_title(loc="left") for axes in overview.axes} == {"final accuracy", "against base, points"}


def test_many_methods(tmp_path):
    parts = ("head", "layer_norms", "attention", "mlp", "momentum")
    rows = [*ROWS[:2], *ROWS[3:], Row("cbp", -0.03)]
    rows += [Row(f"reset_{part}", -0.05, kind="reset", settings={"parts": part}) for part in parts]
    section = section_for(tmp_path / "many", rows, seeds=2, additions=3, network={"reparameterized": True})
    assert [key for key, _, _ in row_groups(section.rows)] == ["", "-reset"]
    figures = drawn(section, NARROW)
    assert "one-overview" in figures
    assert "one-reset-additions" in figures
    for figure in figures.values():
        assert texts_outside(figure) == []
    styles = [row.style for row in section.rows]
    assert len({style.colour for style in styles}) == len(styles)
    without = section_for(tmp_path / "without", [row for row in rows if row.name != "reset"], seeds=2, additions=3)
    overview = next(iter(figures_of(without)))
    assert {axes.get_title(loc="left") for axes in overview.draw(WIDE, LIGHT).axes} == {
        "final accuracy",
        "against base, points",
    }


@pytest.mark.parametrize("additions", [1, 2])
def test_few_additions(tmp_path, additions):
    section = section_for(tmp_path, [ROWS[0]], seeds=1, additions=additions)
    for size in (WIDE, NARROW):
        figures = drawn(section, size)
        assert list(figures) == KEYS
        assert all(texts_outside(figure) == [] for figure in figures.values())


def test_all_runs_diverged(tmp_path):
    section = section_for(tmp_path, [Row("base"), Row("swr", diverged=(0, 1, 2))])
    figures = drawn(section)
    assert list(figures) == KEYS
    assert line_of(figures["one-additions"].axes[0], section, "swr").get_ydata()[-1] == 0
