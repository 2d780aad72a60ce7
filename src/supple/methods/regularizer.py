"""What methods share that add a term to the loss: its gradient, and how the weights follow it."""

from __future__ import annotations

from abc import abstractmethod
from operator import attrgetter

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.settings import Shared
from supple.methods.weights import WeightMethod, Weights
from supple.methods.when import Every
from supple.optim.replicated import Setting


class Regularizer(WeightMethod):
    """A method that adds ``strength * R`` to the loss, for a term R of the weights, by its gradient.

    Coupled, as a term of the loss is: :meth:`before_step` adds the gradient to that of the loss, and the optimizer
    makes of both what it makes of any gradient; one that maximizes gets the negative, so that it, too, makes R smaller.
    Decoupled: after the optimizer's step the weights follow it by themselves, w -= lr * strength * dR/dw, at the
    weights after the step and with the step size of their group.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: what the term is multiplied by, 0 or more.
        decoupled: whether the weights follow the term beside the optimizer.
        shared: as of every :class:`supple.Method`.

    Raises:
        ValueError: if ``strength`` is out of range, or ``decoupled`` without an optimizer.
    """

    reads_gradients = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting,
        decoupled: bool,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        strengths = self.setting("strength", strength, 0)
        self.strength = strengths.to(self.device)
        self.decoupled = self.switch("decoupled", decoupled)
        self.when = Every(torch.ones_like(strengths, dtype=torch.int64), strengths > 0, self.device)
        if decoupled:
            for parameter in filter(attrgetter("requires_grad"), self.parameters.values()):
                self.step_size(parameter)

    @abstractmethod
    def gradient(self, w: Weights) -> Tensor:
        """Works out dR/dw of one parameter: [rows, ...]."""

    @property
    def acts_before_step(self) -> bool:
        """Whether the term is coupled."""
        return not self.decoupled

    def rule_before_step(self, w: Weights) -> None:
        """Adds the gradient of the term to that of the loss."""
        strength = w.each(self.strength)
        w.add_to_gradient(self.gradient(w), -strength if self.maximizes(w.parameter) else strength)

    def _act(self) -> None:
        if self.decoupled:
            super()._act()

    def rule(self, w: Weights) -> None:
        """Lets one parameter follow the term."""
        step = w.each(self.strength * self.step_size(w.parameter))
        gradient = self.gradient(w)
        w.set(precise(w.value).addcmul_(gradient, step, value=-1))
