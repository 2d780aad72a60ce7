"""Intervals against published tables, coverage by simulation; bins against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.report.statistics import bin_means, bin_width, mean_interval, window


def test_student_by_hand():
    # t(0.975, 4) = 2.776 and t(0.95, 4) = 2.132 from any table; 1, ..., 5 have standard deviation sqrt(2.5).
    error = np.sqrt(2.5 / 5)
    for confidence, t in ((0.95, 2.776445), (0.9, 2.131847)):
        mean, low, high = mean_interval([1, 2, 3, 4, 5], confidence)
        assert mean == 3
        np.testing.assert_allclose((low, high), (3 - t * error, 3 + t * error), rtol=1e-6)


def test_shapes_and_one_seed():
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    mean, low, high = mean_interval(values)
    assert mean.shape == low.shape == high.shape == (3, 2)
    for place in np.ndindex(3, 2):
        alone = mean_interval(values[:, place[0], place[1]])
        np.testing.assert_allclose((mean[place], low[place], high[place]), alone)
    mean, low, high = mean_interval(values[:1])
    np.testing.assert_array_equal(mean, values[0])
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_constant_values_and_bad_arguments():
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="one seed or more"):
        mean_interval([])
    with pytest.raises(ValueError, match=r"confidence is 95.*between 0 and 1"):
        mean_interval([1, 2], 95)


def coverage(draw, true_mean, seeds=5, repeats=4000):
    """Share of samples whose interval holds the true mean."""
    _, low, high = mean_interval(draw(np.random.default_rng(3), (seeds, repeats)))
    return np.mean((low <= true_mean) & (true_mean <= high))


def test_coverage_with_five_seeds():
    """The numbers of the module's docstring; the standard error of a coverage near 0.9 is 0.005."""

    def normal(rng, shape):
        return rng.normal(size=shape)

    def skewed(rng, shape):
        return rng.exponential(size=shape)

    assert coverage(normal, 0) == pytest.approx(0.95, abs=0.015)
    assert coverage(skewed, 1) == pytest.approx(0.88, abs=0.02)


@given(st.integers(1, 40), st.integers(1, 15))
def test_bins(tasks, width):
    values = np.random.default_rng(tasks).normal(size=(tasks, 2))
    centres, means = bin_means(values, width)
    numbers = range(1, tasks + 1)
    chunks = [list(numbers[start : start + width]) for start in range(0, tasks, width)]
    np.testing.assert_allclose(centres, [sum(chunk) / len(chunk) for chunk in chunks])
    np.testing.assert_allclose(means, [values[[k - 1 for k in chunk]].mean(axis=0) for chunk in chunks])


@given(st.integers(1, 2000), st.integers(1, 50))
def test_bin_width_is_the_smallest_that_fits(tasks, bins):
    width = bin_width(tasks, bins)
    assert -(-tasks // width) <= bins
    assert width == 1 or -(-tasks // (width - 1)) > bins


def test_window():
    assert [window(tasks) for tasks in (2, 4, 7, 100, 1000)] == [1, 1, 1, 20, 200]
