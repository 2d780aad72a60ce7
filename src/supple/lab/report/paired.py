"""Differences between methods, seed by seed.

Runs of one seed start from the same weights and see the same batches, so most of what varies between seeds is common to
the methods compared and drops out of the difference of each pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from supple.lab.report.statistics import Array, Interval

Seed = TypeVar("Seed", bound=int)


def differences(first: Mapping[Seed, float], second: Mapping[Seed, float]) -> Array:
    """First minus second for the seeds that both have.

    Args:
        first: a value for each seed.
        second: a value for each seed.

    Returns:
        [pairs], in the order of the seeds.
    """
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())], dtype=np.float64)


def paired_p(values: ArrayLike, against: float = 0.0) -> Array:
    """Two-sided p-value of Student's paired test, that the mean difference is a given number.

    Args:
        values: differences [pairs, ...].
        against: the mean difference under the hypothesis.

    Returns:
        [...], between 0 and 1; NaN with fewer than two pairs. Where all pairs agree, it is 0 or, if they agree with the
        hypothesis, 1.

    Source: Student, "The probable error of a mean", Biometrika 6(1), 1908.
    """
    samples = np.asarray(values, dtype=np.float64) - against
    if len(samples) < 2:
        return np.full(samples.shape[1:], np.nan)
    mean, error = samples.mean(axis=0), samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, mean / error)
    return 2 * stats.t.sf(np.abs(t), len(samples) - 1)


def holm(p: ArrayLike) -> Array:
    """p-values adjusted for being several, by Holm's step-down method.

    Rejecting where the adjusted value is below a level keeps the probability of any false rejection below it, however
    the tests depend on each other.

    Args:
        p: [tests]; NaN stands for a test that could not be made, and does not count.

    Returns:
        [tests], each at least as large as before and at most 1; NaN stays.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    given = np.asarray(p, dtype=np.float64)
    adjusted = np.full_like(given, np.nan)
    order = [place for place in np.argsort(given, kind="stable") if not np.isnan(given[place])]
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * float(given[place])))
        adjusted[place] = largest
    return adjusted


def equivalent(interval: Interval, margin: float) -> bool:
    """Whether a difference is so small that it does not matter: its whole interval lies within the margin.

    With a 95% interval this is two one-sided tests at 2.5% each.

    Args:
        interval: of the difference.
        margin: the largest difference that does not matter.

    Returns:
        Whether it is; False where there is no interval.

    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
        equivalence of average bioavailability", Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.
    """
    return bool(interval.low > -margin and interval.high < margin)


def pairs_needed(values: ArrayLike, distance: float, confidence: float = 0.95) -> int | None:
    """About how many pairs make the interval of the mean shorter than a distance on either side.

    The smallest n with t(n - 1) s / sqrt(n) < distance, with the standard deviation s of the pairs there are.

    Args:
        values: differences [pairs].
        distance: how far the mean is from what would decide.
        confidence: nominal coverage of the interval.

    Returns:
        The number; None if fewer than two pairs or no distance leave it unknown, or if it is above 10,000.
    """
    samples = np.asarray(values, dtype=np.float64)
    if len(samples) < 2 or not distance > 0:
        return None
    enough = np.flatnonzero(samples.std(ddof=1) * _half_widths(confidence) < distance)
    return int(enough[0]) + 2 if len(enough) else None


@cache
def _half_widths(confidence: float) -> Array:
    """t(n - 1) / sqrt(n) for n = 2 to 10,000."""
    n = np.arange(2, 10_001)
    return stats.t.ppf((1 + confidence) / 2, n - 1) / np.sqrt(n)
