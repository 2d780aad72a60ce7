"""ReDo, recycling dormant neurons."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from typing_extensions import Unpack

from supple.functional.utility import below_threshold
from supple.methods.layer import Layer
from supple.methods.settings import About
from supple.methods.units import SharedUnits, UnitMethod, UnitUtility
from supple.methods.when import Every
from supple.optim.replicated import Setting


class ReDo(UnitMethod):
    """Recycling dormant neurons: every ``frequency`` steps, replaces the hidden units of low utility.

    For each hidden layer on its own, with u the utility of its units from the step's batch::

        u = mean|h|                       utility="activation"
            mean|h| * mean|W_out|         utility="contribution"
            mean|W_out|                   utility="magnitude"
            |sum(W_out * dL/dW_out)|      utility="gradient"
        replaced = u <= threshold * mean(u)

    where h is the unit's output as the next layer receives it and W_out the weights that leave the unit. Replacing a
    unit redraws its incoming weights from their initial distribution and sets its bias and its outgoing weights to 0; a
    normalization that follows gets its initial scale and shift, and batch normalization a running mean of 0 and a
    running variance of 1. Where all utilities of a layer are 0 nothing can be told of its units, and the layer stays as
    it is; published programs replace all of it, as ``when_all_zero="replace"`` does. A layer that does not run in such
    a step (layer drop, an expert that was not chosen) has its turn at the next step in which it runs.

    Of two units of neighbouring layers that are replaced at once, the later one's fresh draw wins: the weight between
    them is drawn again, and is 0 with ``neighbours="zero"``. The program of Hernandez-Garcia et al. (2025) acts before
    the optimizer's step instead, from the last layer to the first, while gradients pass through the new weights:
    ``order="in_backward"``, which :class:`supple.methods.units.UnitMethod` describes.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, to treat what it remembers of replaced units.
        frequency: steps from one time to the next, 1 or more.
        threshold: multiple of the layer's mean utility, 0 or more; at 0 nothing is ever replaced.
        utility: "activation", "contribution", "magnitude" or "gradient".
        when_all_zero: "keep" or "replace".
        shared: as of every :class:`supple.methods.units.UnitMethod`: ``units``, ``features``, ``initial``,
            ``optimizer_state``, ``neighbours``, ``order``, ``process_group``, ``seed``.

    Raises:
        ValueError: if a setting is out of range, the hidden units are not found, or the initial distribution of an
            incoming weight is not known, or several processes run and ``process_group`` is missing.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with torch.no_grad():
        ...     _ = model[0].bias[:3].fill_(-100)  # three dead units
        >>> method = supple.ReDo(model, optimizer, frequency=1, threshold=1e-4, initial={"0.bias": supple.Constant(0)})
        >>> model(torch.ones(5, 4)).sum().backward()
        >>> optimizer.step()
        >>> method.step()
        >>> int(method.reinitialized.last) >= 3
        True

    Source: Sokar, Agarwal, Castro and Evci, "The dormant neuron phenomenon in deep reinforcement learning" (ICML 2023),
    algorithm 1; other utilities: Hernandez-Garcia et al. (arXiv 2508.00212).
    """

    about = About(
        "redo",
        label="ReDo",
        title="recycling dormant neurons",
        colour="#cc79a7",
        dark="#dc93bb",
        strength=("threshold",),
        ranges={"frequency": (8, 1024), "threshold": (1e-3, 0.5)},
        source="Sokar et al. (ICML 2023), algorithm 1",
        needs="features",
        since="0.1",
        cost=(0.001, 0.003),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 16,
        threshold: Setting = 1e-4,
        utility: UnitUtility = "activation",
        when_all_zero: Literal["keep", "replace"] = "keep",
        **shared: Unpack[SharedUnits],
    ) -> None:
        super().__init__(model, optimizer, utility=utility, **shared)
        period = self.setting("frequency", frequency, 1, whole=True)
        threshold = self.setting("threshold", threshold, 0)
        self.when = Every(period, threshold > 0, self.device)
        self.threshold = threshold.to(self.device)
        self.when_all_zero = self.option("when_all_zero", when_all_zero, ("keep", "replace"))
        self.listen()

    def rule(self, layer: Layer) -> None:
        """Replaces the units of low utility of one layer."""
        utility = layer.utility()
        mean = utility.mean(dim=1)
        self.skip(~mean.isfinite(), layer.rows)
        chosen = below_threshold(utility, self.threshold[layer.rows], mean)
        if self.when_all_zero == "keep":
            chosen &= (mean > 0).unsqueeze(1)
        layer.replace(layer.where(chosen))
