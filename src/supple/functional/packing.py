"""Nested states as tensors and JSON, which safetensors files can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from supple.functional.sharding import gathered

_TENSOR, _TUPLE, _PAIRS = "$tensor", "$tuple", "$pairs"


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Takes the tensors out of a state.

    Args:
        value: numbers, strings, None, tensors, and lists, tuples and dicts of them. Of a sharded tensor the whole is
            taken, for which every process has to ask.
        tensors: where copies of the tensors go, on the CPU, by names of their own.

    Returns:
        What remains, which JSON can hold.

    Raises:
        TypeError: if the state holds something else.
    """
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}"
        # A copy, since tensors may share memory, which the format does not have.
        tensors[name] = gathered(value).to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: pack(entry, tensors) for key, entry in value.items()}
        return {_PAIRS: [[pack(key, tensors), pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [pack(entry, tensors) for entry in value]}
    if isinstance(value, list):
        return [pack(entry, tensors) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Puts the tensors back into a state.

    Args:
        value: what :func:`pack` gave.
        tensors: the tensors by their names.

    Returns:
        The state.
    """
    if isinstance(value, list):
        return [unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(unpack(entry, tensors) for entry in value[_TUPLE])
    if _PAIRS in value:
        return {unpack(key, tensors): unpack(entry, tensors) for key, entry in value[_PAIRS]}
    return {key: unpack(entry, tensors) for key, entry in value.items()}
