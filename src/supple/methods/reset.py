"""Resets of layers, of the whole network, and of what the optimizer remembers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.methods.arguments import choice, in_range, one_a_replica
from supple.methods.base import Required
from supple.methods.boundary import BoundaryMethod
from supple.methods.settings import About, SharedInitial
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class Reset(BoundaryMethod):
    """Resets: at a boundary, makes the last layers, chosen ones, or the whole network fresh.

    ``to`` says what the chosen parameters become at :meth:`boundary`::

        "fresh"   a draw from their initial distributions
        "start"   what they were when the method was made
        "same"    what they are; only the optimizer's state of them is made fresh

    and ``layers`` which they are: those of the last so many layers, or with 0 all, where ``include`` does not say which
    instead; ``exclude`` leaves some of them out. A weight that layers share is of the last of them. The optimizer
    forgets what it remembered of them (``optimizer_state="fresh"``) if it is given; without it, or with "keep", it goes
    on as it was. Running statistics of batch normalizations among them start anew.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer.
        layers: how many layers from the last one back, a layer being a module with a weight matrix; 0: see above.
        to: "fresh", "start" or "same".
        every: steps from one reset to the next; 0: at boundaries only.
        optimizer_state: "fresh" or "keep"; None: "fresh" where there is an optimizer.
        shared: ``include``, ``exclude``, ``initial``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, nothing would be reset, or the initial distribution of a parameter is
            not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> before = [parameter.detach().clone() for parameter in model.parameters()]
        >>> supple.Reset(model, layers=1).boundary()
        >>> [bool((new != old).any()) for new, old in zip(model.parameters(), before)]
        [False, False, True, True]

    Source: last layers: Nikishin, Schwarzer, D'Oro, Bacon and Courville, "The primacy bias in deep reinforcement
    learning" (ICML 2022, arXiv 2205.07802); the optimizer's state: Asadi, Fakoor and Sabach, "Resetting the optimizer
    in deep RL" (NeurIPS 2023, arXiv 2306.17833).
    """

    about = About(
        "layer_reset",
        label="reset",
        title="resets of layers",
        colour="#7f7f7f",
        dark="#b0b0b0",
        strength=(),
        ranges={"layers": (1, 2, 3)},
        source="Nikishin et al. (ICML 2022, arXiv 2205.07802)",
        needs="boundary()",
        common=("layers",),
        cost=(0, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        layers: int = 1,
        to: Literal["fresh", "start", "same"] = "fresh",
        every: Setting = 0,
        optimizer_state: Literal["keep", "fresh"] | None = None,
        **shared: Unpack[SharedInitial],
    ) -> None:
        self.required: Required = (
            "distributions" if choice("to", to, ("fresh", "start", "same")) == "fresh" else "nothing"
        )
        if optimizer_state is None and optimizer is not None:
            optimizer_state = "fresh"
        if to == "same" and optimizer_state != "fresh":
            raise ValueError('to="same" resets only what the optimizer remembers; give the optimizer')
        self._layers = int(in_range("layers", one_a_replica("layers", layers, None, "whole number"), 0, math.inf, True))
        self.takes_up = to != "start"
        super().__init__(model, optimizer, every=every, optimizer_state=optimizer_state, **shared)
        self.settings["layers"] = layers
        self.to = self.option("to", to, ("fresh", "start", "same"))
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps one parameter as it is, where it has to be known."""
        return {"start": w.value.clone()} if self.to == "start" else {}

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on the last layers."""
        return not self._layers or self.layer_numbers.get(name, math.inf) <= self._layers

    def _act_at_boundary(self) -> None:
        super()._act_at_boundary()
        if self.to != "same":
            self.reset_statistics()

    def rule_at_boundary(self, w: Weights) -> None:
        """Resets one parameter."""
        new = w.draw if self.to == "fresh" else w.kept("start") if self.to == "start" else w.value.clone()
        w.replace(torch.ones_like(w.value, dtype=torch.bool), new)
