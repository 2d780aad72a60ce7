"""Half precision: sums are worked out in more digits and rounded by chance, so that small changes are not lost.

Between two neighbours of bfloat16 lie 0.4 to 0.8 percent of a number. Rounded to the nearest, a weight that loses one
part in ten thousand at each step never changes. Rounded by chance, up with the probability of the distance to the lower
neighbour, it is right on average: Gupta, Agrawal, Gopalakrishnan and Narayanan, "Deep learning with limited numerical
precision" (ICML 2015), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
"""The types in which small changes are lost."""

_POWER = 0x7FF0 << 48
"""The bits of a float64 that say which power of two it is at least."""


def precise_type(dtype: torch.dtype) -> torch.dtype:
    """The type to work something out in: float32 for half precision, any other type itself.

    Args:
        dtype: type of a tensor.

    Returns:
        The type.
    """
    return torch.float32 if dtype in HALF else dtype


def spacing(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from numbers to their neighbours in a type, on the side away from 0.

    Args:
        value: any shape.
        dtype: float16 or bfloat16.

    Returns:
        float64 of the same shape.
    """
    limits = torch.finfo(dtype)
    power = (value.double().view(torch.int64) & _POWER).view(torch.float64)
    return power.clamp_(min=limits.smallest_normal).mul_(limits.eps)


def add_by_chance(tensor: Tensor, change: Tensor, uniform: Tensor) -> Tensor:
    """A tensor in half precision plus a change: one of the two neighbours of each sum, right on average.

    A sum x between neighbours a < b becomes b with probability (x - a) / (b - a). A sum that the type has stays as it
    is; one beyond the largest number of the type, or that is not a number, is as rounding to the nearest makes it.

    Args:
        tensor: float16 or bfloat16.
        change: any floating-point type, same shape.
        uniform: float32 random numbers in (0, 1), same shape.

    Returns:
        Same shape and type as ``tensor``.
    """
    return round_by_chance(tensor.double().add_(change), tensor.dtype, uniform)


def round_by_chance(value: Tensor, dtype: torch.dtype, uniform: Tensor) -> Tensor:
    """Numbers in half precision, each as one of its two neighbours there, as :func:`add_by_chance` has sums.

    Args:
        value: any floating-point type and shape.
        dtype: float16 or bfloat16.
        uniform: float32 random numbers in (0, 1), same shape.

    Returns:
        Same shape, of the type.
    """
    value = value.double()
    step = spacing(value, dtype)
    steps = value / step
    below = steps.floor()
    rounded = (uniform < steps.sub_(below)).to(torch.float64).add_(below).mul_(step)
    return torch.where(value.abs() < torch.finfo(dtype).max, rounded, value).to(dtype)


def perturbation(value: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """Noise for numbers in half precision whose variance is right once the sum has been rounded by chance.

    Rounding adds a variance of its own, of a sixth of the squared spacing s where the noise is wider than that. There
    the noise is made so much narrower; where it is not, it is -std^2 / s or std^2 / s, which rounding makes a step of s
    with the probability that gives the variance std^2.

    Args:
        value: float16 or bfloat16.
        noise: standard normal, float32, same shape.
        std: standard deviation wanted, above 0, broadcasts.

    Returns:
        float32 of the same shape, to be added by :func:`add_by_chance`.
    """
    share = spacing(value, value.dtype).to(noise.dtype) / std
    return torch.where(share > 1, noise.sign() / share, noise * (1 - share.square() / 6).clamp_(min=0).sqrt()) * std
