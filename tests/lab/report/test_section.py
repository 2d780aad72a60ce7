"""Methods of a folder: what each is worth, at which settings, against the first; and the sentence about them."""

import numpy as np
import pytest
from fake_results import Row, write
from scipy import stats

from supple.lab.report.measured import measure
from supple.lab.report.section import make_section
from supple.lab.report.variants import row_styles
from supple.lab.study.results import load

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


@pytest.fixture
def section(tmp_path):
    measured = measure(load(write(tmp_path / "one", ROWS, tasks=40, seeds=6)))
    kinds = dict(measured.results.runs.select("method", "kind").iter_rows())
    return make_section(measured, row_styles(kinds), "one")


def test_rows(section):
    assert [row.name for row in section.rows] == ["base", "tanh", "swr", "cbp"]
    base, tanh, swr, cbp = section.rows
    assert base.settings_text == ""
    assert tanh.settings_text == "activation tanh"
    assert "frequency 512" in swr.settings_text
    assert "factor 1e-6" in swr.settings_text
    assert swr.grid == {"frequency": [512, 1024], "factor": [1e-6, 1e-5]}
    assert swr.late.shape == (4, 6)
    assert swr.points[swr.best] == {"frequency": 512, "factor": 1e-6}
    assert len(swr.runs) == 6
    assert swr.honest
    assert (cbp.diverged, cbp.count) == (1, 6)
    assert base.dead == pytest.approx(0.4)
    assert swr.reinitialized == 3 * 40


def test_summaries_against_scipy(section):
    runs = section.measured.runs
    late = {
        name: runs.filter(method=name, point="").sort("seed")["late"].to_numpy() for name in ("base", "tanh", "cbp")
    }
    p = [stats.ttest_rel(late[name], late["base"]).pvalue for name in ("tanh", "cbp")]
    swr = runs.filter(method="swr", frequency=512, factor=1e-6).sort("seed")["late"].to_numpy()
    p.insert(1, stats.ttest_rel(swr, late["base"]).pvalue)
    expected = np.empty(3)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p)):
        largest = expected[place] = max(largest, min(1, (3 - rank) * p[place]))
    np.testing.assert_allclose(section.p[1:], expected, rtol=1e-6)
    assert np.isnan(section.p[0])
    for row, summary in zip(section.rows, section.summaries, strict=True):
        if row.name in late:
            low, high = stats.t.interval(0.95, 5, np.mean(late[row.name]), stats.sem(late[row.name]))
            assert summary.late == pytest.approx((late[row.name].mean(), low, high))


def test_the_sentence(section):
    assert section.answer.startswith("The accuracy of plain training fell from")
    assert "in tasks 3–6 to" in section.answer
    assert "in tasks 37–40 (loss of plasticity), while SWR, on average the best method" in section.answer
    assert "1 of 42 runs diverged." in section.answer
    assert section.partial == ""


def test_without_base_or_with_one_seed(tmp_path):
    measured = measure(load(write(tmp_path / "one", ROWS[:2], tasks=40, seeds=1)))
    section = make_section(measured, row_styles({"swr": "swr", "cbp": "cbp"}), "one")
    assert section.rows[0].name == "swr"
    assert not section.rows[0].honest
    assert section.answer.startswith("The accuracy of SWR went from")
    assert "One seed gives no interval" in section.answer
    assert "nan" not in section.answer


def test_what_is_not_finished_is_said(tmp_path):
    measured = measure(load(write(tmp_path / "one", ROWS, tasks=40, seeds=6, done={0: 40, 1: 8, 2: 0})))
    section = make_section(measured, row_styles({row.name: row.kind or row.name for row in ROWS}), "one")
    assert section.partial == (
        "This is about the 16 runs that have learned all tasks; 26 others are not so far yet. There is nothing of cbp, "
        "base, tanh yet."
    )
    measured = measure(load(write(tmp_path / "two", ROWS, tasks=40, seeds=6, done=8)))
    section = make_section(measured, row_styles({row.name: row.kind or row.name for row in ROWS}), "one")
    assert section.partial == "This is about the 42 runs that have learned their first 8 of 40 tasks."
