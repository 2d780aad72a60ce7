"""Stochastic gradient descent with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from supple.optim.replicated import ReplicatedOptimizer, Setting


class SGDW(ReplicatedOptimizer):
    """Stochastic gradient descent, with momentum and decoupled weight decay; settings may differ by replica.

    Each step, for a parameter w of gradient g::

        w = w - weight_decay * w
        m = momentum * m + g          (m = g at the first step; without momentum m = g)
        w = w - lr * m

    The decay is not multiplied by ``lr``, and does not enter the momentum; in ``torch.optim.SGD`` it does both.

    Args:
        params: parameters, or groups of them.
        lr: step size; a number, or a tensor [R] with one a replica.
        momentum: momentum, 0 <= momentum < 1.
        weight_decay: share of each weight taken away a step; a number, or a tensor [R] with one a replica.

    Raises:
        ValueError: if a setting is out of range, or is a tensor that does not fit the parameters.

    Example:
        >>> networks = StackedMLP([0, 0], hidden=10)
        >>> optimizer = SGDW(networks.parameters(), lr=torch.tensor([0.1, 0.01]), weight_decay=1e-5)

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 1, with the decay not
    multiplied by the step size; momentum as in ``torch.optim.SGD``.
    """

    def __init__(self, params: Iterable[Any], lr: Setting, momentum: float = 0.0, weight_decay: Setting = 0.0) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; it has to be at least 0 and below 1")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        steps = gradients
        if group["momentum"]:
            steps = self._momentum(group["momentum"], parameters, gradients)
        rates = self.per_parameter(group, "lr", parameters)
        torch._foreach_addcmul_(parameters, steps, rates, value=-1)

    def _momentum(self, momentum: float, parameters: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        buffers, older, theirs = [], [], []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            state = self.state[parameter]
            if "momentum_buffer" in state:
                older.append(state["momentum_buffer"])
                theirs.append(gradient)
            else:
                state["momentum_buffer"] = gradient.clone()
            buffers.append(state["momentum_buffer"])
        if older:
            torch._foreach_mul_(older, momentum)
            torch._foreach_add_(older, theirs)
        return buffers
