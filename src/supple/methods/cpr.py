"""CPR: calibrated partial resets."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.methods.layer import Layer
from supple.methods.settings import About
from supple.methods.units import SharedUnits, UnitMethod
from supple.methods.when import Every
from supple.optim.replicated import Setting

_TRANSFORMS = ("sigmoid", "exp", "softplus", "linear")


class CPR(UnitMethod):
    """CPR, calibrated partial resets: every ``frequency`` steps, moves every unit a little toward a fresh one.

    With s the mean magnitude of the gradients of a unit's incoming weights, divided by its layer's mean::

        u = decay * u + (1 - decay) * s                 every step, from 1 on
        r = replacement_rate * T(u)                     every ``frequency`` steps; then u = 1
        W_in = (1 - r) W_in + r * fresh,  W_out = (1 - r) W_out

        T(u) = min(2 sigmoid(-sharpness (u - threshold)), 1)          transform="sigmoid"
               min(exp(-sharpness (u - threshold)), 1)                transform="exp"
               min(softplus(sharpness (threshold - u)) / ln 2, 1)     transform="softplus"
               clip(1 - sharpness (u - threshold), 0, 1)              transform="linear"

    so the less a unit learns the more it is moved, and one at or below the threshold by all of ``replacement_rate``.
    Biases and the optimizer's state stay as they are. Layers are moved from the first to the last, so that a weight
    between two hidden layers is first shrunk, then moved toward a fresh draw. A step in which a layer's gradients are
    all 0 does not count for its average. ``reinitialized`` counts the units that were moved.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        frequency: steps from one reset to the next, 1 or more.
        replacement_rate: how far a unit is moved at most, 0 to 1. At 0 nothing ever happens.
        sharpness: how sharply T falls, 0 or more.
        threshold: of u, where T begins to fall, 0 or more.
        decay: of the average, 0 <= decay < 1.
        transform: "sigmoid", "exp", "softplus" or "linear".
        shared: ``units``, ``initial``, ``process_group``, ``seed`` of every method on hidden units.

    Raises:
        ValueError: as :class:`supple.CBP`.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> method = supple.CPR(model, optimizer, frequency=1, replacement_rate=1.0, threshold=1e9)
        >>> model(torch.rand(5, 4)).sum().backward()
        >>> optimizer.step()
        >>> method.step()
        >>> bool((model[2].weight == 0).all())
        True

    Source: the code named CPR by the authors of "Learning continually at peak performance with continuous continual
    backpropagation" (submission to ICLR 2026); no paper of that name was found.
    """

    watches = True
    about = About(
        "cpr",
        label="CPR",
        title="calibrated partial resets",
        colour="#01665e",
        dark="#5ab4ac",
        strength=("replacement_rate",),
        ranges={"frequency": (64, 4096), "replacement_rate": (1e-3, 0.03), "threshold": (0.8, 0.97)},
        source="code of continuous continual backpropagation (submission to ICLR 2026)",
        needs="gradients",
        keeps="a number a unit",
        common=("sharpness", "decay"),
        cost=(0.006, 0.005),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 1000,
        replacement_rate: Setting = 0.015,
        sharpness: Setting = 16.0,
        threshold: Setting = 1.0,
        decay: Setting = 0.99,
        transform: Literal["sigmoid", "exp", "softplus", "linear"] = "sigmoid",
        **shared: Unpack[SharedUnits],
    ) -> None:
        super().__init__(model, optimizer, utility="incoming", **shared)
        period = self.setting("frequency", frequency, 1, whole=True)
        rate = self.setting("replacement_rate", replacement_rate, 0, 1)
        self.rate = rate.to(self.device).unsqueeze(1)
        self.sharpness = self.setting("sharpness", sharpness, 0).to(self.device).unsqueeze(1)
        self.threshold = self.setting("threshold", threshold, 0).to(self.device).unsqueeze(1)
        self.decay = self.setting("decay", decay, 0, 1 - 2.0**-24).to(self.device).unsqueeze(1)
        self.transform = self.option("transform", transform, _TRANSFORMS)
        self.when = Every(period, rate > 0, self.device)
        self.listen()
        self.per_unit = {"average": [layer.zeros() + 1 for layer in self.layers]}

    def watch(self, layer: Layer) -> None:
        """Adds the step's scores to the average, where something can be told of the layer."""
        utility, average = layer.utility(), self.per_unit["average"][layer.number]
        mean = utility.mean(dim=1, keepdim=True)
        self.skip(~mean[:, 0].isfinite())
        known = mean.isfinite() & (mean > 0)
        decay = self.decay.to(average.dtype)
        average.copy_(torch.where(known, decay * average + (1 - decay) * utility / mean, average))

    def rule(self, layer: Layer) -> None:
        """Moves the units of one layer toward fresh ones."""
        average, rows = self.per_unit["average"][layer.number], layer.rows
        layer.blend(self.rate[rows].to(average.dtype) * self._share(average[rows], rows))
        average[rows] = 1

    def _share(self, average: Tensor, rows: slice | Tensor) -> Tensor:
        """T(u) of the units, [rows, n]."""
        above = self.sharpness[rows].to(average.dtype) * (average - self.threshold[rows].to(average.dtype))
        shares = {
            "sigmoid": lambda: 2 * torch.sigmoid(-above),
            "exp": lambda: torch.exp(-above),
            "softplus": lambda: nn.functional.softplus(-above) / math.log(2),
            "linear": lambda: 1 - above,
        }
        return shares[self.transform]().clamp(0, 1)
