"""What paired differences say about a statement: it holds, it does not, or there are too few runs to tell.

A claim is a conjunction of statements about mean differences. It is supported if each of them is, judged by its own
95% interval: all must hold, so that there are several does not make a false "supported" more likely. One of them is
enough to contradict a claim, so p-values of contradictions are adjusted by Holm's method over all its statements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy import stats

from supple.report.paired import equivalent, holm, paired_p, pairs_needed
from supple.report.statistics import Array, Interval, mean_interval

UNANIMOUS = 6
"""So many pairs that all say the same are clear without an interval: by the sign test p is 2 / 2^6 = 0.031, or less."""

LEVEL = 0.05
"""Level of the tests that contradict a claim, all of its statements taken together. A difference that is claimed to be
above 0 and is smaller than the margin counts as none: such a claim is contradicted although it is true to the letter.
"""


class Verdict(str, Enum):
    """What runs say about a statement."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    NOT_ENOUGH = "not enough runs"


class Says(str, Enum):
    """What a statement says about a mean difference d, given a margin m of what does not matter.

    - ABOVE: d > 0. Supported if the interval lies above 0, or all of six or more differences do: one run that diverged
      makes the interval wide, but it does not make a method better that is behind in every other pair. Contradicted if
      d < 0, or if the interval lies within the margin without lying above 0.
    - BELOW: d < 0, the reverse.
    - WITHIN: |d| < m. Supported if the interval lies within the margin; contradicted if d is beyond it.
    - NOT_BELOW: d > -m. Supported if the interval lies above -m; contradicted if d < -m.
    """

    ABOVE = "above 0"
    BELOW = "below 0"
    WITHIN = "within the margin"
    NOT_BELOW = "not below"


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement about a mean difference, and the differences that were measured.

    Args:
        words: what is measured, such as "SWR − CBP".
        differences: [pairs].
        says: what it says about their mean.
        margin: the largest difference that does not matter; 0: every difference matters.
        unit: "points" for shares, shown times 100, or a unit that is shown as it is.
        note: what else has to be known, such as runs that diverged.
        place: the setting that it is about.
    """

    words: str
    differences: Array
    says: Says
    margin: float = 0.0
    unit: str = "points"
    note: str = ""
    place: str = ""


@dataclass(frozen=True, eq=False)
class Judged:
    """A statement with its verdict.

    Args:
        statement: the statement.
        interval: of the mean difference, 95%.
        p: probability of such differences, or more contrary ones, if the statement were just not contradicted; adjusted
            over the statements of the claim; NaN with fewer than two pairs.
        verdict: what follows.
        needed: about how many pairs would decide; None where that is not known or not asked.
        unanimous: whether not the interval but the agreement of all pairs supports it.
    """

    statement: Statement
    interval: Interval
    p: float
    verdict: Verdict
    needed: int | None = None
    unanimous: bool = False


def judge(statements: Sequence[Statement], interval: Callable[[Array], Interval] = mean_interval) -> list[Judged]:
    """Judges the statements of one claim.

    Args:
        statements: the statements.
        interval: makes a 95% interval of differences [pairs].

    Returns:
        A verdict a statement.
    """
    adjusted = holm([contradiction_p(statement) for statement in statements])
    judged = []
    for statement, p in zip(statements, adjusted, strict=True):
        pairs = len(statement.differences)
        nothing = Interval(*(np.array(np.nan),) * 3)
        found = interval(statement.differences) if pairs else nothing
        held, agreed = _holds(statement, found), _all_agree(statement)
        contrary = Verdict.CONTRADICTED if p < LEVEL else Verdict.NOT_ENOUGH
        verdict = Verdict.SUPPORTED if held or agreed else contrary
        one = Judged(statement, found, float(p), verdict, unanimous=agreed and not held)
        judged.append(replace(one, needed=_needed(one)) if verdict is Verdict.NOT_ENOUGH else one)
    return judged


def together(verdicts: Sequence[Verdict], missing: bool) -> Verdict:
    """The verdict on a claim.

    Args:
        verdicts: those on its statements.
        missing: whether runs are missing for others.

    Returns:
        Contradicted if one is, supported if all are and nothing is missing.
    """
    if Verdict.CONTRADICTED in verdicts:
        return Verdict.CONTRADICTED
    if missing or not verdicts or Verdict.NOT_ENOUGH in verdicts:
        return Verdict.NOT_ENOUGH
    return Verdict.SUPPORTED


def contradiction_p(statement: Statement) -> float:
    """The p-value of the test that would contradict a statement.

    Args:
        statement: the statement.

    Returns:
        The probability, between 0 and 1; NaN with fewer than two pairs.
    """
    d, margin = statement.differences, statement.margin
    if len(d) < 2:
        return math.nan
    mean = float(d.mean())
    if statement.says is Says.WITHIN:
        return max(0.0, float(paired_p(d, math.copysign(margin, mean)))) if abs(mean) > margin else 1.0
    if statement.says is Says.NOT_BELOW:
        return float(paired_p(d, -margin)) if mean < -margin else 1.0
    sign = 1.0 if statement.says is Says.ABOVE else -1.0
    contrary = float(paired_p(d)) if sign * mean < 0 else 1.0
    if unanimous(-sign * d):
        contrary = min(contrary, 2.0 ** (1 - len(d)))
    return min(contrary, _equivalence_p(d, margin))


def unanimous(d: Array) -> bool:
    """Whether each of enough differences is above 0.

    Args:
        d: the differences [pairs].

    Returns:
        Whether there are :data:`UNANIMOUS` or more, and all are.
    """
    return len(d) >= UNANIMOUS and bool((d > 0).all())


def _equivalence_p(d: Array, margin: float) -> float:
    """p-value of two one-sided tests, doubled as the two-sided others are; 1 without a margin."""
    if not abs(float(d.mean())) < margin:
        return 1.0
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if error == 0:
        return 0.0
    return min(1.0, 2 * float(stats.t.sf((margin - abs(float(d.mean()))) / error, len(d) - 1)))


def _holds(statement: Statement, interval: Interval) -> bool:
    """Whether the interval supports the statement."""
    if statement.says is Says.WITHIN:
        return equivalent(interval, statement.margin)
    if statement.says is Says.NOT_BELOW:
        return bool(interval.low > -statement.margin)
    return bool(interval.low > 0 if statement.says is Says.ABOVE else interval.high < 0)


def _all_agree(statement: Statement) -> bool:
    """Whether the statement holds for each of enough pairs."""
    d = statement.differences
    return (statement.says is Says.ABOVE and unanimous(d)) or (statement.says is Says.BELOW and unanimous(-d))


def _needed(judged: Judged) -> int | None:
    """About how many pairs would decide: the interval has to leave out the nearest number that it must not hold."""
    statement, mean = judged.statement, float(judged.interval.mean)
    if statement.says is Says.NOT_BELOW:
        limits = [-statement.margin]
    elif statement.says is Says.WITHIN:
        limits = [-statement.margin, statement.margin]
    else:
        # Undecided are both 0 and what is too small to matter; the first that is left out decides.
        return pairs_needed(statement.differences, max(abs(mean), statement.margin - abs(mean)))
    return pairs_needed(statement.differences, min(abs(mean - limit) for limit in limits))
