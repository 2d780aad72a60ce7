"""What the hidden units of any model put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from supple.metrics.shapes import Shape, ShapesSeen
from supple.metrics.undisturbed import undisturbed
from supple.structure.description import UnitGroup, Units
from supple.structure.stacked import Stacked

T = TypeVar("T")


def unit_features(model: nn.Module, units: Units | Sequence[UnitGroup], *inputs: Any, **keywords: Any) -> list[Tensor]:
    """What the hidden units of a model put out on the given examples, in evaluation mode, as the next layer gets it.

    The training does not notice: modes, buffers and the states of random generators are as before.

    Args:
        model: the model; of a stack, one network (``stack.replica(0)``).
        units: its hidden units, from :func:`supple.units` or written by hand.
        inputs: what the model takes in.
        keywords: what it takes in by name.

    Returns:
        A tensor [E, n] for each group of n units; E counts examples and, where there are some, positions or tokens.

    Raises:
        ValueError: if the model is a stack, or a group's features are not computed on these examples or do not fit
            their layout.

    Example:
        >>> import torch, supple
        >>> from supple.metrics import dead_units, unit_features
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> (features,) = unit_features(model, supple.units(model), torch.randn(20, 4))
        >>> dead = dead_units(features, saturated=[0.0], tolerance=0.0)
        >>> features.shape, dead.shape
        (torch.Size([20, 8]), torch.Size([8]))
    """
    found = read_units(model, units, lambda: model(*inputs, **keywords), flat)
    return [torch.cat(calls) for calls in found]


def activation_shapes(model: nn.Module, units: Sequence[UnitGroup], call: Callable[[], Any]) -> list[Shape]:
    """Which activation functions the units of a model go through.

    Args:
        model: the model.
        units: its hidden units.
        call: calls it.

    Returns:
        A shape for each group; unknown where something else follows, as in a gate.

    Raises:
        ValueError: as :func:`unit_features`.
    """
    with ShapesSeen() as seen:
        found = read_units(model, units, call, lambda group, activations: seen.of(activations))
    return [calls[0] for calls in found]


def read_units(
    model: nn.Module,
    units: Sequence[UnitGroup],
    call: Callable[[], Any],
    take: Callable[[UnitGroup, Tensor], T],
) -> list[list[T]]:
    """Runs a model in evaluation mode and takes something of what its hidden units put out.

    Args:
        model: the model.
        units: its hidden units.
        call: calls it.
        take: what is taken of a group's activations, as they are where its features are read.

    Returns:
        For each group what was taken, at each call of the module where its features are read.

    Raises:
        ValueError: as :func:`unit_features`.
    """
    if isinstance(model, Stacked):
        raise ValueError("the units of a stack are those of several networks; ask one of them: stack.replica(0)")
    found: list[list[T]] = [[] for _ in units]
    handles = [_listen(model, group, take, into) for group, into in zip(units, found, strict=True)]
    try:
        with undisturbed(model):
            call()
    finally:
        for handle in handles:
            handle.remove()
    for group, calls in zip(units, found, strict=True):
        if not calls:
            raise ValueError(
                f"the model did not call {group.feature.module!r}, where the units of {group.name} are read"
            )
    return found


def _listen(model: nn.Module, group: UnitGroup, take: Callable[[UnitGroup, Tensor], T], found: list[T]) -> Any:
    """Has something of a module's input or output put into a list whenever it is called."""
    module, feature = model.get_submodule(group.feature.module), group.feature
    if feature.where == "output":
        return module.register_forward_hook(lambda module, inputs, output: found.append(take(group, output)))

    def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        found.append(take(group, feature.argument(inputs, keywords)))

    return module.register_forward_pre_hook(before, with_kwargs=True)


def flat(group: UnitGroup, activations: Tensor) -> Tensor:
    """Brings the activations of a group into the layout of features.

    Args:
        group: the units.
        activations: as they are where the features are read.

    Returns:
        [E, n].
    """
    return group.feature.view(activations, group.size).reshape(group.size, -1).T
