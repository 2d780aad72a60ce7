"""Shrink and perturb."""

from __future__ import annotations

import torch
from torch import nn
from typing_extensions import Unpack

from supple.functional.rounding import HALF, perturbation
from supple.methods.l2 import L2
from supple.methods.noise import StepNoise
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.methods.when import ALL
from supple.optim.replicated import Setting


class ShrinkAndPerturb(L2):
    """Shrink and perturb: after each step, shrinks every parameter and adds a little noise.

    ::

        w = (1 - l2) * w + sqrt(variance) * noise,    noise ~ Normal(0, 1)

    The noise is a function of (seed, step) for one set of parameters on one kind of device; another kind of device
    gives other noise (:class:`supple.methods.noise.StepNoise`). In half precision sums are rounded by chance, so that
    means and variance are right all the same.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        l2: share taken off a step, 0 to 1.
        variance: variance of the noise a step, 0 or more.
        shared: as of every :class:`supple.Method`: ``include``, ``exclude``, ``seed``.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1000, 1000)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> supple.ShrinkAndPerturb(model, l2=0.5, variance=1e-4).step()
        >>> round(float(model.weight.detach().mean()), 3), round(float(model.weight.detach().std()), 3)
        (0.5, 0.01)

    Source: Ash and Adams, "On warm-starting neural network training" (NeurIPS 2020), section 4; at every step: Dohare
    et al. (2024), "Loss of plasticity in deep continual learning", Nature 632.
    """

    about = About(
        "shrink_and_perturb",
        label="S&P",
        title="shrink and perturb",
        colour="#0072b2",
        dark="#3d9fdb",
        strength=("l2", "variance"),
        ranges={"l2": (1e-6, 1e-2), "variance": (1e-10, 1e-5)},
        source="Ash and Adams (NeurIPS 2020), section 4; at every step: Dohare et al. (Nature 632, 2024)",
        since="0.1",
        cost=(0.095, 0.12),
    )

    pieces = "outputs"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        l2: Setting = 1e-4,
        variance: Setting = 1e-7,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, l2=l2, **shared)
        std = self.setting("variance", variance, 0).sqrt()
        self._act_in((self.l2 > 0) | (std > 0))
        self.std = std.to(self.device)
        self._perturbs = bool((std > 0).any())
        self._follow_seed()

    def _follow_seed(self) -> None:
        if self._perturbs:
            sizes = {name: block.whole.numel() for name, block in self.blocks.items()}
            self._noise = StepNoise("shrink and perturb", self.seed, sizes, self.when.rows(1) or ALL)

    def _act(self) -> None:
        if not self._perturbs:
            super()._act()
            return
        self._noise.begin(self.steps, (name for name, p in self.parameters.items() if p.requires_grad))
        super()._act()
        self._noise.end()

    def rule(self, w: Weights) -> None:
        """Shrinks one parameter and adds noise to it."""
        super().rule(w)
        if self._perturbs:
            noise, std = self._noise.of(w), w.each(self.std)
            if w.value.dtype in HALF:
                noise, std = perturbation(w.value, noise, std), torch.ones_like(std)
            w.add(noise.to(std.dtype), std, "perturb")
