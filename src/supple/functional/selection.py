"""Which weights or units are reinitialized, given their utilities.

Utilities have a row a replica, [R, n]; a selection is a mask of the same shape. Everything stays on the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def threshold(utility: Tensor, factor: Tensor, mean: Tensor | None = None) -> Tensor:
    """Selects utility <= factor * mean(utility); nothing where the factor is 0 or the mean is not finite.

    With a factor above 0 an entry of utility 0 is always selected, since utilities are 0 or more.

    Args:
        utility: [R, n], 0 or more.
        factor: [R], 0 or more.
        mean: [R], the mean utility; None: worked out. Given where it is known already, or the utilities are a part.

    Returns:
        bool [R, n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), threshold pruning; Sokar et al. (2023), equation 1, for units.
    """
    bound = factor.to(utility.dtype) * (utility.mean(dim=1) if mean is None else mean)
    bound = torch.where((factor > 0) & bound.isfinite(), bound, -math.inf)
    return utility <= bound.unsqueeze(1)


def lowest_order(utility: Tensor) -> Tensor:
    """Indices from the lowest utility to the highest; of equal ones the first comes first, NaN comes last.

    Args:
        utility: [R, n].

    Returns:
        int64 [R, n].
    """
    return utility.argsort(dim=1, stable=True)


def lowest(utility: Tensor, count: Tensor) -> Tensor:
    """Selects the ``count`` entries of lowest utility; of equal ones the first.

    Args:
        utility: [R, n].
        count: [R], 0 <= count <= n.

    Returns:
        bool [R, n], with ``count`` entries a row.
    """
    chosen = torch.arange(utility.shape[1], device=utility.device) < count.unsqueeze(1)
    return torch.zeros_like(chosen).scatter_(1, lowest_order(utility), chosen)


def proportional_count(size: int, factor: Tensor, uniform: Tensor) -> Tensor:
    """floor(factor * size), plus one with probability frac(factor * size).

    Args:
        size: number of entries.
        factor: float64 [R], 0 <= factor <= 1.
        uniform: [R], a uniform random number in (0, 1) each.

    Returns:
        int64 [R], at most ``size``.

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), proportional pruning.
    """
    expected = factor * size
    whole = expected.floor()
    return whole.to(torch.int64) + (uniform < expected - whole)


def accumulated_count(accumulator: Tensor, eligible: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Adds rate * eligible to an accumulator and takes its whole part out.

    Args:
        accumulator: float64 [...], 0 <= accumulator < 1.
        eligible: int64 [...], number of units older than the maturity threshold.
        rate: float64, broadcasts; replacement rate, 0 <= rate <= 1.

    Returns:
        (count, accumulator): int64, how many units to replace now, at most ``eligible``; and what remains.

    Source: Dohare et al. (2024), "Loss of plasticity in deep continual learning", Nature 632, algorithm 1.
    """
    filled = accumulator + rate * eligible
    # Rounding may lift a sum just below a whole number onto it.
    whole = filled.floor().minimum(eligible.to(filled.dtype))
    return whole.to(torch.int64), filled - whole
