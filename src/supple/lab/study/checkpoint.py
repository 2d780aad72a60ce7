"""Checkpoints: nested states as one safetensors file, whose header holds what is no tensor as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from supple.functional.packing import pack, unpack
from supple.lab.study.files import replace


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state of numbers, strings, None, tensors, and lists, tuples and dicts of them.

    The file is replaced as a whole or not at all.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(state, tensors))
    content = save_tensors(tensors, {"state": text})
    replace(path, lambda new: new.write_bytes(content))


def load(path: Path) -> dict[str, Any]:
    """Reads what :func:`save` wrote, with tensors on the CPU; ValueError if the file is damaged or no checkpoint."""
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return dict(unpack(_packed(file), tensors))


def number(path: Path, name: str) -> int:
    """Reads one whole number at the top of a state, and nothing else."""
    with _opened(path) as file:
        return int(_packed(file)[name])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint ({error}); put it back from a copy, or delete the folder it is in to "
            "train its runs again from the first task"
        ) from error


def _packed(file: Any) -> dict[str, Any]:
    return dict(json.loads((file.metadata() or {})["state"]))
