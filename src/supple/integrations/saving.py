"""A method's state in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from supple.functional.sharding import gathered

_TENSOR = "tensor:"


def save(state: dict[str, Any], path: str | Path, write: bool = True) -> None:
    """Writes a state into a file: tensors as tensors, all else as JSON in its header.

    Args:
        state: the state of a method, from ``state_dict()``; its strings don't begin with "tensor:".
        path: the file.
        write: whether this process writes; where several processes hold parts of tensors, all of them take part.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    text = json.dumps(_without_tensors(state, tensors))
    if write:
        save_file(tensors, path, metadata={"state": text})


def load(path: str | Path) -> dict[str, Any]:
    """Reads what :func:`save` wrote.

    Args:
        path: the file.

    Returns:
        The state, its tensors on the CPU.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return _with_tensors(json.loads(file.metadata()["state"]), file)


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = gathered(value).to("cpu", copy=True).contiguous()
        return _TENSOR + name
    if isinstance(value, dict):
        return {key: _without_tensors(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, tensors) for part in value]
    return value


def _with_tensors(value: Any, file: Any) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return file.get_tensor(value.removeprefix(_TENSOR))
    if isinstance(value, dict):
        return {key: _with_tensors(part, file) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_tensors(part, file) for part in value]
    return value
