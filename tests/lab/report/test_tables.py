"""Tables hold what was measured, in each of their forms."""

import csv
import io

import pytest
from fake_results import Row, write

from supple.lab.report.claims import check_claims
from supple.lab.report.measured import measure
from supple.lab.report.section import make_section
from supple.lab.report.statistics import Interval
from supple.lab.report.tables import Table, claims_table, interval_text, latex, methods_table, p_text, points_table
from supple.lab.report.variants import row_styles
from supple.lab.study.results import load

GRID = [({"factor": 10.0**-k}, -0.01 * abs(k - 5)) for k in (4, 5, 6)]


@pytest.fixture
def section(tmp_path):
    rows = [Row("base", 0.9, 0.8), Row("cbp", 0.9, 0.85, diverged=(0,)), Row("swr", 0.9, 0.92, grid=GRID)]
    measured = measure(load(write(tmp_path / "one", rows, tasks=20, seeds=4)))
    return make_section(measured, row_styles({"base": "base", "cbp": "cbp", "swr": "swr"}), "one")


def rows_of(table):
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def test_forms():
    table = Table("key", "50% & more", ["a|b", "n"], [["x_1", "1 ± 2"]], [{"a": "x_1", "n": 0.5}], "A note.")
    assert table.to_markdown() == "**50% & more**\n\n| a\\|b | n |\n|---|---:|\n| x_1 | 1 ± 2 |\n\nA note.\n"
    text = table.to_latex()
    assert r"\caption{50\% \& more. A note.}" in text
    assert r"x\_1 & 1 $\pm$ 2 \\" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    assert table.to_csv() == "a,n\nx_1,0.5\n"
    assert latex("a_b^c < −1") == r"a\_b\textasciicircum{}c $<$ $-$1"


def test_methods(section):
    table = methods_table(section)
    assert all(len(row) == len(table.header) for row in table.rows)
    assert [row[0] for row in table.rows] == ["base", "CBP", "SWR"]
    assert table.header[-2:] == ["diverged", "seeds"]
    assert table.rows[1][-2:] == ["1 of 4", "4"]
    for row, summary in zip(rows_of(table), section.summaries, strict=True):
        assert float(row["final"]) == summary.late.mean
        assert float(row["early_low"]) == summary.early.low
    assert "the setting that the other half of the seeds chose" in table.note


def test_points(section):
    rows = rows_of(points_table(section))
    assert [float(row["factor"]) for row in rows] == [1e-4, 1e-5, 1e-6]
    assert [row["best"] for row in rows] == ["False", "True", "False"]
    for k, row in enumerate(rows):
        assert float(row["final"]) == pytest.approx(section.rows[2].late[k].mean())


def test_nothing_swept(tmp_path):
    measured = measure(load(write(tmp_path / "two", [Row("base", 0.9, 0.8)])))
    assert points_table(make_section(measured, row_styles({"base": "base"}), "two")) is None


def test_claims(section):
    claims = check_claims([section.measured])
    table = claims_table(claims)
    rows = rows_of(table)
    assert {row["claim"] for row in rows} == {claim.id for claim in claims}
    gain = next(row for row in rows if row["difference"] == "final accuracy, SWR − CBP")
    assert float(gain["mean"]) == claims[0].evidence[0].interval.mean
    assert table.rows[0][-1] == claims[0].verdict.value


def test_texts():
    assert interval_text(Interval(0.0201, 0.019, -0.0212)) == "+2.01 (+1.90 to −2.12)"
    assert interval_text(Interval(0.5, float("nan"), float("nan")), "nats") == "+0.5 nats"
    assert interval_text(Interval(float("nan"), 0, 0)) == "–"
    assert [p_text(p) for p in (0.5, 1e-9, float("nan"))] == ["0.500", "< 0.001", "–"]
