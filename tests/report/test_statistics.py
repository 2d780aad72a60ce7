"""Intervals against published tables, a slow bootstrap and coverage by simulation; bins against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supple.report.statistics import bin_means, bin_width, bootstrap_interval, mean_interval, window


def test_student_by_hand():
    # t(0.975, 4) = 2.776 and t(0.95, 4) = 2.132 from any table; 1, ..., 5 have standard deviation sqrt(2.5).
    error = np.sqrt(2.5 / 5)
    for confidence, t in ((0.95, 2.776445), (0.9, 2.131847)):
        mean, low, high = mean_interval([1, 2, 3, 4, 5], confidence)
        assert mean == 3
        np.testing.assert_allclose((low, high), (3 - t * error, 3 + t * error), rtol=1e-6)


def test_shapes_and_one_seed():
    values = np.random.default_rng(0).normal(size=(4, 3, 2))
    for interval in (mean_interval, bootstrap_interval):
        mean, low, high = interval(values)
        assert mean.shape == low.shape == high.shape == (3, 2)
        for place in np.ndindex(3, 2):
            alone = interval(values[:, place[0], place[1]])
            np.testing.assert_allclose((mean[place], low[place], high[place]), alone)
        mean, low, high = interval(values[:1])
        np.testing.assert_array_equal(mean, values[0])
        assert np.isnan(low).all()
        assert np.isnan(high).all()


@pytest.mark.parametrize("interval", [mean_interval, bootstrap_interval])
def test_constant_values_and_bad_arguments(interval):
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="one seed or more"):
        interval([])
    with pytest.raises(ValueError, match=r"confidence is 95.*between 0 and 1"):
        interval([1, 2], 95)


def test_bootstrap_is_the_same_each_time_and_near_a_slow_percentile_bootstrap():
    values = np.random.default_rng(1).normal(size=30)
    mean, low, high = bootstrap_interval(values)
    assert bootstrap_interval(values) == (mean, low, high)
    rng = np.random.default_rng(2)
    means = sorted(np.mean([values[rng.integers(30)] for _ in range(30)]) for _ in range(4000))
    # For a symmetric distribution BCa and the percentiles differ little: by less than a tenth of the width.
    np.testing.assert_allclose((low, high), (means[100], means[3900]), atol=0.1 * (high - low))


def coverage(interval, draw, true_mean, seeds=5, repeats=4000):
    """Share of samples whose interval holds the true mean."""
    samples = draw(np.random.default_rng(3), (seeds, repeats))
    _, low, high = interval(samples)
    return np.mean((low <= true_mean) & (true_mean <= high))


def test_coverage_with_five_seeds():
    """Why reports use Student's interval; the numbers are those of the module's docstring.

    The standard error of a coverage near 0.9 is 0.005 with 4,000 repeats and 0.013 with 600.
    """

    def normal(rng, shape):
        return rng.normal(size=shape)

    def skewed(rng, shape):
        return rng.exponential(size=shape)

    def few_resamples(values):
        return bootstrap_interval(values, resamples=999)

    assert coverage(mean_interval, normal, 0) == pytest.approx(0.95, abs=0.015)
    assert coverage(mean_interval, skewed, 1) == pytest.approx(0.88, abs=0.02)
    assert coverage(few_resamples, normal, 0, repeats=600) == pytest.approx(0.84, abs=0.04)
    assert coverage(few_resamples, skewed, 1, repeats=600) == pytest.approx(0.81, abs=0.04)


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
