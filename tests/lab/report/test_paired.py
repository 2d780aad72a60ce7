"""Differences by seed: p-values against published tables and permutations, Holm against a textbook and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from supple.lab.report.paired import differences, equivalent, holm, paired_p, pairs_needed
from supple.lab.report.statistics import Interval, mean_interval


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
    flipped = [abs(np.mean(values * signs)) for signs in itertools.product((-1, 1), repeat=12)]
    assert paired_p(values) == pytest.approx(np.mean(np.array(flipped) >= abs(values.mean()) - 1e-12), abs=0.02)


def test_p_of_few_or_equal_values():
    assert np.isnan(paired_p([0.5]))
    assert paired_p([0.5, 0.5]) == 0
    assert paired_p([0.5, 0.5], against=0.5) == 1
    assert paired_p(np.zeros((4, 3))).tolist() == [1, 1, 1]


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


def test_equivalence_is_two_one_sided_tests():
    rng = np.random.default_rng(1)
    for _ in range(50):
        values = rng.normal(rng.uniform(-1, 1), 0.5, size=8)
        lower = stats.ttest_1samp(values, -0.6, alternative="greater").pvalue
        upper = stats.ttest_1samp(values, 0.6, alternative="less").pvalue
        assert equivalent(mean_interval(values), 0.6) == (max(lower, upper) < 0.025)
    nothing = np.array(np.nan)
    assert not equivalent(Interval(np.array(0.0), nothing, nothing), 1.0)


def test_pairs_needed():
    values = np.random.default_rng(2).normal(size=10)
    needed = pairs_needed(values, 0.3)
    spread = values.std(ddof=1)
    for n, enough in ((needed, True), (needed - 1, False)):
        assert (stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) < 0.3) == enough
    assert pairs_needed(values[:1], 0.3) is None
    assert pairs_needed(values, 0.0) is None
    assert pairs_needed(values, 1e-6) is None
