"""Normalize and project: the projection."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.arguments import holder, is_matrix, is_normalization
from supple.methods.settings import About, Shared
from supple.methods.weights import WeightMethod, Weights
from supple.methods.when import Every
from supple.optim.replicated import Setting


class NaP(WeightMethod):
    """The projection of normalize-and-project: every ``frequency`` steps, gives each weight its norm of the start.

    For each weight W that a normalization follows, with the Frobenius norm rho it had when the method was made::

        W = rho * W / |W|

    so that weights do not grow and the effective step size does not shrink. The network's function stays the same where
    a normalization follows the layer directly and the layer has no bias; put one before each activation
    (:func:`supple.surgery.layer_norm`), which is the other half of the method. With ``norms="project"`` the scale s and
    the shift b of each normalization of width n are projected together, which leaves the function of a network of
    ReLUs the same up to a factor a layer::

        (s, b) = sqrt(n) * (s, b) / sqrt(|s|^2 + |b|^2)

    It acts on the weights of two and more dimensions, a convolution's as one tensor, but not on embeddings and the
    network's last layer, which no normalization follows; ``include`` and ``exclude`` say otherwise. A matrix that is
    all zero, or not finite, is left alone, which :attr:`skipped` counts.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        frequency: steps from one projection to the next, 1 or more.
        norms: "keep" leaves scales and shifts alone, "project" projects them.
        last_layer: whether the last layer is projected too.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or there is no weight matrix to act on.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
        >>> method = supple.NaP(model)
        >>> norm = model[0].weight.norm().item()
        >>> with torch.no_grad():
        ...     _ = model[0].weight.mul_(3)
        >>> method.step()
        >>> abs(model[0].weight.norm().item() - norm) < 1e-5
        True

    Source: Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu and Dabney, "Normalization and effective learning
    rates in reinforcement learning" (NeurIPS 2024, arXiv 2407.01800). Written from its description; no official code
    was found, and what becomes of scales and shifts was not checked against the paper.
    """

    reads_gradients = False
    about = About(
        "nap",
        label="NaP",
        title="normalize and project",
        colour="#e7298a",
        dark="#f06bb0",
        strength=(),
        ranges={"frequency": (1, 2000)},
        source="Lyle et al. (NeurIPS 2024, arXiv 2407.01800)",
        keeps="a number a matrix",
        cost=(0.008, 0.009),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 1,
        norms: Literal["keep", "project"] = "keep",
        last_layer: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        self.last_layer = last_layer
        self._projects_norms = norms == "project"
        super().__init__(model, optimizer, **shared)
        period = self.setting("frequency", frequency, 1, whole=True)
        self.norms = self.option("norms", norms, ("keep", "project"))
        self.switch("last_layer", last_layer)
        self.when = Every(period, period > 0, self.device)
        self._norms = {name for name in self.parameters if is_normalization(holder(self.model, name))}
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps the norm of a matrix."""
        return {"norm": w.norm(precise(w.value))} if w.value.ndim > 2 and w.name not in self._norms else {}

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on weight matrices but the last, and on normalization layers where they are projected."""
        if is_normalization(module):
            return self._projects_norms
        return is_matrix(name, module, parameter) and (self.last_layer or self.layer_numbers[name] > 1)

    def rule(self, w: Weights) -> None:
        """Projects one parameter; a normalization's shift with its scale."""
        if w.name in self._norms:
            if self.norms == "project" and w.name.endswith("weight"):
                shift = w.name.removesuffix("weight") + "bias"
                parts = [w, Weights(self, shift, w.rows)] if shift in self.parameters else [w]
                self._project(w, parts, math.sqrt(w.block.whole.numel()))
        elif w.value.ndim > 2:
            self._project(w, [w], w.kept("norm"))

    def _project(self, w: Weights, parts: list[Weights], norm: Tensor | float) -> None:
        """Gives one or two parameters together a norm, [rows] or a number."""
        now = torch.stack([part.norm(precise(part.value)) for part in parts]).square().sum(dim=0).sqrt()
        known = now.isfinite() & (now > 0) & (norm > 0)
        self.skip(~known, w.rows)
        factor = torch.where(known, norm / now, 1)
        for part in parts:
            if part.parameter.requires_grad:
                part.set(precise(part.value).mul_(factor.view(-1, *(1,) * len(part.block.shape))))
