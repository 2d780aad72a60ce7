"""Bootstrap intervals: against resampling written out, in their coverage, and where there is little to resample."""

import itertools

import numpy as np
import pytest

from supple.lab.report.bootstrap import bootstrap_interval, interval_of
from supple.lab.report.statistics import mean_interval


def test_percentile_against_all_resamples():
    """With six values all 6^6 resamples can be listed."""
    values = np.array([0.31, 1.0, 1.27, 1.9, 2.53, 4.0])
    means = np.array(list(itertools.product(values, repeat=6))).mean(axis=1)
    mean, low, high = bootstrap_interval(values, 0.9, "percentile", resamples=40_000)
    assert mean == values.mean()
    np.testing.assert_allclose((low, high), np.quantile(means, (0.05, 0.95)), atol=0.03)


def test_bca_follows_the_skew():
    values = np.random.default_rng(0).exponential(size=30)
    mean, low, high = bootstrap_interval(values)
    assert high - mean > mean - low


def test_shapes_and_degenerate_values():
    values = np.random.default_rng(1).normal(size=(6, 2, 3))
    values[:, 1, 1] = 0.5
    mean, low, high = bootstrap_interval(values, resamples=499)
    assert mean.shape == low.shape == high.shape == (2, 3)
    assert (mean[1, 1], low[1, 1], high[1, 1]) == (0.5, 0.5, 0.5)
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert np.isnan(bootstrap_interval([1.0]).low)
    again = bootstrap_interval(values, resamples=499)
    np.testing.assert_array_equal(again.low, low)


def test_kinds():
    values = [1.0, 2.0, 4.0, 8.0]
    assert interval_of("student")(values) == mean_interval(values)
    assert interval_of("bca")(values).low != interval_of("percentile")(values).low
    with pytest.raises(ValueError, match="student, bca and percentile"):
        interval_of("normal")


@pytest.mark.parametrize(
    ("seeds", "kind", "draw", "mean", "expected"),
    [
        (5, "student", "normal", 0, 0.95),
        (5, "bca", "normal", 0, 0.832),
        (5, "bca", "exponential", 1, 0.797),
        (5, "percentile", "exponential", 1, 0.78),
        (30, "student", "exponential", 1, 0.93),
        (30, "bca", "normal", 0, 0.935),
        (30, "bca", "exponential", 1, 0.918),
    ],
)
def test_coverage(seeds, kind, draw, mean, expected):
    """The numbers of the module's docstring, which are why Student's is the default."""
    values = getattr(np.random.default_rng(4), draw)(size=(seeds, 1000))
    if kind == "student":
        _, low, high = mean_interval(values)
    else:
        _, low, high = bootstrap_interval(values, method=kind, resamples=999)
    # Two standard errors of each of the two simulations.
    assert np.mean((low <= mean) & (mean <= high)) == pytest.approx(expected, abs=0.03)
