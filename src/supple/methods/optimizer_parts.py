"""Where an optimizer keeps what it remembers of a parameter."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Path = tuple[Any, ...]
"""Where a tensor lies: the number of the optimizer in its wrappers, and the keys in its state of a parameter."""

_TRAINERS = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")


def unwrapped_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside of what a trainer makes of it.

    Accelerate and Lightning wrap optimizers in classes that keep the real one in an attribute ``optimizer``. Other
    wrappers, such as Lookahead, are optimizers of their own.

    Args:
        optimizer: an optimizer, wrapped or not.

    Returns:
        The real one.
    """
    while any(kind.__module__.split(".")[0] in _TRAINERS for kind in type(optimizer).__mro__):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, torch.optim.Optimizer):
            break
        optimizer = inner
    return optimizer


def members(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """Lists an optimizer and those that it is made of.

    Args:
        optimizer: the optimizer.

    Returns:
        Optimizers, the outermost first.
    """
    found = [optimizer]
    for one in found:
        for value in _parts(vars(one)):
            if isinstance(value, torch.optim.Optimizer) and not any(value is other for other in found):
                found.append(value)
    return found


class GroupsByParameter:
    """Looks up the groups of optimizers by parameter, and remembers them until an optimizer has others."""

    def __init__(self) -> None:
        self._lists: list[list[dict[str, Any]]] = []
        self._groups: list[dict[str, Any]] = []
        self._sizes: list[int] = []
        self._found: dict[Tensor, list[tuple[int, dict[str, Any]]]] = {}

    def of(
        self, optimizers: Sequence[torch.optim.Optimizer], parameter: Tensor
    ) -> Sequence[tuple[int, dict[str, Any]]]:
        """Finds the groups that hold a parameter.

        Args:
            optimizers: where to look; the same ones each time.
            parameter: the parameter.

        Returns:
            For each group the place of its optimizer and the group itself.
        """
        lists = [one.param_groups for one in optimizers]
        same = sum(map(len, lists)) == len(self._groups) and all(map(operator.is_, lists, self._lists))
        if not same or parameter not in self._found:
            self._look(lists)
        return self._found.get(parameter, ())

    def _look(self, lists: list[list[dict[str, Any]]]) -> None:
        groups = [group for one in lists for group in one]
        sizes = [len(group["params"]) for group in groups]
        # Some make the list anew each time, of the same groups; an optimizer that loads a state has other groups.
        if sizes != self._sizes or not all(map(operator.is_, groups, self._groups)):
            self._groups, self._sizes, self._found = groups, sizes, {}
            for place, one in enumerate(lists):
                for group in one:
                    for parameter in group["params"]:
                        self._found.setdefault(parameter, []).append((place, group))
        self._lists = lists


def tensors_of(
    optimizer: torch.optim.Optimizer, parameter: Tensor, parts: list[torch.optim.Optimizer] | None = None
) -> dict[Path, Tensor]:
    """Lists the tensors that an optimizer remembers of a parameter, each once.

    Args:
        optimizer: the optimizer.
        parameter: the parameter.
        parts: its members, where they are known.

    Returns:
        Tensors by where they lie.
    """
    found: dict[Path, Tensor] = {}
    for number, one in enumerate(members(optimizer) if parts is None else parts):
        state = getattr(one, "state", {})
        for path, tensor in _walk(state.get(parameter, {}), (number,)):
            if not any(tensor is other for other in found.values()):
                found[path] = tensor
    return found


def like(tensor: Tensor, parameter: Tensor) -> Tensor | None:
    """Views a state tensor in its parameter's shape.

    Args:
        tensor: the state tensor.
        parameter: the parameter.

    Returns:
        A view; None if it has not one entry for each of the parameter's entries.
    """
    if tensor.shape == parameter.shape:
        return tensor
    flat = tensor.ndim == 1 and tensor.numel() == parameter.numel() and tensor.numel() > 1
    return tensor.view(parameter.shape) if flat and type(tensor) is Tensor else None


def held_aside(optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """Lists the tensors in attributes of an optimizer's own: not parameters, state or settings.

    Args:
        optimizer: the optimizer.

    Returns:
        Names of attributes and tensors in them.
    """
    own = {id(p) for one in members(optimizer) for group in one.param_groups for p in group["params"]}
    found = []
    for one in members(optimizer):
        for name, value in vars(one).items():
            if name in ("state", "param_groups", "defaults", "_broadcast"):
                continue
            for path, tensor in _walk(value, (name,)):
                if id(tensor) not in own:
                    found.append((str(path[0]), tensor))
    return found


def follows(tensor: Tensor, parameter: Tensor) -> bool:
    """Says whether a tensor is a copy of a parameter, also one that lags behind.

    Args:
        tensor: the tensor.
        parameter: the parameter.

    Returns:
        Whether it is.
    """
    if tensor.numel() != parameter.numel() or not tensor.is_floating_point():
        return False
    a, b = tensor.detach().double().flatten(), parameter.detach().double().flatten().to(tensor.device)
    return bool(b.min() < b.max()) and bool((a - b).norm() < 0.5 * b.norm())


def _parts(value: Any) -> Iterator[Any]:
    for one in value.values() if isinstance(value, Mapping) else value:
        yield one
        if isinstance(one, list | tuple | dict) and not isinstance(one, defaultdict):
            yield from _parts(one)


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _walk(one, (*path, key))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _walk(one, (*path, number))
