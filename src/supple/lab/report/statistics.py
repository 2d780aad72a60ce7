"""Statistics over seeds, as small functions over arrays.

Seeds are the only thing that varies independently, so all intervals are over seeds. They are Student's, which hold with
few of them: with five from a normal distribution a 95% interval covers the true mean in 95% of cases, and with five
from an exponential distribution, which is very skewed, in 88% (bootstraps: 83% and 80%, see docs/report.md).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its 95% confidence interval; the ends are NaN where there is none."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval: one value gives none."""
        return math.isfinite(self.low)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


NOTHING = Interval(math.nan, math.nan, math.nan)
"""The interval of no values."""


def mean_interval(values: ArrayLike) -> Interval:
    """The mean of values [n] that are finite, with Student's 95% interval, mean ± t s / sqrt(n).

    Source: Student, "The probable error of a mean", Biometrika 6(1), 1908.
    """
    samples = np.asarray(values, dtype=np.float64)
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return NOTHING
    mean = float(samples.mean())
    if len(samples) == 1:
        return Interval(mean, math.nan, math.nan)
    low, high = _test(samples, 0.0).confidence_interval(0.95)
    return Interval(mean, float(low), float(high))


def mean_over(strata: Sequence[ArrayLike]) -> Interval:
    """The mean of the means of several samples, each [n] of two values or more, with Welch's 95% interval.

    With K samples and v = s² / n of each the half-width is t sqrt(sum v) / K, and t has (sum v)² / sum(v² / (n - 1))
    degrees of freedom. One sample gives :func:`mean_interval`.

    Source: Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947.
    """
    samples = [np.asarray(values, dtype=np.float64) for values in strata]
    mean = float(np.mean([one.mean() for one in samples]))
    n = np.array([len(one) for one in samples])
    if n.min() < 2:
        return Interval(mean, math.nan, math.nan)
    v = np.array([one.var(ddof=1) for one in samples]) / n
    if not v.any():
        return Interval(mean, mean, mean)
    half = float(stats.t.ppf(0.975, v.sum() ** 2 / (v**2 / (n - 1)).sum()) * np.sqrt(v.sum()) / len(samples))
    return Interval(mean, mean - half, mean + half)


def intervals(values: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """:func:`mean_interval` of the column "value" for each group of rows, as the columns "mean", "low" and "high"."""
    value = pl.col("value").cast(pl.Float64).filter(pl.col("value").is_finite())
    found = values.group_by(by, maintain_order=True).agg(mean=value.mean(), spread=value.std(), n=value.count())
    found = found.filter(pl.col("n") > 0).sort(by, maintain_order=True)
    n = found["n"].to_numpy()
    half = stats.t.ppf(0.975, n - 1) * found["spread"].cast(pl.Float64).fill_null(math.nan).to_numpy() / np.sqrt(n)
    mean = found["mean"].to_numpy()
    return found.select(*by, "mean", low=pl.Series(mean - half), high=pl.Series(mean + half))


def differences(first: Mapping[int, float], second: Mapping[int, float]) -> Array:
    """First minus second for the seeds that both have, in the order of the seeds.

    Runs of one seed start from the same weights and see the same batches, so most of what varies between seeds is
    common to the methods compared and drops out.
    """
    return np.array([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())], dtype=np.float64)


def paired_p(values: ArrayLike, against: float = 0.0) -> float:
    """Two-sided p-value of Student's test that the mean of differences [n] is a given number; NaN of fewer than two."""
    samples = np.asarray(values, dtype=np.float64)
    if len(samples) < 2:
        return math.nan
    return 1.0 if (samples == against).all() else float(_test(samples, against).pvalue)


def equivalence_p(values: Array, margin: float) -> float:
    """Two one-sided tests that the mean of differences [n] is within a margin, doubled as two-sided tests are.

    Source: Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
    equivalence of average bioavailability", Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.
    """
    above = float(_test(values, -margin, "greater").pvalue)
    below = float(_test(values, margin, "less").pvalue)
    return min(1.0, 2 * max(above, below))


def sign_p(values: Array) -> float:
    """Two-sided p-value of the exact sign test that differences [n] are above 0 as often as below.

    Those of 0 do not count, and where no more than half of the others are above 0 it is 1.
    """
    above, below = int((values > 0).sum()), int((values < 0).sum())
    return float(stats.binomtest(above, above + below).pvalue) if above > below else 1.0


def holm(p: ArrayLike) -> Array:
    """p-values [tests] adjusted for being several, by Holm's step-down method; NaN does not count and stays.

    Rejecting where the adjusted value is below a level keeps the probability of any false rejection below it, however
    the tests depend on each other.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    given = np.asarray(p, dtype=np.float64)
    order = np.argsort(given, kind="stable")[: np.isfinite(given).sum()]
    adjusted = np.full_like(given, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)))
    return adjusted


def pairs_needed(values: Array, distance: float) -> int | None:
    """About how many pairs make the interval of the mean shorter than a distance on either side.

    The smallest n with t(n - 1) s / sqrt(n) < distance, with the standard deviation s of the pairs there are; None
    where fewer than two pairs or no distance leave it unknown, or if it is above 10,000.
    """
    if len(values) < 2 or not distance > 0:
        return None
    n = np.arange(2, 10_001)
    enough = n[stats.t.ppf(0.975, n - 1) / np.sqrt(n) * values.std(ddof=1) < distance]
    return int(enough[0]) if len(enough) else None


def _test(values: Array, against: float, alternative: str = "two-sided") -> stats._stats_py.TtestResult:
    """Student's test; values that are all equal have no spread, which is no reason to warn."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return stats.ttest_1samp(values, against, alternative=alternative)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The setting with the highest mean over all seeds, and for each seed [seeds] the one that the other half chose.

    It is not ``honest`` where seeds took part in choosing the setting that they report: with one seed, or where no
    setting that one half chose was run with the other.
    """

    best: int
    chosen: NDArray[np.intp]
    honest: bool

    def of(self, values: Array) -> Array:
        """What each seed reports of values [settings, seeds]."""
        return np.asarray(values[self.chosen, np.arange(len(self.chosen))])


def cross_fit(values: ArrayLike) -> CrossFit:
    """Chooses the best of settings [settings, seeds] on one half of the seeds for the other, and the reverse.

    The setting with the highest mean is one that is good and was lucky; its own mean is too high an estimate. The
    halves are the seeds at even and at odd places; NaN is where a setting was not run with a seed.

    Source: the idea of cross-fitting, as in Chernozhukov et al., "Double/debiased machine learning", The Econometrics
    Journal 21, 2018.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or np.isnan(table).all():
        raise ValueError(f"values has shape {table.shape}; it has to be [settings, seeds] with one value or more")
    settings, seeds = table.shape
    best = _highest(table)
    overall = np.full(seeds, best)
    if settings == 1 or seeds == 1:
        return CrossFit(best, overall, honest=settings == 1)
    chosen = overall.copy()
    chosen[0::2], chosen[1::2] = _highest(table[:, 1::2], best), _highest(table[:, 0::2], best)
    found = CrossFit(best, chosen, honest=True)
    # In a sweep that has hardly begun no setting may have seeds of both halves.
    return CrossFit(best, overall, honest=False) if np.isnan(found.of(table)).all() else found


def _highest(table: Array, otherwise: int = 0) -> int:
    """The setting of the highest mean over the seeds that it has; the first of several."""
    means = np.ma.masked_invalid(table).mean(axis=1).filled(-np.inf)
    return int(means.argmax()) if np.isfinite(means).any() else otherwise
