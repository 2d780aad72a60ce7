"""Statistics over seeds, as small functions on arrays.

A result has a value for each seed; seeds are the only thing that varies independently, so all intervals are over seeds.
They are Student's, which hold with few seeds: with five from a normal distribution a 95% interval covers the true mean
in 95% of cases, and with five from an exponential distribution, which is very skewed, in 88%.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
        mean: the mean over seeds, an array.
        low: lower end; NaN where there is no interval.
        high: upper end; NaN where there is no interval.
    """

    mean: Array
    low: Array
    high: Array


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean over seeds with Student's confidence interval, mean +- t s / sqrt(n).

    Exact where values are normally distributed, and a good approximation where each is itself an average.

    Args:
        values: [seeds, ...].
        confidence: nominal coverage, between 0 and 1.

    Returns:
        Arrays [...]. With one seed there is no interval.

    Raises:
        ValueError: if there is no seed, or ``confidence`` is out of range.

    Source: Student, "The probable error of a mean", Biometrika 6(1), 1908.
    """
    samples = checked_samples(values, confidence)
    count, mean = len(samples), samples.mean(axis=0)
    if count == 1:
        return Interval(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = stats.t.ppf((1 + confidence) / 2, count - 1) * samples.std(axis=0, ddof=1) / np.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def finite_interval(values: ArrayLike) -> Interval:
    """The mean and Student's 95% interval over those seeds whose value is finite.

    Args:
        values: [seeds, n].

    Returns:
        Arrays [n]; NaN where no seed has a finite value.
    """
    samples = np.asarray(values, dtype=np.float64)
    found = np.full((3, samples.shape[1]), np.nan)
    there = np.isfinite(samples)
    whole = there.all(axis=0) & there.any(axis=0)
    if whole.any():
        found[:, whole] = mean_interval(samples[:, whole])
    for k in np.flatnonzero(there.any(axis=0) & ~whole):
        found[:, k] = mean_interval(samples[there[:, k], k])
    return Interval(*found)


def checked_samples(values: ArrayLike, confidence: float) -> Array:
    """Values as float64, checked.

    Args:
        values: [seeds, ...].
        confidence: nominal coverage of an interval.

    Returns:
        The values [seeds, ...].

    Raises:
        ValueError: if there is no seed, or ``confidence`` is out of range.
    """
    samples = np.asarray(values, dtype=np.float64)
    if samples.ndim == 0 or not len(samples):
        raise ValueError(f"values has shape {samples.shape}; it has to be [seeds, ...] with one seed or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it has to be between 0 and 1, such as 0.95")
    return samples


def window(tasks: int, share: float = 0.2) -> int:
    """How many tasks the beginning and the end of a run have: a share of all, rounded, and at least 1.

    Args:
        tasks: tasks of the run.
        share: the share.

    Returns:
        The number.
    """
    return max(1, round(share * tasks))


def bin_width(tasks: int, bins: int = 25) -> int:
    """The smallest number of tasks a bin with which there are at most ``bins`` of them.

    Args:
        tasks: tasks of the run.
        bins: the largest number of bins.

    Returns:
        The number.
    """
    return -(-tasks // bins)


def bin_means(values: ArrayLike, width: int) -> tuple[Array, Array]:
    """Averages over neighbouring tasks.

    Args:
        values: [tasks, ...].
        width: tasks a bin; the last bin has those that are left.

    Returns:
        (centre [bins], the mean number of a bin's tasks when the first is task 1; mean [bins, ...]).
    """
    given = np.asarray(values, dtype=np.float64)
    starts = np.arange(0, len(given), width)
    sizes = np.diff([*starts, len(given)])
    means = np.add.reduceat(given, starts, axis=0) / sizes.reshape(-1, *(1,) * (given.ndim - 1))
    return starts + (sizes + 1) / 2, means
