"""Statistics over seeds against scipy, published tables, textbooks and brute force."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from supple.lab.report.statistics import (
    NOTHING,
    Interval,
    cross_fit,
    differences,
    equivalence_p,
    holm,
    intervals,
    mean_interval,
    mean_over,
    paired_p,
    pairs_needed,
    sign_p,
)


def test_student_by_hand():
    # t(0.975, 4) = 2.776 from any table; 1, ..., 5 have standard deviation sqrt(2.5).
    half = 2.776445 * np.sqrt(2.5 / 5)
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3, 3 - half, 3 + half), rel=1e-6)


@given(arrays(float, st.integers(2, 9), elements=st.floats(-100, 100)))
def test_intervals_are_those_of_scipy(values):
    mean, low, high = mean_interval(values)
    scale = stats.sem(values)
    expected = (mean, mean) if scale == 0 else stats.t.interval(0.95, len(values) - 1, values.mean(), scale)
    np.testing.assert_allclose((mean, low, high), (values.mean(), *expected), atol=1e-9)


def test_few_values():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    for values in ([1.0], [1.0, math.nan]):
        found = mean_interval(values)
        assert found.mean == 1
        assert not found.known
    assert math.isnan(mean_interval([]).mean)
    assert (Interval(1, 0.5, 1.5).clear, Interval(1, -0.5, 2.5).clear, NOTHING.clear) == (True, False, False)


def test_the_mean_over_samples_is_welchs():
    """The mean of two samples' means is half the difference of one's and the other's with its sign turned."""
    generator = np.random.default_rng(0)
    first, second = generator.normal(1, 1, 10), generator.normal(2, 5, 6)
    ends = stats.ttest_ind(first, -second, equal_var=False).confidence_interval()
    assert mean_over([first, second]) == pytest.approx(
        ((first.mean() + second.mean()) / 2, ends.low / 2, ends.high / 2), rel=1e-9
    )
    assert mean_over([first]) == pytest.approx(mean_interval(first), rel=1e-9)
    assert mean_over([[1, 1], [2, 2]]) == (1.5, 1.5, 1.5)
    assert not mean_over([first, [1.0]]).known


def test_intervals_of_groups():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"line": ["b"] * 6 + ["a"] * 6, "x": [2, 2, 2, 1, 1, 1] * 2, "value": rng.random(12)})
    frame[7, "value"] = math.nan
    frame[8, "value"] = None
    found = intervals(frame, ["line", "x"])
    assert found.select("line", "x").rows() == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    for line, x, *ends in found.iter_rows():
        values = frame.filter(line=line, x=x)["value"].drop_nulls()
        np.testing.assert_allclose(ends, mean_interval(values.to_numpy()))
    assert intervals(frame.filter(value=5.0), ["line"]).is_empty()


@pytest.mark.parametrize(("draw", "mean", "expected"), [("normal", 0, 0.95), ("exponential", 1, 0.88)])
def test_coverage_with_five_seeds(draw, mean, expected):
    """The numbers of the module's docstring."""
    values = getattr(np.random.default_rng(3), draw)(size=(2000, 5))
    held = [low <= mean <= high for _, low, high in map(mean_interval, values)]
    assert np.mean(held) == pytest.approx(expected, abs=0.015)


def test_differences_are_of_common_seeds():
    np.testing.assert_allclose(differences({3: 0.5, 1: 0.9, 2: 0.7}, {1: 0.4, 3: 0.1, 7: 0.2}), [0.5, 0.4])
    assert len(differences({1: 0.5}, {2: 0.5})) == 0


def test_students_own_data():
    """The ten differences of sleep of Student 1908: t = 4.06 with 9 degrees of freedom, p = 0.0028."""
    extra = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    assert paired_p(extra) == pytest.approx(0.00283, abs=5e-6)
    assert paired_p(extra, against=1.0) == pytest.approx(stats.ttest_1samp(extra, 1.0).pvalue)


def test_p_against_all_sign_flips():
    values = np.random.default_rng(0).normal(0.4, 1, size=12)
    flipped = np.abs((values * np.array(list(itertools.product((-1, 1), repeat=12)))).mean(axis=1))
    assert paired_p(values) == pytest.approx(np.mean(flipped >= abs(values.mean()) - 1e-12), abs=0.02)


def test_p_of_few_or_equal_values():
    assert np.isnan(paired_p([0.5]))
    assert paired_p([0.5, 0.5]) == 0
    assert paired_p([0.5, 0.5], against=0.5) == 1
    assert paired_p(np.zeros(4)) == 1


def test_equivalence_is_two_one_sided_tests():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values = rng.normal(rng.uniform(-1, 1), 0.5, size=8)
        lower = stats.ttest_1samp(values, -0.6, alternative="greater").pvalue
        upper = stats.ttest_1samp(values, 0.6, alternative="less").pvalue
        assert equivalence_p(values, 0.6) == pytest.approx(min(1, 2 * max(lower, upper)))
        # A 95% interval within the margin says the same.
        _, low, high = mean_interval(values)
        assert (equivalence_p(values, 0.6) < 0.05) == (low > -0.6 and high < 0.6)
    assert equivalence_p(np.full(3, 0.125), 0.5) == 0


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=20))
def test_signs(d):
    above, below = d.count(1), d.count(-1)
    expected = stats.binomtest(above, above + below).pvalue if above > below else 1.0
    assert sign_p(np.array(d)) == pytest.approx(expected)


def test_holm_on_a_textbook_example():
    """Values of 0.01, 0.04, 0.03, 0.005 give 0.03, 0.06, 0.06, 0.02 (the example of Wikipedia)."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert holm([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_rejects_what_closed_testing_rejects(p, level):
    """Holm's method is closed testing with Bonferroni: a hypothesis falls if each set with it has p <= level / size."""
    adjusted = holm(p)
    for one in range(len(p)):
        others = [k for k in range(len(p)) if k != one]
        sets = [(one, *more) for size in range(len(p)) for more in itertools.combinations(others, size)]
        rejected = all(min(p[k] for k in chosen) * len(chosen) <= level for chosen in sets)
        if abs(adjusted[one] - level) > 1e-9:
            assert (adjusted[one] <= level) == rejected
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= 1).all()


def test_pairs_needed():
    values = np.random.default_rng(2).normal(size=10)
    needed = pairs_needed(values, 0.3)
    spread = values.std(ddof=1)
    for n, enough in ((needed, True), (needed - 1, False)):
        assert (stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) < 0.3) == enough
    assert pairs_needed(values[:1], 0.3) is None
    assert pairs_needed(values, 0.0) is None
    assert pairs_needed(values, 1e-6) is None


def test_choosing_a_setting_by_hand():
    # Even seeds (0, 2) choose setting 1, odd seeds (1, 3) setting 2.
    values = np.array([[1, 1, 1, 1], [9, 0, 9, 0], [0, 8, 0, 8]], dtype=float)
    found = cross_fit(values)
    assert found.chosen.tolist() == [2, 1, 2, 1]
    assert found.of(values).tolist() == [0, 0, 0, 0]
    assert found.best == 1
    assert found.honest


def test_one_setting_one_seed_and_holes():
    assert cross_fit([[3, 4, 5]]).chosen.tolist() == [0, 0, 0]
    one = cross_fit([[3], [4]])
    assert (one.best, one.chosen.tolist(), one.honest) == (1, [1], False)
    # No odd seed has setting 1; the even ones have it and choose it, so the odd ones have no value.
    values = np.array([[1, 1, np.nan, 1], [2, np.nan, np.nan, np.nan]])
    found = cross_fit(values)
    assert found.chosen.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found.of(values), [1, np.nan, np.nan, np.nan])
    values = np.array([[1, np.nan], [np.nan, 2]])
    found = cross_fit(values)
    assert (found.best, found.honest) == (1, False)
    np.testing.assert_array_equal(found.of(values), [np.nan, 2])
    for wrong in (np.full((2, 3), np.nan), np.ones(3), np.ones((0, 2))):
        with pytest.raises(ValueError, match=r"\[settings, seeds\]"):
            cross_fit(wrong)


@given(arrays(float, st.tuples(st.integers(2, 5), st.integers(2, 7)), elements=st.floats(0, 1)))
def test_a_seed_takes_no_part_in_choosing_what_it_reports(values):
    found = cross_fit(values)
    for seed in range(values.shape[1]):
        others = [k for k in range(values.shape[1]) if (k - seed) % 2]
        assert found.chosen[seed] == np.argmax(values[:, others].mean(axis=1))
        assert found.of(values)[seed] == values[found.chosen[seed], seed]


def test_no_luck_of_the_winner():
    """Fifty settings that are equally good: the best looks better than it is, the cross-fitted value does not."""
    rng = np.random.default_rng(0)
    best, honest = [], []
    for _ in range(300):
        values = rng.normal(size=(50, 10))
        found = cross_fit(values)
        best.append(values[found.best].mean())
        honest.append(found.of(values).mean())
    assert np.mean(best) > 0.6
    assert np.mean(honest) == pytest.approx(0, abs=0.06)
