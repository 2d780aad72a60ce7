"""TRAC: a parameter-free scale for any optimizer's way from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.arguments import restore
from supple.methods.reshaping import Reshaping
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights

_TERMS = 90
"""Terms of the series of erfi, enough for arguments up to 5."""


class TRAC(Reshaping):
    """TRAC: scales how far the weights have gone from their start, by a parameter-free tuner.

    With w the weights before the optimizer's step, w' after it, w0 those when the method was made, g the gradients, and
    the scale s the sum of one s_j for each of ``betas``::

        D  = (w - w0) / (s + eps)                     the way the optimizer has gone
        h  = sum over all parameters of D g
        D  = D + (w' - w)
        v_j = beta_j^2 v_j + h^2
        m_j = beta_j m_j - h                          from 1e-8 on
        s_j = first / erfi(1 / sqrt 2) * erfi(m_j / (sqrt(2 v_j) + eps))
        w  = w0 + max(s, 0) * D

    so a network goes back toward its start while that is better than what it learned, and needs no tuning. Until the
    scale has grown from ``first`` the weights hardly move. erfi is the imaginary error function, exact here; the
    authors' program has an approximation that is up to 1% off.

    Call :meth:`before_step` after ``backward()`` and :meth:`step` after ``optimizer.step()``. The weights at the start
    are kept beside the parameters and saved in :meth:`state_dict`, a copy of the weights during a step. Parameters
    without gradient stay as they are.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, which tells where the gradients are of something to maximize.
        betas: discounts of the tuners, each above 0 and below 1.
        first: the scale to begin with, in parts (the authors' s_prev), above 0.
        eps: above 0.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> method = supple.TRAC(model, optimizer)
        >>> before = float(model.weight.detach())
        >>> model(torch.ones(1, 1)).sum().backward()
        >>> method.before_step(); optimizer.step(); method.step()
        >>> 0 < before - float(model.weight.detach()) < 1e-6  # the optimizer went by 1
        True

    Source: Muppidi, Zhang and Yang, "Fast TRAC: a parameter-free optimizer for lifelong reinforcement learning"
    (NeurIPS 2024, arXiv 2405.16642), algorithm 1, and its code.
    """

    about = About(
        "trac",
        label="TRAC",
        title="parameter-free scale",
        colour="#542788",
        dark="#998ec3",
        strength=(),
        ranges={"first": (1e-8, 1e-6, 1e-4)},
        source="Muppidi et al. (NeurIPS 2024, arXiv 2405.16642)",
        needs="gradients, before_step()",
        keeps="a copy of the weights",
        common=("first", "eps"),
        cost=(0.05, 0.062),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        betas: Sequence[float] = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999),
        first: float = 1e-8,
        eps: float = 1e-8,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        if not betas or not all(0 < beta < 1 for beta in betas):
            raise ValueError(f"betas is {betas!r}; each has to be above 0 and below 1")
        self.settings["betas"] = tuple(betas)
        self.betas = torch.tensor(betas, dtype=torch.float64, device=self.device)
        self.first = float(self.setting("first", first, torch.finfo(torch.float64).tiny)[0])
        self.eps = float(self.setting("eps", eps, torch.finfo(torch.float64).tiny)[0])
        zeros = torch.zeros(self.replicas, len(betas), dtype=torch.float64, device=self.device)
        self.tuners = {"variance": zeros, "sigma": torch.full_like(zeros, 1e-8), "scale": zeros.clone()}
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps one parameter as it is."""
        return {"start": w.value.clone()}

    def _act_before_step(self) -> None:
        self._changes: dict[str, Tensor] = {}
        super()._act_before_step()
        changes = torch.stack([*self._changes.values()])
        for known in changes.isfinite():
            self.skip(~known)
        self._advance(changes.nan_to_num_(0, 0, 0).sum(dim=0))

    def rule_before_step(self, w: Weights) -> None:
        """Keeps one parameter as it is before the step, and works out how the loss changes along the way gone."""
        super().rule_before_step(w)
        way = precise(w.value) - precise(w.kept("start"))
        change = w.block.total(way.mul_(precise(w.grad)).reshape(len(way), -1).double().sum(dim=1))
        if w.name not in self._changes:
            self._changes[w.name] = torch.zeros_like(self.tuners["scale"][:, 0])
        self._changes[w.name][w.rows] += -change if self.maximizes(w.parameter) else change

    def _advance(self, change: Tensor) -> None:
        """Lets the tuners see the change of each replica along its way, [R], which times 1 / (s + eps) is h."""
        tuners = self.tuners
        self._inverse = 1 / (tuners["scale"].sum(dim=1) + self.eps)
        change = (change * self._inverse).unsqueeze(1)
        tuners["variance"].mul_(self.betas**2).add_(change**2)
        tuners["sigma"].mul_(self.betas).sub_(change)
        argument = tuners["sigma"] / (math.sqrt(2) * tuners["variance"].sqrt() + self.eps)
        half = torch.tensor(1 / math.sqrt(2), dtype=torch.float64, device=self.device)
        tuners["scale"].copy_(self.first * erfi(argument) / erfi(half))
        self._scale = tuners["scale"].sum(dim=1).clamp(min=0)

    def rule(self, w: Weights) -> None:
        """Scales the way of one parameter."""
        if w.name not in self.before:
            return
        start, before = precise(w.kept("start")), precise(w.of(self.before[w.name]))
        way = precise(w.value).sub_(before)
        way.addcmul_(before.sub_(start), w.each(self._inverse))
        w.set(torch.addcmul(start, way, w.each(self._scale), out=way))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped; see :meth:`supple.Method.state_dict`."""
        return super().state_dict() | {"tuners": {name: tensor.clone() for name, tensor in self.tuners.items()}}

    def _load(self, state: Mapping[str, Any]) -> None:
        restore(self.tuners, state["tuners"])
        super()._load(state)


def erfi(x: Tensor) -> Tensor:
    """The imaginary error function, 2 / sqrt(pi) times the integral of exp(t^2) from 0 to x.

    By its power series up to 5, whose terms all have one sign, and by the asymptotic one beyond.

    Args:
        x: float64, any shape; beyond 26 it is taken as 26, where the value leaves the range of float64.

    Returns:
        Same shape.
    """
    size = x.abs().clamp(max=26).unsqueeze(-1)
    n = torch.arange(_TERMS, dtype=x.dtype, device=x.device)
    small = size.clamp(max=5)
    terms = torch.exp((2 * n + 1) * small.clamp(min=1e-300).log() - torch.lgamma(n + 1)) / (2 * n + 1)
    series = 2 / math.sqrt(math.pi) * terms.sum(dim=-1)
    big = size.clamp(min=5)
    k = n[1:25]
    ratios = torch.cat([torch.ones_like(big), ((2 * k - 1) / (2 * big**2)).cumprod(dim=-1)], dim=-1)
    asymptotic = (torch.exp(big**2) / (big * math.sqrt(math.pi)) * ratios).sum(dim=-1)
    found = torch.where(size.squeeze(-1) <= 5, series, asymptotic)
    return torch.where(x == 0, 0, x.sign() * found)
