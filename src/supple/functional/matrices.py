"""Weights as matrices: how far they are from isometries, and the nearest one."""

from __future__ import annotations

import torch
from torch import Tensor


def as_matrices(weight: Tensor, blocks: int = 1) -> Tensor:
    """Weights as matrices: the first dimension against all the others.

    Args:
        weight: [R, out, ...], such as [R, out, in, height, width] of a convolution.
        blocks: how many matrices lie one below the other, as those of queries, keys and values in one weight.

    Returns:
        [R * blocks, out / blocks, in * height * width], a view where the memory allows it.
    """
    return weight.reshape(len(weight) * blocks, weight.shape[1] // blocks, -1)


def isometry_gradient(matrices: Tensor, scale: float | Tensor = 1.0, groups: int = 1) -> Tensor:
    """The gradient of ``|W W^T - scale I|^2`` (Frobenius): 4 (W W^T - scale I) W.

    It is also that of ``|W^T W - scale I|^2``, which differs by a constant; the smaller of the two products is formed.

    Args:
        matrices: [..., out, in].
        scale: what the products of each row with itself are pulled to; a number, or [..., 1, 1].
        groups: the rows are taken in so many groups of neighbours, and only products within a group count.

    Returns:
        Same shape.
    """
    *_, out, width = matrices.shape
    if groups > 1:
        grouped = matrices.unflatten(-2, (groups, out // groups))
        scale = scale.unsqueeze(-3) if isinstance(scale, Tensor) else scale
        return isometry_gradient(grouped, scale).flatten(-3, -2)
    wide = out <= width
    gram = matrices @ matrices.mT if wide else matrices.mT @ matrices
    gram.diagonal(dim1=-2, dim2=-1).sub_(scale[..., 0] if isinstance(scale, Tensor) else scale)
    gram.mul_(4)
    return gram @ matrices if wide else matrices @ gram


def newton_schulz(matrices: Tensor, iterations: int = 10) -> Tensor:
    """Moves all singular values toward 1 by Newton-Schulz iterations, from W / |W| (Frobenius) on.

    Each iteration is X = 1.5 X - 0.5 X X^T X, which takes a singular value s to 1.5 s - 0.5 s^3. The limit is the
    orthogonal polar factor; a singular value below about 1.5^-iterations of the norm has not arrived there.

    Args:
        matrices: [..., out, in].
        iterations: how many, 0 or more.

    Returns:
        Same shape; not a number for a matrix of zeros.

    Source: Han et al., "FIRE" (ICLR 2026, arXiv 2602.08040); Bjorck and Bowie, "An iterative algorithm for computing
        the best estimate of an orthogonal matrix" (SIAM J. Numer. Anal. 8, 1971).
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    x = matrices.mT if wide else matrices
    x = x / x.flatten(-2).norm(dim=-1)[..., None, None]
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * (x @ (x.mT @ x))
    return x.mT if wide else x


def top_singular(matrices: Tensor, right: Tensor, iterations: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates the largest singular value and its vectors by power iteration.

    Args:
        matrices: [..., out, in].
        right: [..., in], where to start: a right singular vector of before, or anything not orthogonal to it.
        iterations: how many, 1 or more.

    Returns:
        (sigma [...], left vector [..., out], right vector [..., in]), sigma = left^T W right = |W^T left|. Zeros for a
        matrix of zeros.
    """
    for _ in range(iterations):
        left = torch.nn.functional.normalize((matrices @ right.unsqueeze(-1)).squeeze(-1), dim=-1)
        back = (matrices.mT @ left.unsqueeze(-1)).squeeze(-1)
        right = torch.nn.functional.normalize(back, dim=-1)
    return torch.linalg.vector_norm(back, dim=-1), left, right
