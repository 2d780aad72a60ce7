"""By how much one learner is slower than another, and what is to be said of it."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from supple.probing.curves import Array, Interval, interval, pairs_needed, steps_needed


class Judge(NamedTuple):
    """Compares learners of the same tasks.

    Args:
        start: the loss from which on it counts, of each seed [seeds].
        single: whether one network is probed.
        margin: the share by which networks may differ and still learn as fast as each other.
    """

    start: Array
    single: bool
    margin: float

    def change(self, ours: Array, theirs: Array) -> Array:
        """Says by which factor one learner needs more steps than the other.

        Args:
            ours: losses [seeds, points].
            theirs: the other's.

        Returns:
            Its logarithm [seeds]; NaN where neither learned anything.
        """
        mine, other = steps_needed(ours, theirs, self.start)
        return cast(Array, np.log(mine / other))

    def share(self, change: Array, single: bool | None = None) -> Interval:
        """Gives the mean of factors less one, and its interval.

        Args:
            change: logarithms of factors [seeds]; where neither learned anything, they were as fast.
            single: as for :func:`supple.probing.curves.interval`; None: whether one network is probed.

        Returns:
            The interval.
        """
        found = interval(np.nan_to_num(change), self.single if single is None else single)
        return Interval(*(float(np.expm1(end)) for end in found))

    def verdict(self, change: Array, budget: int) -> str:
        """Says how a network learns, compared with fresh ones.

        Args:
            change: logarithms of the factors by which it needs more steps than they [seeds].
            budget: how many steps both had.

        Returns:
            The verdict.
        """
        mean, low, high = self.share(change)
        if np.isnan(change).all():
            return f"cannot tell: nothing was learned in {budget} steps; give more, or another step size"
        if -self.margin <= low and high <= self.margin:
            return "learns as fast as fresh"
        if low > 0:
            return f"slower by {100 * mean:.0f}% ({100 * low:.0f} to {100 * high:.0f}%)"
        if high < 0:
            return f"faster by {-100 * mean:.0f}% ({-100 * high:.0f} to {-100 * low:.0f}%)"
        known = np.nan_to_num(change)
        distance = max(abs(float(known.mean())), float(np.log1p(self.margin)))
        more = pairs_needed(known, distance, self.single)
        if more is None:
            return "cannot tell: fresh networks differ as much from each other; probe several networks trained alike"
        return f"cannot tell: more seeds (about {more})"
