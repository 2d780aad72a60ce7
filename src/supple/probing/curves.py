"""How two learning curves differ in the steps that they need, and how sure that is over several seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its 98% interval; the ends are NaN where there is none."""

    mean: float
    low: float
    high: float


def points(curve: Iterable[float], most: int = 50) -> Array:
    """Makes a curve short and smooth: means over equal stretches.

    Args:
        curve: numbers [steps].
        most: the largest number of stretches.

    Returns:
        [stretches], as many as there are numbers where these are fewer.
    """
    numbers = np.asarray(list(curve), dtype=np.float64)
    return np.array([part.mean() for part in np.array_split(numbers, min(most, len(numbers)))])


def steps_needed(first: Array, second: Array, start: Array) -> tuple[Array, Array]:
    """Steps that two learners need to come down to a loss, as a mean over many losses.

    The losses lie evenly between a start and the lowest that either of the two reaches. One that a learner does not
    reach counts with all the steps there are, so that a learner which has stopped learning needs at least so many. The
    mean is the area under the lowest loss so far: no loss has to be chosen.

    Args:
        first: losses of one learner [pairs, points]; NaN and infinity are losses above all others.
        second: those of the other, on the same tasks.
        start: the loss from which on it counts [pairs].

    Returns:
        Points that the first and that the second needs [pairs], half a point or more; NaN for pairs in which neither
        came below the start.

    Example:
        >>> import numpy as np
        >>> fast, slow = np.array([[4.0, 2, 0, 0, 0]]), np.array([[4.0, 3, 2, 1, 0]])
        >>> steps_needed(fast, slow, start=np.array([4.0]))
        (array([1.5]), array([2.5]))
    """
    best = [np.minimum.accumulate(np.where(np.isfinite(each), each, np.inf), axis=1) for each in (first, second)]
    end = np.minimum(best[0][:, -1], best[1][:, -1])
    height = np.where(end < start, start - end, np.nan)[:, None]
    above = [np.clip(each - end[:, None], 0, height) / height for each in best]
    return np.maximum(above[0].sum(axis=1), 0.5), np.maximum(above[1].sum(axis=1), 0.5)


def steps_to(curves: Array, level: float) -> Array:
    """Points until a loss is reached.

    Args:
        curves: losses [pairs, points].
        level: the loss.

    Returns:
        [pairs]; all the points there are where it is not reached.
    """
    return np.cumprod(~(curves <= level), axis=1).sum(axis=1).astype(np.float64)


def interval(differences: ArrayLike, single: bool = False) -> Interval:
    """The mean of differences between pairs, with Student's 98% interval.

    It is mean ± t s / sqrt(n). That it leaves out 0 where there is no difference happens in 2 of 100 cases; of 95%
    intervals it was 5 or 6 in 100, as losses are not quite normally distributed. Where one of the two networks is the
    same in all pairs, it may be a lucky or an unlucky one, which more pairs do not show; the interval then is the one
    in which one more of the others would lie, mean ± t s sqrt(1 + 1 / n).

    Args:
        differences: [pairs].
        single: whether one of the networks is the same in all pairs.

    Returns:
        The interval; without ends for fewer than two pairs or numbers that are not finite.

    Example:
        >>> tuple(round(end, 3) for end in interval([1.0, 2.0, 3.0]))
        (2.0, -2.021, 6.021)

    Source: Student, "The probable error of a mean", Biometrika 6(1), 1908; for one more network: the prediction
    interval of Fisher, "The fiducial argument in statistical inference", Annals of Eugenics 6(4), 1935.
    """
    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    mean = float(values.mean()) if count else math.nan
    if count < 2 or not np.isfinite(values).all():
        return Interval(mean, math.nan, math.nan)
    half = student(count - 1) * float(values.std(ddof=1)) * math.sqrt(1 / count + single)
    return Interval(mean, mean - half, mean + half)


@lru_cache
def student(freedom: int, probability: float = 0.99) -> float:
    """A quantile of Student's distribution.

    With t = sqrt(freedom) tan(a) its density is proportional to cos(a) to the power of freedom - 1, which is summed up.

    Args:
        freedom: degrees of freedom, 1 or more.
        probability: of a smaller value, 0.5 to below 1.

    Returns:
        The quantile.

    Example:
        >>> round(student(4), 4)
        3.7469
    """
    edges = np.linspace(0, np.pi / 2, 20_001)
    middles = (edges[1:] + edges[:-1]) / 2
    mass = np.append(0.0, np.cumsum(np.cos(middles) ** (freedom - 1)))
    angle = np.interp((probability - 0.5) * 2, mass / mass[-1], edges)
    return math.sqrt(freedom) * math.tan(float(angle))


def pairs_needed(values: ArrayLike, distance: float, single: bool = False) -> int | None:
    """About how many pairs make the interval of the mean shorter than a distance on either side.

    Args:
        values: differences of the pairs that there are, two or more.
        distance: above 0.
        single: whether one of the networks is the same in all pairs.

    Returns:
        The number; None where it would be more than 1,000.
    """
    spread = float(np.std(np.asarray(values), ddof=1))
    enough = (n for n in range(2, 1001) if student(min(n - 1, 100)) * spread * math.sqrt(1 / n + single) < distance)
    return next(enough, None)
