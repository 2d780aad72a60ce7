"""Summaries against loops, and the sentence against cases whose answer is known."""

import csv

import numpy as np
import pytest

from supple.lab.report.comparison import COLUMNS, Comparison, answer, percent, summarize
from supple.lab.report.statistics import Interval


def comparison(accuracy, methods=("base", "swr")):
    """A comparison with the given accuracy [tasks, seeds, methods]."""
    accuracy = np.asarray(accuracy, dtype=np.float64)
    other = np.random.default_rng(0).random((2, *accuracy.shape))
    counts = np.arange(accuracy.size).reshape(accuracy.shape)
    return Comparison(methods, tuple(range(accuracy.shape[1])), accuracy, other[0], other[1], counts)


def lines(*ends, seeds=5, tasks=10, noise=0.001):
    """Accuracy that goes from one value to another for each method, a little differently in each seed."""
    steps = np.linspace(0, 1, tasks)[:, None, None]
    start, stop = np.transpose(ends)
    shift = noise * np.random.default_rng(1).normal(size=(tasks, seeds, len(ends)))
    return start + (stop - start) * steps + shift


def test_summary_against_loops():
    measured = comparison(np.random.default_rng(2).random((11, 3, 2)))
    assert measured.window == 2
    assert measured.ends == ("tasks 1–2", "tasks 10–11")
    for c, summary in enumerate(summarize(measured)):
        early = [np.mean([measured.accuracy[t, s, c] for t in (0, 1)]) for s in range(3)]
        late = [np.mean([measured.accuracy[t, s, c] for t in (9, 10)]) for s in range(3)]
        base = [np.mean([measured.accuracy[t, s, 0] for t in (9, 10)]) for s in range(3)]
        assert summary.method == measured.methods[c]
        assert summary.early.mean == pytest.approx(np.mean(early))
        assert summary.late.mean == pytest.approx(np.mean(late))
        # Differences are paired: their spread is that of the differences seed by seed.
        half = 4.302653 * np.std(np.subtract(late, early), ddof=1) / np.sqrt(3)
        assert summary.change.high - summary.change.mean == pytest.approx(half, rel=1e-6)
        assert summary.gain.mean == pytest.approx(np.mean(np.subtract(late, base)))
        assert summary.dead == pytest.approx(np.mean([measured.dead[10, s, c] for s in range(3)]))
        total = [sum(measured.reinitialized[t, s, c] for t in range(11)) for s in range(3)]
        assert summary.reinitialized == pytest.approx(np.mean(total))


def test_csv_holds_every_value(tmp_path):
    measured = comparison(np.random.default_rng(3).random((4, 3, 2)))
    measured.write_csv(tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert len(rows) == 4 * 3 * 2
    for task, method, seed, *values in rows:
        at = (int(task) - 1, int(seed), measured.methods.index(method))
        arrays = (measured.accuracy, measured.loss, measured.dead, measured.reinitialized)
        assert [float(value) for value in values] == [array[at] for array in arrays]


@pytest.mark.parametrize(
    ("ends", "said", "unsaid"),
    [
        (((0.8, 0.6), (0.7, 0.9)), ["training fell", "loss of plasticity", "SWR", "rose", "above it"], ["chance"]),
        (((0.6, 0.8), (0.9, 0.7)), ["training rose", "SWR", "fell", "below it"], ["loss of plasticity", "chance"]),
        (((0.7, 0.7), (0.7, 0.7)), ["training went", "no clear change", "may be chance"], ["fell", "rose"]),
    ],
)
def test_the_sentence_follows_the_numbers(ends, said, unsaid):
    measured = comparison(lines(*ends))
    text = answer(measured, summarize(measured))
    for words in said:
        assert words in text
    for words in unsaid:
        assert words not in text


def test_the_sentence_names_the_best():
    measured = comparison(lines((0.8, 0.6), (0.7, 0.9), (0.7, 0.95)), ("base", "l2", "cbp"))
    text = answer(measured, summarize(measured))
    assert "CBP, on average the best" in text
    assert "L2" not in text
    tied = comparison(lines((0.8, 0.6), (0.7, 0.9), (0.7, 0.9), (0.7, 0.8)), ("base", "l2", "cbp", "swr"))
    text = answer(tied, summarize(tied))
    assert "L2 is not clearly behind it" in text or "CBP is not clearly behind it" in text
    assert "SWR" not in text
    alone = comparison(lines((0.8, 0.6)), ("base",))
    assert "best" not in answer(alone, summarize(alone))


def test_one_seed_has_no_interval():
    measured = comparison(lines((0.8, 0.6), (0.7, 0.9), seeds=1))
    text = answer(measured, summarize(measured))
    assert "no clear" not in text
    assert "One seed gives no interval" in text
    assert "nan" not in text
    assert percent(summarize(measured)[0].late).endswith("± -")


def test_percent():
    assert percent(Interval(0.7421, 0.7391, 0.7451)) == "74.2 ± 0.3"
    assert percent(Interval(-0.07, -0.08, -0.06), signed=True) == "−7.0 ± 1.0"
    assert percent(Interval(0.07, 0.06, 0.08), signed=True) == "+7.0 ± 1.0"
