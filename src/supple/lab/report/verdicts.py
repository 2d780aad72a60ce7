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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from supple.lab.report import statistics
from supple.lab.report.statistics import NOTHING, Array, Interval
from supple.lab.report.texts import listed

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
    """What a statement says about a mean difference: that it is above or below 0, less than the margin away from 0, or
    not as far below it as the margin.

    Supported if the interval lies there, and contradicted if the mean clearly does not. ABOVE and BELOW are supported
    also if all of six or more differences say so, as one run that diverged makes the interval wide but no method
    better, and contradicted also if the interval lies within the margin. Of shares NOT_BELOW is supported if no pair
    is below 0, or those above 0 are more than the exact test has by chance; contradicted if those below 0 are.
    """

    ABOVE = "above 0"
    BELOW = "below 0"
    WITHIN = "within the margin"
    NOT_BELOW = "not below"


@dataclass(frozen=True, eq=False)
class Statement:
    """A statement about the mean of differences [pairs] such as "SWR − CBP", in the setting ``place``.

    Differences within the ``margin`` do not matter. The unit "points" is for shares, shown times 100, others are shown
    as they are. ``shares`` are differences of 0 or 1 for a run, of which it says NOT_BELOW; where others are
    ``agreeing``, NOT_BELOW too is supported if all of six or more say so.
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

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers it says that the mean lies."""
        low = {Says.ABOVE: 0.0, Says.BELOW: -math.inf}.get(self.says, -self.margin)
        high = {Says.BELOW: 0.0, Says.WITHIN: self.margin}.get(self.says, math.inf)
        return low, high


@dataclass(frozen=True, eq=False)
class Judged:
    """A statement with its verdict, and the interval of the mean difference; a difference of shares has none.

    ``p`` is the probability of such differences, or more contrary ones, if the statement were just not contradicted,
    adjusted over the statements of the claim; NaN with fewer than two pairs. About so many pairs as ``needed`` would
    decide; None where that is not known or not asked. ``unanimous``: not the interval but all pairs support it.
    """

    statement: Statement
    interval: Interval
    p: float
    verdict: Verdict
    needed: int | None = None
    unanimous: bool = False


@dataclass(frozen=True)
class Missing:
    """Runs that a claim needs and that are not there, and the command that would run them."""

    what: str
    command: str


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of a paper, how it is tested, and what the runs say about it.

    ``scale`` has for each setting that was smaller than the paper's, how much.
    """

    id: str
    text: str
    tested: str
    verdict: Verdict
    evidence: Sequence[Judged]
    missing: Sequence[Missing] = ()
    scale: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


def judge(statements: Sequence[Statement]) -> list[Judged]:
    """Judges the statements of one claim."""
    adjusted = statistics.holm([contradiction_p(statement) for statement in statements])
    return [_judged(statement, float(p)) for statement, p in zip(statements, adjusted, strict=True)]


def together(verdicts: Sequence[Verdict], missing: bool) -> Verdict:
    """The verdict on a claim: contradicted if one of its statements is, supported if all are and no run is missing."""
    if Verdict.CONTRADICTED in verdicts:
        return Verdict.CONTRADICTED
    if missing or not verdicts or Verdict.NOT_ENOUGH in verdicts:
        return Verdict.NOT_ENOUGH
    return Verdict.SUPPORTED


def contradiction_p(statement: Statement) -> float:
    """The p-value of the test that would contradict a statement; NaN with fewer than two pairs."""
    d, margin, (low, high) = statement.differences, statement.margin, statement.bounds
    if len(d) < 2:
        return math.nan
    if statement.shares:
        return statistics.sign_p(-d)
    mean = float(d.mean())
    contrary = statistics.paired_p(d, low) if mean < low else statistics.paired_p(d, high) if mean > high else 1.0
    if statement.says in (Says.WITHIN, Says.NOT_BELOW):
        return contrary
    if unanimous(-d if statement.says is Says.ABOVE else d):
        contrary = min(contrary, 2.0 ** (1 - len(d)))
    return min(contrary, statistics.equivalence_p(d, margin)) if abs(mean) < margin else contrary


def unanimous(d: Array) -> bool:
    """Whether there are :data:`UNANIMOUS` differences [pairs] or more, and all of them are above 0."""
    return len(d) >= UNANIMOUS and bool((d > 0).all())


def _judged(statement: Statement, p: float) -> Judged:
    found = statistics.mean_interval(statement.differences)
    if statement.shares:
        found = NOTHING._replace(mean=found.mean)
    held, agreed = _holds(statement, found), _all_agree(statement)
    if held or agreed:
        return Judged(statement, found, p, Verdict.SUPPORTED, unanimous=not held)
    if p < LEVEL:
        return Judged(statement, found, p, Verdict.CONTRADICTED)
    return Judged(statement, found, p, Verdict.NOT_ENOUGH, _needed(statement, found.mean))


def _holds(statement: Statement, interval: Interval) -> bool:
    """Whether the interval, or of shares the exact test, supports the statement."""
    if statement.shares:
        return statistics.sign_p(statement.differences) < LEVEL
    # With bounds on both sides and a 95% interval this is two one-sided tests at 2.5% each.
    low, high = statement.bounds
    return interval.low > low and interval.high < high


def _all_agree(statement: Statement) -> bool:
    """Whether the statement holds for each of enough pairs; that no run diverges more needs no number of them."""
    d, (low, high) = statement.differences, statement.bounds
    if statement.shares:
        return len(d) > 0 and bool((d >= 0).all())
    if statement.says is Says.WITHIN or (statement.says is Says.NOT_BELOW and not statement.agreeing):
        return False
    return unanimous(high - d if statement.says is Says.BELOW else d - low)


def _needed(statement: Statement, mean: float) -> int | None:
    """About how many pairs would decide: the interval has to leave out the nearest number that it must not hold."""
    if statement.shares:
        return None
    distance = min(abs(mean - bound) for bound in statement.bounds)
    if statement.says in (Says.ABOVE, Says.BELOW):
        # Undecided are both 0 and what is too small to matter; the first that is left out decides.
        distance = max(distance, statement.margin - distance)
    return statistics.pairs_needed(statement.differences, distance)


def summary(claims: Sequence[Claim]) -> str:
    """How many claims of a paper are supported, in a sentence; nothing where none are tested."""
    if not claims:
        return ""
    counts = Counter(claim.verdict for claim in claims)
    parts = []
    for verdict, verb in ((Verdict.SUPPORTED, "support"), (Verdict.CONTRADICTED, "contradict")):
        if counts[verdict]:
            ids = ", ".join(claim.id for claim in claims if claim.verdict is verdict)
            parts.append(f"{verb} {counts[verdict]} ({ids})")
    unclear = [claim for claim in claims if claim.verdict is Verdict.NOT_ENOUGH]
    begun = [claim.id for claim in unclear if claim.evidence]
    if begun:
        parts.append(f"are part of what decides {len(begun)} ({', '.join(begun)})")
    if len(unclear) > len(begun):
        parts.append(f"have nothing to say about {len(unclear) - len(begun)}")
    scaled = any(claim.scale for claim in claims if claim.evidence)
    small = " Some are smaller than the paper's; a verdict is about runs of this size." if scaled else ""
    return f"Of {len(claims)} claims of {claims[0].source} these runs {listed(parts)}.{small}"
