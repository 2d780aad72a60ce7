"""The networks and optimizers of a problem of one's own, and which of them can be trained together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from supple.lab.nn.stack import stack, unstackable
from supple.lab.population.problem import Problem
from supple.lab.study.errors import StudyError
from supple.lab.study.own_checks import check_optimizer, explained, undisturbed
from supple.lab.study.schema import Settings
from supple.lab.study.spec import Column
from supple.optim import SGDW, AdamW, ReplicatedOptimizer
from supple.structure.tracing.run import arguments_of

ELEMENTWISE = {SGDW, AdamW} | {
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
}
"""Optimizers that act on each entry by itself, so that one steps stacked networks as one a network would."""


class OwnNetworks:
    """Makes networks and optimizers as the columns of a study say, and tells which can be stacked.

    Args:
        problem: what makes them.
        seed: of the network that things are tried with.
        device: where it is.
        example: gives the first batch.
    """

    def __init__(self, problem: Problem, seed: int, device: str, example: Callable[[], tuple[Any, Tensor]]) -> None:
        self._problem, self._seed, self._device, self._example = problem, seed, device, example
        self._known: dict[str, tuple[nn.Module, torch.optim.Optimizer, bool]] = {}

    def sample(self, column: Column) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A network of the first seed, with its optimizer, to try things with."""
        return self._look(column)[:2]

    def together(self, column: Column) -> bool:
        """Whether several networks can be trained together as each would be alone, as far as can be seen."""
        return self._look(column)[2]

    def _look(self, column: Column) -> tuple[nn.Module, torch.optim.Optimizer, bool]:
        key = section_text(column)
        if key not in self._known:
            with explained("network"):
                network = self.one(column, self._seed).to(self._device)
            before = {name: (p.requires_grad, p.detach().clone()) for name, p in network.named_parameters()}
            with explained("optimizer"):
                optimizer = self._problem.optimizer(network.parameters(), **_settings(column.optimizer))
            check_optimizer(optimizer, network)
            after = network.named_parameters()
            as_made = all(p.requires_grad == before[name][0] and torch.equal(p, before[name][1]) for name, p in after)
            self._known[key] = network, optimizer, as_made and self._stackable(column, network, optimizer)
        return self._known[key]

    def one(self, column: Column, seed: int) -> nn.Module:
        """Makes one network."""
        with undisturbed(seed):
            network = self.make(column)(seed)
        if not isinstance(network, nn.Module):
            raise StudyError(f"network: it is {type(network).__name__}; it has to be a torch.nn.Module")
        if isinstance(network, torch.jit.ScriptModule):
            raise StudyError("network: torch.jit compiled it; give the module that it was made from")
        return network

    def make(self, column: Column) -> Callable[[int], nn.Module]:
        """What makes networks from seeds."""
        settings = _settings(column.network)
        return lambda seed: self._problem.network(seed, **settings)

    def optimizer(self, column: Column, network: nn.Module) -> torch.optim.Optimizer:
        """Makes the optimizer of one network, or of stacked ones."""
        one, optimizer = self.sample(column)
        if type(optimizer) not in ELEMENTWISE or not self.together(column):
            return self._problem.optimizer(network.parameters(), **_settings(column.optimizer))
        # A function may look at the shapes of what it is given, which are those of one network.
        stacked = dict(zip(one.parameters(), network.parameters(), strict=True))
        groups = [group | {"params": [stacked[p] for p in group["params"]]} for group in optimizer.param_groups]
        kind: Any = type(optimizer)
        # What an optimizer makes of its arguments when it is made, as Adagrad the start of its sums, no group says.
        taken = inspect.signature(kind).parameters.keys() & optimizer.defaults.keys()
        return kind(groups, **{name: optimizer.defaults[name] for name in taken})

    def _stackable(self, column: Column, network: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
        # It acts on each entry by itself, with nothing added to it, and remembers nothing yet but what it always does.
        kind = type(optimizer)
        elementwise = isinstance(optimizer, ReplicatedOptimizer) or kind in ELEMENTWISE
        hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
        remembers = optimizer.state and kind is not torch.optim.Adagrad
        if not elementwise or hooks or "step" in vars(optimizer) or remembers or unstackable(network):
            return False
        inputs, targets = tree_map(
            lambda leaf: leaf.unsqueeze(0) if isinstance(leaf, Tensor) else leaf, self._example()
        )
        arguments, keywords = arguments_of(inputs)
        try:
            with undisturbed():
                two = stack(self.make(column), [self._seed] * 2).to(self._device)
                two.losses(self._problem.loss, two(*arguments, **keywords), targets)
        except Exception:  # of what is wrong with one network a check tells
            return False
        return two.together


def _settings(section: Any) -> dict[str, Any]:
    assert isinstance(section, Settings)
    return section.values


def section_text(column: Column) -> str:
    """Network and optimizer of a column, as words."""
    return f"{column.network!r} {column.optimizer!r}"
