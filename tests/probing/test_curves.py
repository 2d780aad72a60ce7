"""What is told from learning curves, against slow references and published values."""

from __future__ import annotations

import numpy as np
import pytest

from supple.probing.curves import interval, pairs_needed, points, steps_needed, steps_to, student


def test_points_are_means_over_equal_stretches():
    assert points([1, 3, 2, 4, 10, 20], most=3).tolist() == [2, 3, 15]
    assert points([1.0, 2.0]).tolist() == [1, 2]


def test_steps_needed_is_the_mean_over_losses_of_the_steps_to_each():
    draw = np.random.default_rng(0)
    first, second = (np.linspace(3, 1, 40) + 0.3 * draw.standard_normal((5, 40)) for _ in range(2))
    first[1, 20:] = np.nan  # diverged: what it had reached counts, and nothing after
    found = steps_needed(first, second, second[:, 0])
    for pair in range(5):
        end = np.nanmin(np.concatenate([first[pair], second[pair]]))
        for curve, steps in ((first[pair], found[0][pair]), (second[pair], found[1][pair])):
            levels = end + (np.arange(4000) + 0.5) / 4000 * (second[pair, 0] - end)
            reached = [np.flatnonzero(curve <= level) for level in levels]
            slow = np.mean([where[0] if len(where) else len(curve) for where in reached])
            assert steps == pytest.approx(slow, abs=0.02)


def test_a_network_that_learns_nothing_needs_all_the_steps_there_are():
    fresh, dead = np.linspace(2, 1, 50)[None], np.full((1, 50), 2.1)
    assert steps_needed(dead, fresh, fresh[:, 0])[0] == 50
    assert np.isnan(steps_needed(dead, dead, dead[:, 0])).all()


def test_steps_to_a_level():
    curves = np.array([[3.0, 2, 1, 2], [3, 3, 3, 3]])
    assert steps_to(curves, 2.0).tolist() == [1, 4]


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30, 200])
def test_student_against_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    assert student(freedom) == pytest.approx(stats.t.ppf(0.99, freedom), rel=1e-6)


def test_interval_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.05])
    found = stats.ttest_1samp(values, 0).confidence_interval(0.98)
    assert interval(values) == pytest.approx((values.mean(), found.low, found.high))
    assert np.isnan(interval([1.0])[1:]).all()
    assert np.isnan(interval([1.0, np.inf])[1:]).all()


@pytest.mark.parametrize("single", [False, True])
def test_intervals_hold_what_they_should(single):
    """The mean's holds the true mean, and a single network's one more network, in 98% of cases."""
    draw, held = np.random.default_rng(1), 0
    for _ in range(2000):
        others = draw.standard_normal(5)
        one = draw.standard_normal() if single else 0.0
        found = interval(one - others, single)
        held += found.low <= 0 <= found.high
    assert 0.97 < held / 2000 < 0.99


def test_pairs_needed_are_enough_and_no_more():
    values = [1.0, 2.0, 0.0, 1.5]
    count = pairs_needed(values, 0.5)
    half = [student(n - 1) * np.std(values, ddof=1) / np.sqrt(n) for n in (count, count - 1)]
    assert half[0] < 0.5 <= half[1]
    assert pairs_needed(values, 0.5, single=True) is None
