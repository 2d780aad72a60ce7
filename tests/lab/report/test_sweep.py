"""Choosing a setting: by hand, and without the luck of the winner."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from supple.lab.report.sweep import cross_fit


def test_by_hand():
    # Even seeds (0, 2) choose setting 1, odd seeds (1, 3) setting 2.
    values = [[1, 1, 1, 1], [9, 0, 9, 0], [0, 8, 0, 8]]
    found = cross_fit(values)
    assert found.chosen.tolist() == [2, 1, 2, 1]
    assert found.values.tolist() == [0, 0, 0, 0]
    assert found.best == 1
    assert found.honest


def test_one_setting_one_seed_and_holes():
    assert cross_fit([[3, 4, 5]]).values.tolist() == [3, 4, 5]
    one = cross_fit([[3], [4]])
    assert (one.best, one.values.tolist(), one.honest) == (1, [4], False)
    found = cross_fit([[1, 1, np.nan, 1], [2, np.nan, np.nan, np.nan]])
    # No odd seed has setting 1; the even ones have it and choose it, so the odd ones have no value.
    assert found.chosen.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(found.values, [1, np.nan, np.nan, np.nan])
    found = cross_fit([[1, np.nan], [np.nan, 2]])
    assert (found.best, found.honest) == (1, False)
    np.testing.assert_array_equal(found.values, [np.nan, 2])
    for wrong in (np.full((2, 3), np.nan), np.ones(3), np.ones((0, 2))):
        with pytest.raises(ValueError, match=r"\[settings, seeds\]"):
            cross_fit(wrong)


@given(arrays(float, st.tuples(st.integers(2, 5), st.integers(2, 7)), elements=st.floats(0, 1)))
def test_a_seed_takes_no_part_in_choosing_what_it_reports(values):
    found = cross_fit(values)
    for seed in range(values.shape[1]):
        others = [k for k in range(values.shape[1]) if (k - seed) % 2]
        assert found.chosen[seed] == np.argmax(values[:, others].mean(axis=1))
        assert found.values[seed] == values[found.chosen[seed], seed]


def test_no_luck_of_the_winner():
    """Fifty settings that are equally good: the best looks better than it is, the cross-fitted value does not."""
    rng = np.random.default_rng(0)
    best, honest = [], []
    for _ in range(300):
        values = rng.normal(size=(50, 10))
        found = cross_fit(values)
        best.append(values[found.best].mean())
        honest.append(found.values.mean())
    assert np.mean(best) > 0.6
    assert np.mean(honest) == pytest.approx(0, abs=0.06)
