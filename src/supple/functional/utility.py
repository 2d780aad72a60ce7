"""How useful weights and hidden units are, and which of them are replaced, given their utilities.

Weight utilities take one parameter tensor of R networks, [R, ...]. Unit utilities take one layer of R networks: the
mean magnitude of its features, [R, n], and its outgoing weights with the units in front, [R, n, ...], one tensor for
each layer that reads the units. Utilities to choose by have a row a replica, [R, n]; a selection is a mask of the same
shape. Everything stays on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from supple.functional.rounding import HALF

_WORD = 0x7FFFFFFF


def precise(tensor: Tensor) -> Tensor:
    """Half-precision tensors as float32, in which means of many entries are still right; others as they are.

    Args:
        tensor: any shape.

    Returns:
        Same shape, at least float32.
    """
    return tensor.float() if tensor.dtype in HALF else tensor


def weight_gradient(weight: Tensor, gradient: Tensor) -> Tensor:
    """|w dL/dw|, the first-order change of the loss if the weight were set to zero.

    Args:
        weight: any shape, after the optimizer's update.
        gradient: the step's gradient, same shape.

    Returns:
        Same shape, at least float32.

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), selective weight reinitialization; the saliency of Mozer and
    Smolensky (1988).
    """
    if weight.dtype in HALF or gradient.dtype in HALF:
        weight, gradient = weight.float(), gradient.float()
    return (weight * gradient).abs_()


def weight_magnitude(weight: Tensor) -> Tensor:
    """|w|.

    Args:
        weight: any shape.

    Returns:
        Same shape, at least float32.

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), selective weight reinitialization.
    """
    return precise(weight).abs()


def _outgoing_sum(outgoing: Sequence[Tensor]) -> Tensor:
    return torch.stack([weights.flatten(2).sum(dim=2) for weights in outgoing]).sum(dim=0)


def unit_magnitude(outgoing: Sequence[Tensor]) -> Tensor:
    """Mean |W_out|, over all weights that leave a unit.

    Args:
        outgoing: for each layer that reads the units, its weights [R, n, ...].

    Returns:
        [R, n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), unit utilities.
    """
    weights_a_unit = sum(weights[0, 0].numel() for weights in outgoing)
    return _outgoing_sum([precise(weights).abs() for weights in outgoing]) / weights_a_unit


def unit_activation(features: Tensor) -> Tensor:
    """Mean |features|, over examples and positions.

    Args:
        features: [R, n, ...], the units' outputs; the rest are examples and positions.

    Returns:
        [R, n].

    Source: the dormancy score of Sokar et al. (2023), "The dormant neuron phenomenon in deep reinforcement learning",
    equation 1, before the division by the layer's mean.
    """
    return precise(features).abs().flatten(2).mean(dim=2)


def unit_contribution(activation: Tensor, outgoing: Sequence[Tensor]) -> Tensor:
    """Mean |features| * mean |W_out|.

    Args:
        activation: [R, n], from :func:`unit_activation`.
        outgoing: for each layer that reads the units, its weights [R, n, ...].

    Returns:
        [R, n].

    Source: Dohare et al. (2024), "Loss of plasticity in deep continual learning", Nature 632, equation 1, with the mean
    over outputs in place of the sum.
    """
    return activation * unit_magnitude(outgoing)


def unit_gradient(outgoing: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """|sum over outputs of W_out dL/dW_out|, the first-order change of the loss if the unit were cut off.

    Args:
        outgoing: for each layer that reads the units, its weights [R, n, ...].
        gradients: the gradients of these weights, same shapes.

    Returns:
        [R, n].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), unit utilities.
    """
    pairs = zip(outgoing, gradients, strict=True)
    return _outgoing_sum([precise(weights) * precise(gradient) for weights, gradient in pairs]).abs()


def unit_incoming(incoming: Sequence[Tensor]) -> Tensor:
    """Mean |W_in|, or mean |dL/dW_in|, over all weights that make a unit.

    Args:
        incoming: the weights that make the units, or the gradients of these, [R, n, ...].

    Returns:
        [R, n].

    Source: the program of Dohare et al. (2024), "Loss of plasticity in deep continual learning", whose utility
    "adaptation" is one over it; of gradients: Liu et al. (arXiv 2505.24061).
    """
    return torch.cat([precise(each).abs().flatten(2) for each in incoming], dim=2).mean(dim=2)


def below_threshold(utility: Tensor, factor: Tensor, mean: Tensor | None = None) -> Tensor:
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


def lowest_order(utility: Tensor, count: Tensor, words: Callable[[Tensor], Tensor]) -> Tensor:
    """Indices from the lowest utility to the highest, NaN last; among equal ones words decide who is in the first few.

    On a CPU words are only asked for, and only matter, where the last of the first ``count`` and the next are equal.
    Elsewhere that would have to be waited for, and all equal entries are in the order of their words.

    Args:
        utility: [R, n].
        count: [R], 0 <= count <= n, how many of the lowest are wanted.
        words: gives random words [M, n] for rows, int64 [M]; of equal words the first comes first.

    Returns:
        int64 [R, n].
    """
    size = utility.shape[1]
    if utility.device.type != "cpu":
        return _by_words(utility, words(torch.arange(len(utility), device=utility.device)))
    ordered, order = utility.sort(dim=1, stable=True)
    if size < 2:
        return order
    last = (count - 1).clamp(0, size - 2).unsqueeze(1)
    equal = (ordered.gather(1, last) == ordered.gather(1, last + 1)).squeeze(1)
    rows = torch.where(equal & (count > 0) & (count < size))[0]
    if len(rows):
        order[rows] = _by_words(utility[rows], words(rows))
    return order


def _by_words(utility: Tensor, words: Tensor) -> Tensor:
    """Indices by utility, then word, then index."""
    order = words.argsort(dim=1, stable=True)
    return order.gather(1, utility.gather(1, order).argsort(dim=1, stable=True))


def placed_by_rank(values: Tensor, ordered: Tensor) -> Tensor:
    """Gives each entry what has its rank in another list: the lowest of its row the first, and so on.

    Equal entries are in the order of their indices, and NaN is infinite.

    Args:
        values: [R, n].
        ordered: [R, n], from the lowest to the highest.

    Returns:
        [R, n], the rows of ``ordered`` in another order.
    """
    values = values.nan_to_num(math.inf, math.inf, -math.inf)
    if values.device.type != "cpu" or values.dtype != torch.float32 or values.shape[1] > _WORD:
        order = values.argsort(dim=1, stable=True)
    else:
        # numpy sorts whole numbers ten times as fast as torch sorts anything: the bits of a value, then its index.
        keys = values.add_(0.0).view(torch.int32)  # -0.0 is 0.0
        keys.bitwise_xor_((keys >> 31).bitwise_and_(_WORD))  # now in the order of the values, also below 0
        order = keys.long().bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[1]))
        order.numpy().sort(axis=1)
        order.bitwise_and_(_WORD)
    return torch.empty_like(ordered).scatter_(1, order, ordered)


def lowest(utility: Tensor, count: Tensor, words: Callable[[Tensor], Tensor]) -> Tensor:
    """Selects the ``count`` entries of lowest utility; of equal ones those of the lowest words.

    Args:
        utility: [R, n].
        count: [R], 0 <= count <= n.
        words: gives random words [M, n] for rows, int64 [M], as of :func:`lowest_order`.

    Returns:
        bool [R, n], with ``count`` entries a row.
    """
    chosen = torch.arange(utility.shape[1], device=utility.device) < count.unsqueeze(1)
    return torch.zeros_like(chosen).scatter_(1, lowest_order(utility, count, words), chosen)


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
