"""Shrink and perturb at a boundary."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.rounding import HALF, round_by_chance
from supple.functional.utility import precise
from supple.methods.arguments import choice
from supple.methods.base import Required
from supple.methods.boundary import BoundaryMethod
from supple.methods.settings import About, SharedReplacing
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class ShrinkAndRedraw(BoundaryMethod):
    """Shrink and perturb as first proposed: at a boundary, shrinks every parameter and adds some of a fresh network.

    ::

        w = shrink * w + perturb * fresh

    where ``fresh`` is a draw from w's initial distribution (``toward="fresh"``), or w when the method was made
    (``toward="start"``). With shrink 0 and perturb 1 the network starts anew; with 1 and 0 nothing happens. With
    ``every=1`` and shrink near 1 it is the form that L2 Init was compared with, acting at every step.

    Every parameter takes part, normalizations and biases too. The running statistics of batch normalizations become
    those of a new network with ``statistics=True``, as in the authors' code.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``. The authors make a new one at each boundary.
        shrink: what the parameters are multiplied by, 0 to 1.
        perturb: multiple of the fresh network that is added, 0 or more.
        toward: "fresh" or "start".
        statistics: whether the statistics of batch normalizations start anew at a boundary.
        every: steps from one time to the next; 0: at boundaries only.
        shared: ``include``, ``exclude``, ``initial``, ``optimizer_state``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or the initial distribution of a parameter is not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.LayerNorm(2)
        >>> supple.ShrinkAndRedraw(model, shrink=0.5, perturb=0.1).boundary()  # scales start at 1, shifts at 0
        >>> [round(value, 6) for value in model.weight.tolist() + model.bias.tolist()]
        [0.6, 0.6, 0.0, 0.0]

    Source: Ash and Adams, "On warm-starting neural network training" (NeurIPS 2020, arXiv 1910.08475), section 4, as
    their code has it; at every step: Kumar, Marklund and Van Roy (CoLLAs 2024, arXiv 2308.11958); toward the start: the
    code of Han et al. (ICLR 2026, arXiv 2602.08040).
    """

    about = About(
        "shrink_and_redraw",
        label="shrink and redraw",
        title="shrink and perturb at a boundary",
        colour="#2166ac",
        dark="#67a9cf",
        strength=(),
        ranges={"shrink": (0.2, 0.8), "perturb": (0.01, 0.1)},
        source="Ash and Adams (NeurIPS 2020), section 4",
        needs="boundary()",
        cost=(0, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        shrink: Setting = 0.4,
        perturb: Setting = 0.1,
        toward: Literal["fresh", "start"] = "fresh",
        statistics: bool = True,
        every: Setting = 0,
        **shared: Unpack[SharedReplacing],
    ) -> None:
        self.required: Required = "distributions"
        if choice("toward", toward, ("fresh", "start")) == "start":
            self.required = "nothing"
        self.takes_up = toward != "start"
        super().__init__(model, optimizer, every=every, **shared)
        self.shrink = self.setting("shrink", shrink, 0, 1).to(self.device)
        self.perturb = self.setting("perturb", perturb, 0).to(self.device)
        self.toward = self.option("toward", toward, ("fresh", "start"))
        self.statistics = self.switch("statistics", statistics)
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps one parameter as it is, where it has to be known."""
        return {"start": w.value.clone()} if self.toward == "start" else {}

    def _act_at_boundary(self) -> None:
        super()._act_at_boundary()
        if self.statistics:
            self.reset_statistics()

    def rule_at_boundary(self, w: Weights) -> None:
        """Shrinks one parameter and adds some of a fresh one."""
        added = precise(w.kept("start")) if self.toward == "start" else w.draw()
        new = precise(w.value) * w.each(self.shrink) + w.each(self.perturb) * added
        if w.value.dtype in HALF:  # the nearest may be the old value, each time
            new = round_by_chance(new, w.value.dtype, w.uniform("rounded"))
        w.replace(torch.ones_like(w.value, dtype=torch.bool), new)
