"""What tests of training share: small networks, numbers for them, a training loop, and copies of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from supple.lab.nn import MLP
from supple.methods.penalty import Penalty
from supple.methods.weights import WeightMethod, Weights


def network(inputs: int = 6, hidden: int = 30, outputs: int = 3, layer_norm: bool = False) -> nn.Sequential:
    """A network with one hidden layer, the same each time."""
    torch.manual_seed(0)
    first = [nn.Linear(inputs, hidden), *([nn.LayerNorm(hidden)] if layer_norm else [])]
    return nn.Sequential(*first, nn.ReLU(), nn.Linear(hidden, outputs))


def perceptron(**options: Any) -> MLP:
    """5 inputs, two hidden layers of 8, 3 outputs, the same each time."""
    return MLP(5, 8, 3, 2, **{"seed": 3, **options})


def numbers(step: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal random numbers, the same each time for a step."""
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(step))


def batch(step: int, size: int = 32, inputs: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a step, the same each time: class 1 where the first two inputs have the same sign."""
    x = numbers(step, size, inputs, dtype=dtype)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def backward(model: nn.Module, step: int = 0, *shape: int) -> None:
    """Gradients of the sum of squared outputs for numbers of this shape (6 by 5 if none is given)."""
    model.zero_grad()
    dtype = next(model.parameters()).dtype
    model(numbers(step, *(shape or (6, 5)), dtype=dtype)).square().sum().backward()


def penalty_of(method: Any, x: Tensor, loss: Tensor) -> Tensor | float:
    """What a method, or the methods of a chain, add to the loss."""
    parts = getattr(method, "methods", [method])
    return sum(one.penalty(x, loss=loss) for one in parts if isinstance(one, Penalty))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: Any,
    batches: Iterable[tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
) -> list[Tensor]:
    """Trains, with a method or None; the loss is a function of (model, *batch).

    Returns:
        How much the method reinitialized at each step.
    """
    counts = []
    for one in batches:
        optimizer.zero_grad()
        value = loss(model, *one)
        (value + penalty_of(method, one[0], value)).backward()
        if method is not None:
            method.before_step()
        optimizer.step()
        if method is not None:
            method.step()
            counts.append(method.reinitialized.last)
    return counts


def values(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether all parameters and buffers are those that :func:`values` copied."""
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class CoupledDecay(WeightMethod):
    """Adds l2 * w to the gradient."""

    def __init__(self, model: nn.Module, optimizer: Any = None, *, l2: Any = 0.1, **shared: Any) -> None:
        super().__init__(model, optimizer, **shared)
        self.l2 = self.setting("l2", l2, 0, 1)

    def rule_before_step(self, w: Weights) -> None:
        w.grad.add_(w.each(self.l2).to(w.value.dtype) * w.value)


class Restart(WeightMethod):
    """Draws everything again at each boundary."""

    replaces = True

    def rule_at_boundary(self, w: Weights) -> None:
        w.replace(torch.ones_like(w.value, dtype=torch.bool), w.draw)
