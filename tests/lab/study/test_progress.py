"""What is shown of a study while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from supple.lab.study.progress import Bars, Lines, Tally, duration, pace


def test_a_tally_adds_up() -> None:
    tally = Tally(Console(file=io.StringIO()))
    # Six runs of which two tasks are learned, and three new ones; four tasks of ten steps.
    tally.start({0: (6, 2), 1: (3, 0)}, [10] * 4)
    assert tally.share == pytest.approx(6 * 2 / (9 * 4))
    tally.step(1, 0, 5)
    assert tally.steps == 6 * 2 * 10 + 3 * 5
    tally.stage(1, 1, [("base", 0.5), ("swr", 0.7), ("swr", 0.9)])
    tally.stage(0, 3, [("base", 0.2), ("cbp", 0.4)])
    assert tally.steps == 6 * 3 * 10 + 3 * 10
    # Base: three runs of part 0 and one of part 1.
    assert tally.accuracies() == pytest.approx({"base": (3 * 0.2 + 0.5) / 4, "cbp": 0.4, "swr": 0.8})
    assert list(tally.accuracies()) == ["base", "cbp", "swr"]
    assert tally.line().startswith("58.3%  base 27.5%  cbp 40.0%  swr 80.0%  (")
    assert "network steps/s" in tally.pace()


def test_tasks_of_unlike_length() -> None:
    tally = Tally(Console(file=io.StringIO()))
    tally.start({0: (1, 0.5), 1: (1, 0)}, [10, 20])
    assert tally.steps == 5
    tally.stage(0, 1.5, [("base", 0.5)])
    assert tally.steps == 20
    # More steps than the task has with the first seed.
    tally.step(1, 1, 23)
    tally.step(0, 1, 20)
    assert tally.share == 1


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_what_is_shown(kind: type[Lines] | type[Bars]) -> None:
    file = io.StringIO()
    with kind(Console(file=file, force_terminal=kind is Bars, width=100)) as watcher:
        watcher.start({0: (2, 0)}, [10])
        watcher.step(0, 0, 5)
        watcher.stage(0, 1, [("swr", 0.25)])
        watcher.say("Memory ran out.")
    assert "25.0%" in file.getvalue()
    assert "100.0%" in file.getvalue()
    assert "Memory ran out." in file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (25500, "7 h 5 min"), (1051200, "12 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0.12412, "0.124"), (8.0, "8"), (99.96, "100"), (12743.4, "12,743")])
def test_paces(value: float, text: str) -> None:
    assert pace(value) == text
