"""What the hidden units of any model put out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supple.structure.description import Feature, UnitGroup, Units
from supple.structure.stacked import Stacked


@torch.no_grad()
def unit_features(model: nn.Module, units: Units | Sequence[UnitGroup], *inputs: Any, **keywords: Any) -> list[Tensor]:
    """What the hidden units of a model put out on the given examples, in evaluation mode, as the next layer gets it.

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
    if isinstance(model, Stacked):
        raise ValueError("the units of a stack are those of several networks; ask one of them: stack.replica(0)")
    found: list[list[Tensor]] = [[] for _ in units]
    training = {module: module.training for module in model.modules()}
    handles = [_listen(model, group.feature, into) for group, into in zip(units, found, strict=True)]
    try:
        model.eval()(*inputs, **keywords)
    finally:
        for module, mode in training.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return [_flat(group, calls) for group, calls in zip(units, found, strict=True)]


def _listen(model: nn.Module, feature: Feature, found: list[Tensor]) -> Any:
    """Has a module's input or output put into a list whenever it is called."""
    module = model.get_submodule(feature.module)
    if feature.where == "output":
        return module.register_forward_hook(lambda module, inputs, output: found.append(output))
    return module.register_forward_pre_hook(
        lambda module, inputs, keywords: found.append(feature.argument(inputs, keywords)), with_kwargs=True
    )


def _flat(group: UnitGroup, found: Sequence[Tensor]) -> Tensor:
    """Features of a group, from all calls of the module where they are read, as [E, n]."""
    if not found:
        raise ValueError(f"the model did not call {group.feature.module!r}, where the units of {group.name} are read")
    return torch.cat([group.feature.view(each, group.size).reshape(group.size, -1).T for each in found])
