"""Checks that methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


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
        ValueError: if there are more or fewer, as when a moving average was turned on or off in between.
    """
    if len(tensors) != len(saved):
        raise ValueError(
            f"the state has {len(saved)} tensors where {len(tensors)} are needed; was it saved with other settings?"
        )
    for key in tensors if isinstance(tensors, Mapping) else range(len(tensors)):
        tensors[key].copy_(saved[key])
