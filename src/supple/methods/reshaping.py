"""What methods share that reshape the optimizer's update: the weights and gradients before its step."""

from __future__ import annotations

import torch
from torch import Tensor

from supple.methods.weights import WeightMethod, Weights


class Reshaping(WeightMethod):
    """A method that sees the weights before and after the optimizer's step; call :meth:`before_step` before it.

    Attributes:
        before: the weights before the step, by name [R, ...], from :meth:`before_step` to :meth:`step`.
    """

    before: dict[str, Tensor]
    reshapes = True
    pieces = "outputs"

    @property
    def acts_before_step(self) -> bool:
        """True: it keeps the weights."""
        return True

    def _act_before_step(self) -> None:
        self.before = {}
        super()._act_before_step()

    def rule_before_step(self, w: Weights) -> None:
        """Keeps one parameter as it is before the step."""
        if w.name not in self.before:
            self.before[w.name] = torch.empty_like(self.stack(w.parameter))
        w.of(self.before[w.name]).copy_(w.value)

    def _act(self) -> None:
        if not getattr(self, "before", None):
            raise RuntimeError(
                f"{type(self).__name__} has to see the weights before the step: call before_step() after backward() "
                "and before optimizer.step()"
            )
        super()._act()
        self.before = {}
