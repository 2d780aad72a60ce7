"""Parseval regularization."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.matrices import isometry_gradient
from supple.methods.isometry import Isometry
from supple.methods.settings import About, Shared
from supple.optim.replicated import Setting


class Parseval(Isometry):
    """Parseval regularization: pulls the rows of every hidden layer's weights toward orthogonality and one length.

    For each weight W but the last layer's, as a matrix of outputs and inputs, the loss gets the term ``strength * R``::

        R = |W W^T - scale * I|^2            (Frobenius)
        dR/dW = 4 (W W^T - scale * I) W

    It is :class:`supple.Isometry` with the defaults of its paper: coupled (call :meth:`before_step` after
    ``backward()``), hidden layers only, ``scale`` the squared gain of the initialization, 2 for ReLU. The authors' code
    multiplies ``strength`` by (64 / width)^2, since it was tuned at a width of 64. Where a layer has more outputs than
    inputs, as the first one may, W W^T cannot be a multiple of I and the term stays above 0.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: multiple of the term, 0 or more.
        scale: the squared length of rows, above 0.
        groups: rows are taken in so many groups of neighbours, and only those of one group have to be orthogonal; it
            has to divide the outputs of every layer.
        normalize_rows: whether rows are divided by their length first, so that only their directions count.
        last_layer: whether it acts on the network's last layer too.
        blocks: how many matrices lie one below the other in a weight; see :class:`supple.Isometry`.
        decoupled: whether the weights follow beside the optimizer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, there is no weight matrix, or ``decoupled`` without an optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> method = supple.Parseval(model, strength=1e-3)
        >>> model(torch.zeros(1, 4)).sum().backward()
        >>> method.before_step()
        >>> W, I = model[0].weight.detach(), torch.eye(4)
        >>> torch.allclose(model[0].weight.grad, 1e-3 * 4 * (W @ W.T - 2 * I) @ W)
        True

    Source: Chung, Cherif, Precup and Meger, "Parseval regularization for continual reinforcement learning" (NeurIPS
    2024, arXiv 2412.07224), and its code.
    """

    about = About(
        "parseval",
        label="Parseval",
        title="Parseval regularization",
        colour="#4d9221",
        dark="#7fbc41",
        strength=("strength",),
        ranges={"strength": (1e-5, 0.01)},
        source="Chung et al. (NeurIPS 2024, arXiv 2412.07224)",
        needs="before_step()",
        common=("groups",),
        cost=(0.207, 0.304),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 1e-3,
        scale: Setting = 2.0,
        groups: int = 1,
        normalize_rows: bool = False,
        last_layer: bool = False,
        blocks: Mapping[str, int] | None = None,
        decoupled: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            optimizer,
            strength=strength,
            scale=scale,
            last_layer=last_layer,
            blocks=blocks,
            decoupled=decoupled,
            **shared,
        )
        self.groups = int(self.setting("groups", groups, 1, whole=True)[0])
        self.normalizes = self.switch("normalize_rows", normalize_rows)
        for name, parameter in self.parameters.items():
            outputs = parameter.shape[int(self.stacked)] // self.matrices_in[name]
            if outputs % self.groups:
                raise ValueError(f"groups is {groups}; it has to divide the {outputs} outputs of {name}")

    def gradient_of_matrices(self, matrices: Tensor, scale: Tensor) -> Tensor:
        """The gradient for some matrices: [M, out, in] and [M, 1, 1] to [M, out, in]."""
        if not self.normalizes:
            return isometry_gradient(matrices, scale, self.groups)
        length = matrices.norm(dim=-1, keepdim=True)
        rows = torch.where(length == 0, 0, matrices / length)
        outer = isometry_gradient(rows, scale, self.groups)
        along = (outer * rows).sum(dim=-1, keepdim=True)
        return torch.where(length == 0, 0, (outer - along * rows) / length)
