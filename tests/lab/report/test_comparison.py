"""Methods of a folder: what each is worth, at which settings, against the first; the sentence and the table."""

import csv
import io

import numpy as np
import pytest
from compared import view_of
from fake_results import Row, write
from scipy import stats

from supple.lab.report import page
from supple.lab.report.comparison import groups, settings_text
from supple.lab.report.statistics import Interval
from supple.lab.report.tables import Table, claims_table, latex, points_table
from supple.lab.report.texts import gap_text, interval_text, number, p_text, percent, words
from supple.lab.report.view import View
from supple.lab.studies.claims import check_claims

GRID = [
    ({"frequency": f, "factor": g}, -0.01 * a - 0.02 * b)
    for a, f in enumerate((512, 1024))
    for b, g in enumerate((1e-6, 1e-5))
]
ROWS = [
    Row("swr", 0.9, 0.92, grid=GRID),
    Row("cbp", 0.9, 0.9, diverged=(3,)),
    Row("base", 0.9, 0.8, dead=0.4),
    Row("tanh", 0.9, 0.85, kind="base", settings={"network.activation": "tanh"}),
]


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    return view_of(write(tmp_path_factory.mktemp("results") / "one", ROWS, tasks=40, seeds=6))


def test_lines(view):
    assert [line.name for line in view.lines] == ["base", "tanh", "swr", "cbp"]
    base, tanh, swr, cbp = view.lines
    assert settings_text(base.settings) == ""
    assert settings_text(tanh.settings) == "activation tanh"
    assert settings_text(swr.settings) == "frequency 512, factor 1e-6"
    assert swr.grid == {"frequency": [512, 1024], "factor": [1e-6, 1e-5]}
    assert swr.late.shape == (4, 6)
    assert swr.points[swr.fit.best] == "frequency=512, factor=1e-06"
    assert len(swr.best) == 6
    assert swr.fit.honest
    assert (cbp.diverged, len(cbp.runs)) == (1, 6)
    assert base.average("dead") == pytest.approx(0.4)
    assert swr.average("reinitialized") == 3 * 40


def test_numbers_against_scipy(view):
    runs = view.measured.runs
    late = {name: runs.filter(method=name).sort("seed")["late"].to_numpy() for name in ("base", "tanh", "cbp")}
    late["swr"] = runs.filter(method="swr", frequency=512, factor=1e-6).sort("seed")["late"].to_numpy()
    p = [stats.ttest_rel(late[name], late["base"]).pvalue for name in ("tanh", "swr", "cbp")]
    expected = np.empty(3)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p)):
        largest = expected[place] = max(largest, min(1, (3 - rank) * p[place]))
    np.testing.assert_allclose(view.comparison.p[1:], expected, rtol=1e-6)
    assert np.isnan(view.comparison.p[0])
    for line in view.lines:
        if line.name != "swr":
            low, high = stats.t.interval(0.95, 5, np.mean(late[line.name]), stats.sem(late[line.name]))
            assert line.interval("late") == pytest.approx((late[line.name].mean(), low, high))
            gap = late[line.name] - late["base"]
            if line.name != "base":
                low, high = stats.t.interval(0.95, 5, np.mean(gap), stats.sem(gap))
                assert view.comparison.gap(line, view.lines[0]) == pytest.approx((gap.mean(), low, high))


def test_the_sentence(view):
    assert view.answer.startswith("The accuracy of plain training fell from")
    assert "in tasks 3–6 to" in view.answer
    assert "in tasks 37–40 (loss of plasticity), while SWR, on average the best method" in view.answer
    assert "1 of 42 runs diverged." in view.answer
    assert view.partial == ""


@pytest.mark.parametrize(
    ("rows", "said", "unsaid"),
    [
        ([Row("base", 0.8, 0.6), Row("swr", 0.7, 0.9)],
         ["training fell", "loss of plasticity", "SWR", "rose", "above it"], ["chance"]),
        ([Row("base", 0.6, 0.8), Row("swr", 0.9, 0.7)],
         ["training rose", "SWR", "fell", "below it"], ["loss of plasticity", "chance"]),
        ([Row("base", 0.7, 0.7), Row("swr", 0.7, 0.7)],
         ["training went", "no clear change", "may be chance"], ["fell", "rose"]),
        ([Row("base", 0.8, 0.6), Row("l2", 0.7, 0.9), Row("cbp", 0.7, 0.95)], ["CBP, on average the best"], ["L2"]),
        ([Row("base", 0.8, 0.6), Row("l2", 0.7, 0.9), Row("cbp", 0.7, 0.9), Row("swr", 0.7, 0.8)],
         ["is not clearly behind it"], ["SWR"]),
        ([Row("base", 0.8, 0.6)], ["training fell"], ["best"]),
    ],
)  # fmt: skip
def test_the_sentence_follows_the_numbers(tmp_path, rows, said, unsaid):
    text = view_of(write(tmp_path, rows, tasks=20, noise=0.0, own_noise=0.002)).answer
    assert all(one in text for one in said)
    assert not any(one in text for one in unsaid)


def test_without_base_or_with_one_seed(tmp_path):
    view = view_of(write(tmp_path / "one", ROWS[:2], tasks=40, seeds=1))
    assert view.lines[0].name == "swr"
    assert not view.lines[0].fit.honest
    assert view.answer.startswith("The accuracy of SWR went from")
    assert "One seed gives no interval" in view.answer
    assert "nan" not in view.answer
    assert view.table.rows[0][1].endswith("± -")


def test_what_is_not_finished_is_said(tmp_path):
    view = view_of(write(tmp_path / "one", ROWS, tasks=40, seeds=6, done={0: 40, 1: 8, 2: 0}))
    assert view.partial == (
        "This is about the 16 runs that have learned all tasks; 26 others are not so far yet. There is nothing of cbp, "
        "base, tanh yet."
    )
    view = view_of(write(tmp_path / "two", ROWS, tasks=40, seeds=6, done=8))
    assert view.partial == "This is about the 42 runs that have learned their first 8 of 40 tasks."


def rows_of(table):
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def test_forms_of_a_table():
    table = Table("key", "50% & more", ["a|b", "n"], [["x_1", "1 ± 2"]], [{"a": "x_1", "n": 0.5}], "A note.")
    assert table.to_markdown() == "**50% & more**\n\n| a\\|b | n |\n|---|---:|\n| x_1 | 1 ± 2 |\n\nA note.\n"
    text = table.to_latex()
    assert r"\caption{50\% \& more. A note.}" in text
    assert r"x\_1 & 1 $\pm$ 2 \\" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert table.to_csv() == "a,n\nx_1,0.5\n"
    assert latex("a_b^c < −1") == r"a\_b\textasciicircum{}c $<$ $-$1"


def test_the_table_of_methods(view):
    table = view.table
    assert all(len(row) == len(table.header) for row in table.rows)
    assert [row[0] for row in table.rows] == ["base", "tanh", "SWR", "CBP"]
    assert table.header[-2:] == ["diverged", "seeds"]
    assert table.rows[3][-2:] == ["1 of 6", "6"]
    for row, line in zip(rows_of(table), view.lines, strict=True):
        assert float(row["final"]) == line.interval("late").mean
        assert float(row["early_low"]) == line.interval("early").low
    assert "the setting that the other half of the seeds chose" in table.note


def test_the_table_of_points(view):
    table = points_table(view.comparison)
    rows = rows_of(table)
    assert [float(row["factor"]) for row in rows] == [1e-6, 1e-5, 1e-6, 1e-5]
    assert [row["best"] for row in rows] == ["True", "False", "False", "False"]
    assert table.rows[0] == ["SWR", "frequency 512, factor 1e-6", table.rows[0][2], "6", "best"]
    for k, row in enumerate(rows):
        assert float(row["final"]) == pytest.approx(view.lines[2].late[k].mean())


def test_nothing_swept(tmp_path):
    assert points_table(view_of(write(tmp_path, ROWS[2:], tasks=5)).comparison) is None


def test_the_table_of_claims(view):
    claims = check_claims([view.measured])
    table = claims_table(claims)
    rows = rows_of(table)
    assert {row["claim"] for row in rows} == {claim.id for claim in claims}
    gain = next(row for row in rows if row["difference"] == "final accuracy, SWR − CBP")
    assert float(gain["mean"]) == claims[0].evidence[0].interval.mean
    assert table.rows[0][-1] == claims[0].verdict.value


def test_many_methods_are_spread_over_figures(tmp_path):
    rows = [Row("base"), Row("swr"), Row("cbp"), *(Row(f"swr_{k}", kind="swr") for k in range(12))]
    view = view_of(write(tmp_path, [*rows, Row("tanh", kind="base")], seeds=2, tasks=5))
    found = groups(view.lines)
    assert [key for key, _, _ in found] == ["", "-base", "-swr-1", "-swr-2"]
    named = [[line.name for line in members] for _, _, members in found]
    assert named[0] == ["base", "swr", "cbp"]
    assert named[1] == ["base", "tanh"]
    assert all(group[:2] == ["base", "swr"] and len(group) <= 9 for group in named[2:])
    assert {name for group in named for name in group} == {line.name for line in view.lines}
    assert next(view.figures()).name == f"{view.key}-overview"


def test_a_problem_that_says_nothing_of_itself_is_shown_too(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "VIEWS", {})
    view = view_of(write(tmp_path, ROWS, tasks=10, seeds=2))
    assert type(view) is View
    assert dict(view.facts)["Problem"] == "permuted"
    assert [figure.name for figure in view.figures()] == ["small-accuracy", "small-correlates", "small-sweep-swr"]
    assert view.answer.startswith("The accuracy of plain training")


def test_texts():
    assert words("leaky_relu") == "leaky ReLU"
    assert percent(Interval(0.7421, 0.7391, 0.7451)) == "74.2 ± 0.3"
    assert percent(Interval(-0.07, -0.08, -0.06), signed=True) == "−7.0 ± 1.0"
    assert percent(Interval(0.07, 0.06, 0.08), signed=True) == "+7.0 ± 1.0"
    assert interval_text(Interval(0.0201, 0.019, -0.0212)) == "+2.01 (+1.90 to −2.12)"
    assert interval_text(Interval(0.5, float("nan"), float("nan")), "nats") == "+0.5 nats"
    assert interval_text(Interval(float("nan"), 0, 0)) == "–"
    assert gap_text(Interval(0.021, 0.019, 0.023)) == "2.1 points above it (95% interval +1.9 to +2.3)"
    assert [p_text(p) for p in (0.5, 1e-9, float("nan"))] == ["0.500", "< 0.001", "–"]
    values = (2048, 1e-6, 5e-4, 0.05, 0, "gradient", True, 2_000_000, None)
    expected = ["2048", "1e-6", "5e-4", "0.05", "0", "gradient", "True", "2e6", "None"]
    assert [number(value) for value in values] == expected
