"""Spectral regularization."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional import random
from supple.functional.matrices import as_matrices, top_singular
from supple.functional.utility import precise
from supple.methods.arguments import holder, is_embedding, is_matrix, is_normalization, matrices_in
from supple.methods.regularizer import Regularizer
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.optim.replicated import Setting

_START = 20
"""Power iterations with which a method starts."""


class Spectral(Regularizer):
    """Spectral regularization: keeps the largest singular value of every weight matrix near one.

    The loss gets the term ``strength * R`` over all parameters, with k = ``power`` and s the largest singular value::

        R = (s(W)^k - 1)^2              of a weight W, as a matrix of outputs and inputs
            |b|^(2 k)                   of a bias, and of a normalization's shift
            sum (|g|^k - 1)^2           of a normalization's scale g

        dR/dW = 2 k (s^k - 1) s^(k-1) u v^T,    u and v the singular vectors of s

    Coupled (call :meth:`before_step` after ``backward()``), or with ``decoupled=True`` after the optimizer's step, as
    :class:`supple.L2Init`. s, u and v come from ``iterations`` power iterations a step that start where the last one
    ended; the vectors are part of :meth:`state_dict`.

    A convolution's weight is the matrix [out, in * height * width]; embeddings are left alone unless ``include`` names
    them. A matrix that is all zero, or not finite, is left alone, which :attr:`skipped` counts.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: multiple of the term, 0 or more.
        power: k, 1 or more.
        iterations: power iterations a step, 1 or more.
        blocks: how many matrices lie one below the other in a weight; see :class:`supple.Isometry`.
        decoupled: whether the weights follow beside the optimizer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or ``decoupled`` without an optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(4, 4, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.Spectral(model, optimizer, strength=1.0, decoupled=True)
        >>> for _ in range(300):
        ...     method.step()
        >>> round(float(torch.linalg.matrix_norm(model.weight.detach(), 2)), 3)
        1.0

    Source: Lewandowski, Bortkiewicz, Kumar, Gyorgy, Schuurmans, Ostaszewski and Machado, "Learning continually by
    spectral regularization" (ICLR 2025, arXiv 2406.06811). Written from its description: no official code was found,
    and the terms of biases and normalizations were not checked against the paper.
    """

    kept_whole = frozenset({"right"})
    about = About(
        "spectral",
        label="spectral",
        title="spectral regularization",
        colour="#762a83",
        dark="#a569b5",
        strength=("strength",),
        ranges={"strength": (1e-5, 0.01)},
        source="Lewandowski et al. (ICLR 2025, arXiv 2406.06811)",
        needs="before_step()",
        keeps="a vector a matrix",
        common=("power", "iterations"),
        cost=(0.027, 0.042),
    )

    pieces = "replicas"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 1e-4,
        power: int = 2,
        iterations: int = 1,
        blocks: Mapping[str, int] | None = None,
        decoupled: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, strength=strength, decoupled=decoupled, **shared)
        self.power = int(self.setting("power", power, 1, whole=True)[0])
        self.iterations = int(self.setting("iterations", iterations, 1, whole=True)[0])
        norms = {name for name in self.parameters if is_normalization(holder(self.model, name))}
        self._scales = {name for name in norms if name.endswith("weight")}
        matrices = {name: p for name, p in self.parameters.items() if p.ndim - self.stacked > 1 and name not in norms}
        self.matrices_in = matrices_in(self.model, matrices, blocks)
        self.take_up()

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on weight matrices, biases and normalizations."""
        of_units = is_normalization(module) or (parameter.ndim == 1 and not is_embedding(module))
        return of_units or is_matrix(name, module, parameter)

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps the right singular vector of each matrix of a weight, nearly: [R, blocks, in]."""
        if w.name not in self.matrices_in:
            return {}
        matrices = as_matrices(w.whole(precise(w.value)), self.matrices_in[w.name])
        width, blocks = matrices.shape[-1], self.matrices_in[w.name]
        key = random.purpose(type(self).__name__, "start", w.name)
        start = random.uniform(self.seed, key, 0, blocks * width).view(-1, width).to(matrices.dtype) - 0.5
        found = top_singular(matrices, start, _START)[2]
        # A matrix that is all zero yet, or not finite, has no such vector; from any other one it is found later.
        right = torch.where(found.norm(dim=-1, keepdim=True) > 0, found, start)
        return {"right": right.view(-1, blocks, width).contiguous()}

    def gradient(self, w: Weights) -> Tensor:
        """Works out dR/dw of a weight, a bias or a scale."""
        value, k = precise(w.value), self.power
        if w.name in self._scales:
            size = value.abs()
            return 2 * k * (size**k - 1) * size ** (k - 1) * value.sign()
        if w.name not in self.matrices_in:
            square = w.norm(value).square()
            known = square.isfinite()
            self.skip(~known, w.rows)
            known, square = (one.view(-1, *(1,) * (value.ndim - 1)) for one in (known, square))
            return torch.where(known, 2 * k * square ** (k - 1) * value, 0)
        whole, right = w.whole(value), self.kept["right"][w.name]
        matrices = as_matrices(whole, self.matrices_in[w.name])
        sigma, u, v = top_singular(matrices, right[w.rows].flatten(0, 1), self.iterations)
        known = ((sigma > 0) & (sigma < math.inf)).unsqueeze(-1)
        self.skip(~known.view(len(whole), -1).all(dim=1), w.rows)
        right[w.rows] = torch.where(known, v, right[w.rows].flatten(0, 1)).view(-1, *right.shape[1:])
        factor = 2 * k * (sigma**k - 1) * sigma ** (k - 1)
        u, v = torch.where(known, factor.unsqueeze(-1) * u, 0), torch.where(known, v, 0)
        return w.part((u.unsqueeze(-1) * v.unsqueeze(-2)).view(whole.shape))
