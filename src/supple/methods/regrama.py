"""ReGraMa: recycling units by the magnitude of their gradients."""

from __future__ import annotations

import torch
from torch import nn
from typing_extensions import Unpack

from supple.functional.utility import below_threshold, lowest
from supple.methods.layer import Layer
from supple.methods.settings import About
from supple.methods.units import SharedUnits, UnitMethod
from supple.methods.when import Every
from supple.optim.replicated import Setting


class ReGraMa(UnitMethod):
    """ReGraMa, recycling by gradient magnitude: every ``frequency`` steps, replaces the units that learn least.

    With dL/dW_in the gradients of the weights that make a unit, and n the units of its layer::

        u = mean |dL/dW_in|
        replaced = u <= threshold * mean over the layer of u,  at most the lowest max_share * n units

    A replaced unit gets fresh incoming weights, bias 0 and outgoing weights 0, as in :class:`supple.ReDo`. A layer
    whose gradients are all 0 is left alone: nothing can be told of its units. Other implementations replace all of it.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        frequency: steps from one replacement to the next, 1 or more.
        threshold: multiple of the layer's mean, 0 or more. At 0 nothing is ever replaced.
        max_share: the largest share of a layer's units that is replaced at once, 0 to 1.
        shared: ``units``, ``initial``, ``optimizer_state``, ``process_group``, ``seed`` of every method on hidden
            units.

    Raises:
        ValueError: as :class:`supple.ReDo`.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> _ = torch.nn.init.constant_(model[0].bias, 5.0)
        >>> with torch.no_grad():
        ...     model[0].bias[:3] = -5.0  # three units that never fire
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> bias = {"0.bias": supple.Constant(0.0)}
        >>> method = supple.ReGraMa(model, optimizer, frequency=1, threshold=1e-3, initial=bias)
        >>> model(torch.rand(5, 4)).sum().backward()
        >>> optimizer.step()
        >>> method.step()
        >>> int(method.reinitialized.last)
        3

    Source: Liu, Wu, Obando-Ceron, Castro, Courville and Pan, "Measure gradients, not activations! Enhancing neuronal
    activity in deep reinforcement learning" (arXiv 2505.24061); the score by weights as other authors' code has it.
    """

    about = About(
        "regrama",
        label="ReGraMa",
        title="recycling by gradient magnitude",
        colour="#c51b7d",
        dark="#e9a3c9",
        strength=("threshold",),
        ranges={"frequency": (64, 4096), "threshold": (5e-3, 0.5)},
        source="Liu et al. (arXiv 2505.24061)",
        needs="gradients",
        cost=(0, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 1000,
        threshold: Setting = 0.025,
        max_share: Setting = 1.0,
        **shared: Unpack[SharedUnits],
    ) -> None:
        super().__init__(model, optimizer, utility="incoming", **shared)
        period = self.setting("frequency", frequency, 1, whole=True)
        threshold = self.setting("threshold", threshold, 0)
        self.max_share = self.setting("max_share", max_share, 0, 1)
        self.when = Every(period, threshold > 0, self.device)
        self.threshold = threshold.to(self.device)
        self.listen()

    def rule(self, layer: Layer) -> None:
        """Replaces the units of one layer that learn least."""
        utility = layer.utility()
        mean = utility.mean(dim=1)
        self.skip(~mean.isfinite(), layer.rows)
        chosen = below_threshold(utility, self.threshold[layer.rows], mean) & (mean > 0).unsqueeze(1)
        if bool((self.max_share < 1).any()):
            most = (self.max_share * layer.group.size).floor().long().to(self.device)[layer.rows]
            chosen &= lowest(utility, most * mean.isfinite(), layer.words)
        layer.replace(layer.where(chosen))
