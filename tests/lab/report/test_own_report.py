"""Reports of problems of one's own: by whatever they are compared, in the right direction, with made-up curves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compared import view_of

from supple.lab import Curve, Metric, compare
from supple.lab.commands.report import report_command
from supple.lab.report.page import make_report
from supple.lab.study.results import load

TASKS, SEEDS = 10, 6


def error(seed: int, make: Any) -> Iterator[float]:
    """Goes from 0.1 to what the network's settings say; one seed diverges."""
    last, wild = make.network["last"], make.network.get("wild", -1)
    for task in range(TASKS):
        value = 0.1 + (last - 0.1) * (task >= 5) + 0.001 * math.sin(7 * seed + task)
        yield math.nan if seed == wild and task == 9 else value


METHODS: dict[str, Any] = {
    "base": {"network": {"last": 0.3}},
    "mine": {"kind": "base", "network": {"last": [0.25, 0.12]}},
    "wild": {"kind": "base", "network": {"last": 0.05, "wild": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "errors"
    metric = Metric("mean error", None, lower=True)
    compare(Curve(error, metric), METHODS, tasks=TASKS, seeds=SEEDS, out=out, network={"last": 1.0})
    return out


def test_lower_is_better(folder: Path) -> None:
    view = view_of(folder)
    base, mine, wild = view.lines
    assert [line.name for line in view.lines] == ["base", "mine", "wild"]
    # The one that ends lower is the best of the sweep.
    assert mine.points[mine.fit.best] == "network.last=0.12"
    assert mine.interval("late").mean == pytest.approx(0.12, abs=1e-3)
    assert base.interval("change").mean == pytest.approx(0.2, abs=2e-3)
    # A run that diverged counts as the worst there is: 0.3, with at most 0.001 of noise.
    expected = (5 * 0.05 + 0.3) / 6
    assert wild.interval("late").mean == pytest.approx(expected, abs=1e-3)
    assert wild.diverged == 1
    assert view.answer.startswith("The mean error of plain training rose from 0.")
    assert "(loss of plasticity)" in view.answer
    assert "below it" in view.answer
    assert "1 of 24 runs diverged" in view.answer


def test_nothing_is_called_a_per_cent(folder: Path) -> None:
    view = view_of(folder)
    rows = {row[0]: row for row in view.table.rows}
    assert rows["mine"][1].startswith("0.1196 ±")
    assert "per cent" not in view.note()
    assert "Mean error: final is task 10" in view.note()
    names = [figure.name for figure in view.figures()]
    assert "errors-accuracy" in names
    assert "errors-sweep-mine" in names
    assert "lower is better" in view.how_to_read[0]
    facts = dict(view.facts)
    assert facts["Problem"] == "given in a call of supple.lab.compare"


def test_what_the_folder_shows_of_itself_is_not_called_a_per_cent(folder: Path) -> None:
    text = repr(load(folder))
    assert "mean error in the last tenth" in text
    assert "%" not in text


def test_no_claims_of_a_paper_are_tested_on_it(folder: Path) -> None:
    def refuse(measured: Any) -> Any:
        raise AssertionError("claims were asked for")

    assert make_report([load(folder)], claims=refuse).claims == ()


def test_the_command_writes_the_page(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_command([folder], tmp_path / "report", "html,md,csv")
    page = (tmp_path / "report/report.html").read_text()
    assert "mean error" in page
    assert "Claims" not in page
    assert "0.1196" in (tmp_path / "report/tables/errors-methods.md").read_text()
    assert "mean error" in capsys.readouterr().out
