"""The networks and optimizers of a problem of one's own, and which of them can be trained together."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from supple.lab.limits import out_of_memory
from supple.lab.nn.stack import (
    StackedModule,
    applied,
    check_stackable,
    entry,
    stack,
    stacked,
    unstackable,
    untrainable,
)
from supple.lab.population.problem import Problem
from supple.lab.study.errors import StudyError
from supple.lab.study.own_checks import check_optimizer, explained, seeded
from supple.lab.study.schema import Settings
from supple.lab.study.spec import Column
from supple.optim import SGDW, AdamW

ELEMENTWISE = {SGDW, AdamW} | {
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
}
"""Optimizers that act on each entry by itself, so that one steps stacked networks as one a network would."""


class OwnNetworks:
    """Makes networks and optimizers as the columns of a study say, and tells which can be stacked.

    Args:
        problem: what makes them.
        seeds: those of the study; things are tried with networks of the first two.
        device: where they are.
        batches: gives the first batches of a seed.
    """

    def __init__(
        self, problem: Problem, seeds: Sequence[int], device: str, batches: Callable[[int], Sequence[Any]]
    ) -> None:
        self._problem, self._device, self._batches = problem, device, batches
        self._all, self._seeds = seeds, [*seeds, *seeds][:2]
        self._known: dict[str, tuple[nn.Module, torch.optim.Optimizer, bool]] = {}
        self._alike: dict[str, bool] = {}

    def sample(self, column: Column) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A network of the first seed, with its optimizer, to try things with."""
        return self._look(column)[:2]

    def together(self, column: Column) -> bool:
        """Whether several networks can be trained together as each would be alone, as far as can be seen."""
        if not self._look(column)[2]:
            return False
        if (key := repr(column.network)) not in self._alike:
            self._alike[key] = self._learn_alike(column)
        return self._alike[key]

    def _look(self, column: Column) -> tuple[nn.Module, torch.optim.Optimizer, bool]:
        key = section_text(column)
        if key not in self._known:
            with explained("network"):
                network = self.one(column, self._seeds[0]).to(self._device)
            before = {name: (p.requires_grad, p.detach().clone()) for name, p in network.named_parameters()}
            optimizer = self.make_optimizer(column, network, self._seeds[0])
            check_optimizer(optimizer, network)
            after = network.named_parameters()
            as_made = all(p.requires_grad == before[name][0] and torch.equal(p, before[name][1]) for name, p in after)
            single = as_made and _elementwise(optimizer) and not unstackable(network)
            self._known[key] = network, optimizer, single and self._set_alike(column, optimizer)
        return self._known[key]

    def one(self, column: Column, seed: int) -> nn.Module:
        """Makes one network."""
        # As stack makes it: by torch's generator alone, so that what other generators draw is seen to differ each time.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.make(column)(seed)
        if not isinstance(network, nn.Module):
            raise StudyError(f"network: it is {type(network).__name__}; it has to be a torch.nn.Module")
        if why := untrainable(network):
            raise StudyError(f"network: {why}")
        return network

    def _check_all(self, column: Column) -> None:
        """ValueError if the network of some seed cannot be stacked with the first."""
        first = {self._all[0]: self.one(column, self._all[0])}
        for seed in self._all[1:]:
            check_stackable({**first, seed: self.one(column, seed)}, seed)

    def make(self, column: Column) -> Callable[[int], nn.Module]:
        """What makes networks from seeds."""
        settings = _settings(column.network)
        return lambda seed: self._problem.network(seed, **settings)

    def optimizer(self, column: Column, network: nn.Module) -> torch.optim.Optimizer:
        """Makes the optimizer of one network, or of stacked ones."""
        one, optimizer = self.sample(column)
        if not self.together(column):
            return self._problem.optimizer(network.parameters(), **_settings(column.optimizer))
        # A function may look at the shapes of what it is given, which are those of one network.
        of_all = dict(zip(one.parameters(), network.parameters(), strict=True))
        groups = [group | {"params": [of_all[p] for p in group["params"]]} for group in optimizer.param_groups]
        kind: Any = type(optimizer)
        # What an optimizer makes of its arguments when it is made, as Adagrad the start of its sums, no group says.
        taken = inspect.signature(kind).parameters.keys() & optimizer.defaults.keys()
        return kind(groups, **{name: optimizer.defaults[name] for name in taken})

    def make_optimizer(self, column: Column, network: nn.Module, seed: int) -> torch.optim.Optimizer:
        """Makes the optimizer of one network."""
        with explained("optimizer"), seeded(seed):
            return self._problem.optimizer(network.parameters(), **_settings(column.optimizer))

    def _set_alike(self, column: Column, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer of the second network has the settings of the first one's, which can then step both."""
        with explained("network"):
            network = self.one(column, self._seeds[1])
        other = self.make_optimizer(column, network, self._seeds[1])
        first, second = ([group | {"params": None} for group in one.param_groups] for one in (optimizer, other))
        return first == second

    def _learn_alike(self, column: Column) -> bool:
        """Whether two networks have the losses and gradients together that each has alone, as far as can be seen."""

        def learned(network: nn.Module, batches: Sequence[Any], draws: int = 0) -> list[Any]:
            loss = self._problem.loss
            with suppress(Exception):  # it may remember what it was given
                loss = copy.deepcopy(loss)
            with seeded(draws):
                return [_learned(_still(network.to(self._device)), loss, *batch) for batch in batches]

        batches = [self._batches(seed) for seed in self._seeds]
        with explained("network"):
            self._check_all(column)
            both = stack(self.make(column), self._seeds)
            alone = [learned(self.one(column, seed), own) for seed, own in zip(self._seeds, batches, strict=True)]
            draws = not all(map(_close, learned(self.one(column, self._seeds[0]), batches[0], draws=1), alone[0]))
        try:
            steps = learned(both, [tree_map(stacked, *pair) for pair in zip(*batches, strict=True)])
            both.replica(0)  # which a network that keeps what it computes in a list does not allow
            if not both.together:  # as a warning has said
                return False
            together = [[entry(step, place) for step in steps] for place in range(2)]
            if draws or all(_close(*pair) for pair in zip(chain(*together), chain(*alone), strict=True)):
                return True
            reason = (
                "it learns otherwise then, as one does that keeps numbers in attributes or hooks on what it computes"
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        warnings.warn(
            f"network: it cannot be trained together with others ({reason}); each run is trained alone, which takes "
            "longer",
            UserWarning,
            stacklevel=2,
        )
        return False


def _elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it acts on each entry by itself, with nothing added to it and nothing remembered yet."""
    kind = type(optimizer)
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    remembers = optimizer.state and kind is not torch.optim.Adagrad
    return kind in ELEMENTWISE and not hooks and "step" not in vars(optimizer) and not remembers


def _still(network: nn.Module) -> Any:
    """Takes what drops out at random out of a network."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return network


class _Learned(NamedTuple):
    """A loss, or that of each network, and the gradients, None where there are none; ``eps`` is the rounding of the
    coarsest numbers that the backward pass needed.
    """

    loss: Tensor
    gradients: list[Tensor | None]
    eps: float


def _learned(network: Any, loss: Callable[..., Tensor], inputs: Any, targets: Tensor) -> _Learned:
    eps = 0.0

    def note(tensor: Tensor) -> Tensor:
        nonlocal eps
        if tensor.is_floating_point() or tensor.is_complex():
            eps = max(eps, torch.finfo(tensor.dtype).eps)
        return tensor

    network.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = applied(network, inputs)
        found = network.losses(loss, output, targets) if isinstance(network, StackedModule) else loss(output, targets)
    found.sum().backward()
    return _Learned(found.detach(), [parameter.grad for parameter in network.parameters()], eps)


def _close(one: _Learned, other: _Learned) -> bool:
    """Whether the loss and each gradient are the same up to rounding."""
    if [gradient is None for gradient in one.gradients] != [gradient is None for gradient in other.gradients]:
        return False
    eps = max(one.eps, other.eps)
    slack, whole = max(1e-3, 16 * eps), _norm(other.gradients)
    far = [
        _norm([x.nan_to_num() - y.nan_to_num()]) > slack * _norm([y]) + 32 * eps * whole
        for x, y in zip(one.gradients, other.gradients, strict=True)
        if x is not None and y is not None
    ]
    losses = float(one.loss), float(other.loss)
    same = math.isclose(*losses, rel_tol=slack, abs_tol=slack) or (math.isnan(losses[0]) and math.isnan(losses[1]))
    return same and not any(far)


def _norm(tensors: Sequence[Tensor | None]) -> float:
    return sum(float(one.nan_to_num().abs().double().square().sum()) for one in tensors if one is not None) ** 0.5


def _settings(section: Any) -> dict[str, Any]:
    assert isinstance(section, Settings)
    return section.values


def section_text(column: Column) -> str:
    """Network and optimizer of a column, as words."""
    return f"{column.network!r} {column.optimizer!r}"
