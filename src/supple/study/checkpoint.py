"""Checkpoints: nested states as one safetensors file, whose header holds what is no tensor as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from supple.packing import pack, unpack
from supple.study.files import replace


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
    text = json.dumps(pack(state, tensors))
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
        return dict(unpack(json.loads(text), tensors))
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint ({error})") from error
