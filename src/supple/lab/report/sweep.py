"""The best setting of a sweep, and what it is worth on seeds that did not choose it.

The setting with the highest mean of ten is one that is good and was lucky; its own mean is too high an estimate, the
more so the more settings there are. So half of the seeds choose, the other half report, and then the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from supple.lab.report.statistics import Array


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What :func:`cross_fit` found.

    Args:
        best: the setting with the highest mean over all seeds.
        chosen: [seeds], for each seed the setting that the other half of the seeds chose.
        values: [seeds], the value of that setting for this seed; NaN where it has none.
        honest: whether no seed took part in choosing the setting it reports; not so with one seed, or where no setting
            that one half chose was run with the other.
    """

    best: int
    chosen: np.ndarray[tuple[int], np.dtype[np.intp]]
    values: Array
    honest: bool


def cross_fit(values: ArrayLike) -> CrossFit:
    """Chooses the best of several settings on one half of the seeds and reports it on the other, and the reverse.

    The halves are the seeds at even and at odd places. The reported values, one a seed, can be compared with those of
    another method seed by seed. Their mean estimates what choosing with half of the seeds gives, a little less than the
    best setting is truly worth.

    Args:
        values: [settings, seeds], the higher the better; NaN where a setting was not run with a seed.

    Returns:
        What was chosen and reported.

    Raises:
        ValueError: if there are no values.

    Source: the idea of cross-fitting, as in Chernozhukov et al., "Double/debiased machine learning", The Econometrics
        Journal 21, 2018.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or np.isnan(table).all():
        raise ValueError(f"values has shape {table.shape}; it has to be [settings, seeds] with one value or more")
    settings, seeds = table.shape
    best = _highest(table)
    if settings == 1 or seeds == 1:
        chosen = np.full(seeds, best)
        return CrossFit(best, chosen, table[chosen, np.arange(seeds)], honest=settings == 1)
    even, odd = np.arange(0, seeds, 2), np.arange(1, seeds, 2)
    chosen = np.empty(seeds, dtype=np.intp)
    chosen[even], chosen[odd] = _highest(table[:, odd], best), _highest(table[:, even], best)
    reported: Array = table[chosen, np.arange(seeds)]
    if np.isnan(reported).all():
        # In a sweep that has hardly begun no setting may have seeds of both halves.
        reported = table[np.full(seeds, best), np.arange(seeds)]
        return CrossFit(best, np.full(seeds, best), reported, honest=False)
    return CrossFit(best, chosen, reported, honest=True)


def _highest(table: Array, otherwise: int = 0) -> int:
    """The setting of the highest mean over the seeds that it has; the first of several."""
    there = ~np.isnan(table)
    if not there.any():
        return otherwise
    counts = there.sum(axis=1)
    means = np.where(there, table, 0.0).sum(axis=1) / np.maximum(counts, 1)
    return int(np.argmax(np.where(counts > 0, means, -np.inf)))
