"""What learns a stream, whatever the stream is: a network, its optimizer, and a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from supple.methods import Method


class Learner:
    """A network, its optimizer and a method, which may be None; ValueError if they do not belong together."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, method: Method | None) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not all(id(parameter) in held for parameter in trained):
            raise ValueError("the optimizer does not hold all parameters of the network that are trained")
        if method is not None and method.model is not network:
            raise ValueError(f"{method!r} was made for another network")
        self.network, self.optimizer, self.method = network, optimizer, method
        if method is not None and method.acts_before_step:
            optimizer.register_step_pre_hook(lambda *unused: method.before_step())

    def enter(self, task: int) -> None:
        """Lets a method that acts at boundaries act before a task, but for the first."""
        if task:
            self.boundary()

    def boundary(self) -> None:
        """Lets a method that acts at boundaries act, since the data change."""
        if self.method is not None and self.method.acts_at_boundary:
            self.method.boundary()

    def state_dict(self) -> dict[str, Any]:
        """States of the three, and buffers that are not in the network's; tensors are no copies."""
        state = dict(self.network.state_dict())
        return {
            "network": state,
            "buffers": {name: buffer for name, buffer in self.network.named_buffers() if name not in state},
            "optimizer": self.optimizer.state_dict(),
            "method": None if self.method is None else self.method.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        if (state["method"] is None) != (self.method is None):
            raise ValueError("the state is of training with a method, or this training has one, but not both")
        self.network.load_state_dict(state["network"])
        for name, buffer in state.get("buffers", {}).items():
            self.network.get_buffer(name).copy_(buffer)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.method is not None:
            self.method.load_state_dict(state["method"])
