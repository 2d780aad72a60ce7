"""Checks that methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Setting = float | Sequence[float] | Tensor
"""A number, or one a replica of a stacked network."""

_WHOLE = 2.0**53
"""Whole numbers up to here are exact in float64."""


def check_arguments(model: Any, optimizer: Any) -> None:
    """Checks what a method is made for.

    Args:
        model: has to be a module.
        optimizer: has to be None, or an optimizer that holds a parameter of the model.

    Raises:
        TypeError: if one of them is something else.
        ValueError: if the optimizer is another model's.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; it has to be a torch.nn.Module")
    if optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it has to be a torch.optim.Optimizer, or None")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise ValueError(
            f"the {type(optimizer).__name__} holds no parameter of this {type(model).__name__}; pass the optimizer "
            "that trains it, made after the model has its last parameters"
        )


def one_a_replica(name: str, value: Any, replicas: int | None, kind: str) -> Tensor:
    """A setting as a tensor on the CPU.

    Args:
        name: name of the setting, for the message.
        value: a number, or one a replica.
        replicas: number of replicas of a stacked network; None: an ordinary one, which takes one number only.
        kind: "number" or "whole number", for the message.

    Returns:
        [] or [R], of the type that the numbers have (Python numbers: float64 or int64).

    Raises:
        TypeError: if it is no number or numbers.
        ValueError: if there are not as many as replicas, or one is too large.
    """
    try:
        numbers = value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value)
        if numbers.is_floating_point() and not isinstance(value, Tensor):
            numbers = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        if "verflow" in str(error):
            raise ValueError(f"{name} is {value!r}, which does not fit into 64 bits") from error
        raise TypeError(f"{name} is {value!r}; it has to be a {kind}") from error
    if numbers.dtype == torch.bool or numbers.is_complex():
        raise TypeError(f"{name} is {value!r}; it has to be a {kind}")
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != replicas):
        remedy = "; this network is a single one" if replicas is None else f" or {replicas} {kind}s, one a replica"
        raise ValueError(f"{name} has shape {tuple(numbers.shape)}; it has to be a {kind}{remedy}")
    return numbers


def in_range(name: str, numbers: Tensor, low: float, high: float, whole: bool) -> Tensor:
    """Checks the range of a setting.

    Args:
        name: name of the setting, for the message.
        numbers: any shape.
        low: the smallest value allowed.
        high: the largest value allowed.
        whole: whether it has to be a whole number.

    Returns:
        The numbers as float64, or int64 where ``whole``.

    Raises:
        ValueError: if one is out of range.
    """
    numbers = numbers.double()
    high = min(high, _WHOLE) if whole else high
    wrong = ~((numbers >= low) & (numbers <= high) & numbers.isfinite())
    if whole:
        wrong |= numbers != numbers.floor()
    if wrong.any():
        kind = "a whole number" if whole else "a finite number"
        upper = "" if high in (float("inf"), _WHOLE) else f" and at most {high:g}"
        raise ValueError(f"{name} is {numbers[wrong].view(-1)[0]:g}; it has to be {kind} of at least {low:g}{upper}")
    return numbers.to(torch.int64) if whole else numbers


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """Checks a setting that is one of several words.

    Args:
        name: name of the setting, for the message.
        value: the word.
        allowed: the words allowed.

    Returns:
        The word.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it has to be one of {', '.join(map(repr, allowed))}")
    return value


def restore(tensors: Mapping[Any, Tensor] | Sequence[Tensor], saved: Mapping[Any, Tensor] | Sequence[Tensor]) -> None:
    """Copies saved tensors back into the tensors that they were saved from, in a dict or a list.

    Args:
        tensors: what is written.
        saved: what was saved.

    Raises:
        ValueError: if there are more or fewer, as when a moving average was turned on or off in between, or their
            shapes differ; nothing is written then.
    """
    if len(tensors) != len(saved):
        raise ValueError(
            f"the state has {len(saved)} tensors where {len(tensors)} are needed; was it saved with other settings?"
        )
    keys = list(tensors) if isinstance(tensors, Mapping) else range(len(tensors))
    for key in keys:
        if isinstance(saved, Mapping) and key not in saved:
            raise ValueError(f"the state has no tensor for {key}")
        if tensors[key].shape != saved[key].shape:
            raise ValueError(
                f"the state has a tensor of shape {tuple(saved[key].shape)}, not {tuple(tensors[key].shape)}"
            )
    for key in keys:
        tensors[key].copy_(saved[key])
