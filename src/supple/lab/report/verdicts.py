"""What paired differences say about a statement: it holds, it does not, or there are too few runs to tell.

A claim is a conjunction of statements about mean differences. It is supported if each of them is, judged by its own
95% interval: all must hold, so that there are several does not make a false "supported" more likely. One of them is
enough to contradict a claim, so p-values of contradictions are adjusted by Holm's method over all its statements.

Shares of runs are judged by counts instead: pairs of which both diverged or neither say nothing, and each of the others
is as likely to be either way if the shares are equal (McNemar's test, exact).

Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
Psychometrika 12, 1947.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy import stats

from supple.lab.report.paired import equivalent, holm, paired_p, pairs_needed
from supple.lab.report.statistics import Array, Interval, mean_interval

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

    Of shares NOT_BELOW, without a margin, is supported if no pair is below 0, or if those above 0 are more than the
    exact test has by chance; contradicted if those below 0 are.
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
        shares: whether each difference is of 0 or 1 for a run, so that its mean is one of shares; says NOT_BELOW.
        agreeing: whether NOT_BELOW too is supported where all of six or more differences say so.
    """

    words: str
    differences: Array
    says: Says
    margin: float = 0.0
    unit: str = "points"
    note: str = ""
    place: str = ""
    shares: bool = False
    agreeing: bool = False


@dataclass(frozen=True, eq=False)
class Judged:
    """A statement with its verdict.

    Args:
        statement: the statement.
        interval: of the mean difference, 95%; a difference of shares has none.
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
        if statement.shares:
            found = found._replace(low=nothing.low, high=nothing.high)
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
    if statement.shares:
        return sign_p(-d)
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


def sign_p(d: Array) -> float:
    """Two-sided p-value of the exact sign test that differences are as often above 0 as below.

    Args:
        d: the differences [pairs]; those that are 0 do not count.

    Returns:
        2 P(Bin(n, 1/2) >= k) for the k of n that are above 0; 1 if k is not more than half of n.
    """
    above, below = int((d > 0).sum()), int((d < 0).sum())
    return 2 * float(stats.binom.sf(above - 1, above + below, 0.5)) if above > below else 1.0


def _equivalence_p(d: Array, margin: float) -> float:
    """p-value of two one-sided tests, doubled as the two-sided others are; 1 without a margin."""
    if not abs(float(d.mean())) < margin:
        return 1.0
    error = float(d.std(ddof=1)) / math.sqrt(len(d))
    if error == 0:
        return 0.0
    return min(1.0, 2 * float(stats.t.sf((margin - abs(float(d.mean()))) / error, len(d) - 1)))


def _holds(statement: Statement, interval: Interval) -> bool:
    """Whether the interval, or of shares the exact test, supports the statement."""
    if statement.shares:
        return sign_p(statement.differences) < LEVEL
    if statement.says is Says.WITHIN:
        return equivalent(interval, statement.margin)
    if statement.says is Says.NOT_BELOW:
        return bool(interval.low > -statement.margin)
    return bool(interval.low > 0 if statement.says is Says.ABOVE else interval.high < 0)


def _all_agree(statement: Statement) -> bool:
    """Whether the statement holds for each of enough pairs; that no run diverges more needs no number of them."""
    d = statement.differences
    if statement.shares:
        return len(d) > 0 and bool((d >= 0).all())
    if statement.says is Says.NOT_BELOW:
        return statement.agreeing and unanimous(d + statement.margin)
    return (statement.says is Says.ABOVE and unanimous(d)) or (statement.says is Says.BELOW and unanimous(-d))


def _needed(judged: Judged) -> int | None:
    """About how many pairs would decide: the interval has to leave out the nearest number that it must not hold."""
    statement, mean = judged.statement, float(judged.interval.mean)
    if statement.shares:
        return None
    if statement.says is Says.NOT_BELOW:
        limits = [-statement.margin]
    elif statement.says is Says.WITHIN:
        limits = [-statement.margin, statement.margin]
    else:
        # Undecided are both 0 and what is too small to matter; the first that is left out decides.
        return pairs_needed(statement.differences, max(abs(mean), statement.margin - abs(mean)))
    return pairs_needed(statement.differences, min(abs(mean - limit) for limit in limits))
