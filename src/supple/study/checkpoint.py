"""Checkpoints: nested states as one safetensors file, whose header holds what is no tensor as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from supple.study.files import replace

_TENSOR, _TUPLE, _PAIRS = "$tensor", "$tuple", "$pairs"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state; the file is replaced as a whole or not at all.

    Args:
        path: the file.
        state: numbers, strings, None, tensors, and lists, tuples and dicts of them.

    Raises:
        TypeError: if the state holds something else.
        OSError: if the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_pack(state, tensors))
    replace(path, lambda new: save_file(tensors, new, {"state": text}))


def load(path: Path) -> dict[str, Any]:
    """Reads what :func:`save` wrote.

    Args:
        path: the file.

    Returns:
        The state, with tensors on the CPU.

    Raises:
        ValueError: if the file is damaged or no checkpoint.
        OSError: if it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["state"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return dict(_unpack(json.loads(text), tensors))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint ({error})") from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d}"
        # A copy, since tensors may share memory, which the format does not have.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _pack(entry, tensors) for key, entry in value.items()}
        return {_PAIRS: [[_pack(key, tensors), _pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_pack(entry, tensors) for entry in value]}
    if isinstance(value, list):
        return [_pack(entry, tensors) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: {value!r}")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _TUPLE in value:
        return tuple(_unpack(entry, tensors) for entry in value[_TUPLE])
    if _PAIRS in value:
        return {_unpack(key, tensors): _unpack(entry, tensors) for key, entry in value[_PAIRS]}
    return {key: _unpack(entry, tensors) for key, entry in value.items()}
