"""UPGD: utility-based perturbed gradient descent."""

from __future__ import annotations

from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.noise import StepNoise, noise_of
from supple.methods.reshaping import Reshaping
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.methods.when import ALL
from supple.optim.replicated import Setting


class UPGD(Reshaping):
    """Utility-based perturbed gradient descent: useful weights move less, and useless ones are perturbed.

    With w the weight before the optimizer's step, d what the optimizer made of it, g the gradient and t the number of
    steps::

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
        >>> model(torch.zeros(1, 1)).sum().backward()  # no gradient: no utility, and nothing to change
        >>> method.before_step(); optimizer.step(); method.step()
        >>> float(model.weight.detach()) == before
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
        cost=(0.323, 0.598),
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

    def _act(self) -> None:
        self._drawn = iter(()) if self._noise is None else self._noise.draws(self.steps, self.parameters)
        self._most: Tensor | None = None
        try:
            super()._act()
        finally:
            self._drawn = iter(())  # nothing of a step's noise is kept, and a method can be copied

    def rule_before_step(self, w: Weights) -> None:
        """Keeps one parameter as it is before the step, and follows its utility."""
        super().rule_before_step(w)
        decay = w.each(self.decay)
        utility = precise(w.value) * precise(w.grad)
        w.kept("utility").mul_(decay).sub_((1 - decay) * utility)

    def _maximum(self) -> Tensor:
        """The largest utility of each replica: [R]."""
        found = []
        for name in self.before:
            w = Weights(self, name, ALL)
            found.append(w.whole(w.kept("utility")).reshape(self.replicas, -1))
        # What is not finite, as of a row that an overflow reached, must not stop the others.
        found = [torch.nan_to_num(one, nan=0, posinf=0, neginf=0) for one in found]
        most = torch.stack([one.amax(dim=1) for one in found]).amax(dim=0)
        size = torch.stack([one.abs().amax(dim=1) for one in found]).amax(dim=0)
        most = torch.where(most > 0, most, size)
        return torch.where(most > 0, most, 1)

    def rule(self, w: Weights) -> None:
        """Takes the step of one parameter again, as UPGD takes it."""
        if w.name not in self.before:
            return
        start, size = precise(self.before[w.name]), self.step_size(w.parameter)
        utility = w.kept("utility") / w.each(1 - self.decay ** (self.steps - w.kept("since")))
        if self.scaling == "local":
            whole = w.whole(utility)
            scaled = w.part(nn.functional.normalize(whole, dim=-1) if whole.ndim > 1 else whole.sign())
        else:
            self._most = self._maximum() if self._most is None else self._most
            scaled = utility / w.each(self._most)
        free = 1 - torch.sigmoid(scaled)
        update = precise(w.value) - start
        noise = torch.zeros(())
        if self._noise is not None:
            noise = w.part(noise_of(self._drawn, w.name).view(-1, *w.block.whole)).to(start.dtype) * w.each(
                self.std * size
            )
        update = (update - noise) * free if self.protect else update - noise * free
        w.set(start * (1 - w.each(self.weight_decay * size)) + w.each(self.factor) * update)
