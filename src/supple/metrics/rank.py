"""How many directions the features of a layer, or a weight, span: three numbers that are all called rank, and differ.

Singular values come from the eigenvalues of the smaller Gram matrix in float64, many times faster than a singular value
decomposition of many examples; those below some 1e-8 of the largest are rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from supple.functional.matrices import top_singular

_EXACT = 2**31
"""Multiplications of a Gram matrix up to which a spectral norm is worked out exactly."""


def singular_values(matrices: Tensor) -> Tensor:
    """Singular values, the largest first; zeros for a matrix that is not all finite.

    Args:
        matrices: [..., E, n].

    Returns:
        float64 [..., min(E, n)].
    """
    matrices = matrices.double()
    # A network that has diverged must not take the others with it.
    matrices = torch.where(matrices.isfinite().all(dim=(-2, -1), keepdim=True), matrices, 0.0)
    if matrices.shape[-2] < matrices.shape[-1]:
        matrices = matrices.mT
    return torch.linalg.eigvalsh(matrices.mT @ matrices).clamp_(min=0).sqrt_().flip(-1)


def feature_rank(features: Tensor, share: float = 0.99) -> Tensor:
    """Number of singular values, from the largest on, whose sum reaches a share of the sum of all.

    Hernandez-Garcia et al. call it the stable rank, Kumar et al. the effective rank; see :func:`stable_rank` and
    :func:`effective_rank` for what else has these names. Features that are all 0, or not all finite, have rank 0.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        share: share of the sum, 0 < share <= 1.

    Returns:
        int64 [...].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), correlates of loss of plasticity; Kumar, Agarwal, Ghosh and
    Levine, "Implicit under-parameterization inhibits data-efficient deep reinforcement learning" (ICLR 2021),
    section 3.
    """
    return _reaching(singular_values(features), share)


def effective_rank(features: Tensor) -> Tensor:
    """The exponential of the entropy of the singular values, taken as shares of their sum.

    With p_k = s_k / (sum of all s): exp(-sum of p_k log p_k). Between 1, for one direction, and min(E, n), for equal
    ones. Features that are all 0, or not all finite, have rank 0.

    Args:
        features: [..., E, n], outputs of n units on E examples; they are not centred.

    Returns:
        float64 [...].

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (EUSIPCO 2007), definition 1.
    """
    return _entropic(singular_values(features))


def stable_rank(features: Tensor) -> Tensor:
    """The squared Frobenius norm over the squared spectral norm; 0 for what is all 0, or not all finite.

    Args:
        features: [..., E, n], outputs of n units on E examples, or a weight.

    Returns:
        float64 [...], 1 to min(E, n).

    Source: Rudelson and Vershynin, "Sampling from large matrices" (Journal of the ACM 54, 2007), section 1.
    """
    return _stable(singular_values(features))


class Ranks(NamedTuple):
    """The three ranks of the same features, each [...]."""

    feature: Tensor
    effective: Tensor
    stable: Tensor


def ranks(features: Tensor, share: float = 0.99) -> Ranks:
    """The three ranks of features, of which singular values are worked out once.

    Args:
        features: [..., E, n], outputs of n units on E examples.
        share: share of the sum for the feature rank, 0 < share <= 1.

    Returns:
        Feature rank, effective rank and stable rank.
    """
    values = singular_values(features)
    return Ranks(_reaching(values, share), _entropic(values), _stable(values))


def spectral_norm(matrices: Tensor) -> Tensor:
    """The largest singular value: by how much a layer can stretch what it takes in.

    It is exact up to rounding for matrices of up to 2^31 multiplications, such as 1024 x 2048. For larger ones 30
    power iterations give a value that is a little too small, by 1 or 2% for random weights.

    Args:
        matrices: [..., out, in].

    Returns:
        float64 [...]; 0 for a matrix that is not all finite.

    Source: Lewandowski et al., "Learning continually by spectral regularization" (ICLR 2025, arXiv 2406.06811).
    """
    out, width = matrices.shape[-2:]
    if min(out, width) * out * width <= _EXACT:
        return singular_values(matrices)[..., 0]
    finite = matrices.isfinite().all(dim=(-2, -1))
    # A start that is orthogonal to no likely vector, and the same each time.
    start = torch.arange(1, width + 1, device=matrices.device, dtype=torch.float64).mul_(0.618033988749895).frac() - 0.5
    start = start.to(matrices.dtype).expand(*matrices.shape[:-2], width)
    return torch.where(finite, top_singular(matrices, start, 30)[0].double(), 0)


def _reaching(values: Tensor, share: float) -> Tensor:
    total = values.sum(dim=-1, keepdim=True)
    reached = values.cumsum(dim=-1) >= share * total
    rank = values.shape[-1] - reached.sum(dim=-1) + 1
    # All ranks reach share of nothing; and rounding may keep the whole sum from being reached.
    return torch.where(total.squeeze(-1) > 0, rank.clamp_(max=values.shape[-1]), 0)


def _entropic(values: Tensor) -> Tensor:
    total = values.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(values / total).sum(dim=-1)
    return torch.where(total.squeeze(-1) > 0, entropy.exp(), 0)


def _stable(values: Tensor) -> Tensor:
    largest = values[..., 0]
    return torch.where(largest > 0, (values / largest.unsqueeze(-1)).square().sum(dim=-1), 0)
