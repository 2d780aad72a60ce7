"""UPGD: utility-based perturbed gradient descent."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.noise import StepNoise
from supple.methods.reshaping import Reshaping
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class UPGD(Reshaping):
    """Utility-based perturbed gradient descent: useful weights move less, and useless ones are perturbed.

    With w the weight before the optimizer's step, d what the optimizer made of it, g the gradient and t the number of
    steps in which the parameter had one::

        U = decay * U + (1 - decay) * (-g w)                average utility, V = U / (1 - decay^t)
        S = sigmoid(V / max(U))                             scaling="global": the largest of all parameters
            sigmoid(V / |row of V|)                         scaling="local": the row's Euclidean norm
        n = lr * std * noise,    noise ~ Normal(0, 1)

        w = (1 - lr * weight_decay) * w + factor * (d - n) * (1 - S)         protect=True
            (1 - lr * weight_decay) * w + factor * (d - n * (1 - S))         protect=False

    On ``torch.optim.SGD`` with no momentum and decay this is the published UPGD, on ``torch.optim.Adam`` with
    ``factor=2`` AdaUPGD; the optimizer's own weight decay is part of d, so give it here instead. A row is along the
    last dimension: of a convolution's weight a row of a kernel, of a bias all of it. Where no utility is above 0 the
    largest magnitude stands for the maximum, and where all are 0, S is 1/2. As in the authors' code the maximum is that
    of U, not of V.

    Call :meth:`before_step` after ``backward()`` and :meth:`step` after ``optimizer.step()``. Utility and a copy of the
    weights during a step are kept beside the parameters. The noise is that of :class:`supple.ShrinkAndPerturb`, another
    one on another kind of device. Parameters without gradient stay as the optimizer left them.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, for the step size.
        std: standard deviation of the noise (the paper's sigma), 0 or more.
        decay: decay of the average utility (the paper's beta), 0 <= decay < 1.
        weight_decay: multiplied by the step size, 0 or more.
        scaling: "global" or "local".
        protect: whether useful weights are protected from the update, not from the noise only.
        factor: multiple of the update and the noise, above 0.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or there is no optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.UPGD(model, optimizer, std=0.0)
        >>> before = float(model.weight.detach())
        >>> model(torch.ones(1, 1)).sum().backward()
        >>> method.before_step(); optimizer.step(); method.step()
        >>> 0 <= before - float(model.weight.detach()) < 0.1 + 1e-6  # SGD alone goes by 0.1
        True

    Source: Elsayed and Mahmood, "Addressing loss of plasticity and catastrophic forgetting in continual learning" (ICLR
    2024, arXiv 2404.00781), algorithm 1, and its code; AdaUPGD from the code alone.
    """

    about = About(
        "upgd",
        label="UPGD",
        title="utility-based perturbed gradient descent",
        colour="#d6604d",
        dark="#f4a582",
        strength=(),
        ranges={"std": (1e-3, 0.1), "decay": (0.9, 0.999, 0.9999), "weight_decay": (1e-4, 0.01)},
        source="Elsayed and Mahmood (ICLR 2024, arXiv 2404.00781)",
        needs="gradients, before_step(), the step size",
        keeps="a number a weight",
        cost=(0.16, 0.193),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        std: Setting = 1e-3,
        decay: Setting = 0.999,
        weight_decay: Setting = 0.0,
        scaling: Literal["global", "local"] = "global",
        protect: bool = True,
        factor: Setting = 1.0,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        for parameter in filter(attrgetter("requires_grad"), self.parameters.values()):
            self.step_size(parameter)
        self.std = self.setting("std", std, 0).to(self.device)
        self.decay = self.setting("decay", decay, 0, 1 - 2.0**-24).to(self.device)
        self.weight_decay = self.setting("weight_decay", weight_decay, 0).to(self.device)
        self.scaling = self.option("scaling", scaling, ("global", "local"))
        self.protect = self.switch("protect", protect)
        self.factor = self.setting("factor", factor, 2.0**-24).to(self.device)
        self._follow_seed()
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps a utility of one parameter, and the step after which it is followed."""
        return {"utility": torch.zeros_like(precise(w.value)), "since": torch.full_like(self.seed, self.steps)}

    def _follow_seed(self) -> None:
        sizes = {name: block.whole.numel() for name, block in self.blocks.items()}
        self._noise = StepNoise(type(self).__name__, self.seed, sizes) if bool((self.std > 0).any()) else None

    def _act_before_step(self) -> None:
        self._most = torch.full((self.replicas,), -math.inf, device=self.device, dtype=torch.float64)
        self._least, self._sums = -self._most, dict[str, Tensor]()
        super()._act_before_step()
        for sums in self._sums.values():
            self.skip(~sums.isfinite())

        most = torch.where(self._most > 0, self._most, -self._least)
        self._scale = torch.where(most > 0, most, 1)

    def _act(self) -> None:
        if self._noise is not None:
            self._noise.begin(self.steps, self.parameters)
        super()._act()
        if self._noise is not None:
            self._noise.end()

    def rule_before_step(self, w: Weights) -> None:
        """Keeps one parameter as it is before the step, and follows its utility."""
        super().rule_before_step(w)
        decay, average = w.each(self.decay), w.kept("utility")
        added = 1 - decay if self.maximizes(w.parameter) else decay - 1  # of what is maximized the loss is the negative
        utility = precise(w.value) * precise(w.grad)
        if w.name not in self._sums:
            self._sums[w.name] = torch.zeros_like(self._most)
        self._sums[w.name][w.rows] += w.block.total(utility.reshape(len(utility), -1).sum(dim=1).to(self._most.dtype))
        # What is not finite, as after an overflow, must not stay in the average.
        average.mul_(decay).addcmul_(utility.nan_to_num_(0, 0, 0), added)
        if self.scaling == "global":
            whole = w.whole(average).reshape(len(average), -1)
            most, least = self._most[w.rows], self._least[w.rows]
            torch.maximum(most, whole.amax(dim=1).to(most.dtype), out=most)
            torch.minimum(least, whole.amin(dim=1).to(least.dtype), out=least)

    def rest(self, w: Weights) -> None:
        """Does not count a step in which a parameter has no gradient, so that its utility does not follow."""
        self.kept["since"][w.name][w.rows] += 1

    def _factors(self, w: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """Multiples of the utility, the noise and the weights before the step of one parameter, [R] each."""
        size, steps = self.step_size(w.parameter), self.steps - self.kept["since"][w.name]
        inverse = -1 / (self._scale * (1 - self.decay**steps))
        return inverse, -self.std * size, 1 - self.weight_decay * size

    def rule(self, w: Weights) -> None:
        """Takes the step of one parameter again, as UPGD takes it."""
        if w.name not in self.before:
            return
        start, utility = precise(w.of(self.before[w.name])), w.kept("utility")
        inverse, noisy, keep = w.once(self._factors)
        if self.scaling == "global":
            minus = utility * w.each(inverse)
        else:
            whole = w.whole(utility)
            minus = w.part(nn.functional.normalize(whole, dim=-1) if whole.ndim > 1 else whole.sign()).neg()
        free = minus.sigmoid_()  # 1 - sigmoid(x) is sigmoid(-x)
        update = precise(w.value).sub_(start)
        if self._noise is not None:
            noise = self._noise.of(w).to(start.dtype)
            update.addcmul_(noise if self.protect else noise * free, w.each(noisy))
        if self.protect:
            update.mul_(free)
        start.mul_(w.each(keep))
        w.set(torch.addcmul(start, update, w.each(self.factor), out=update))
