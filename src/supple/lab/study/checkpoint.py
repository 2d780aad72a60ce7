"""Checkpoints: nested states as one safetensors file, whose header holds what is no tensor as JSON."""

from __future__ import annotations

import io
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from supple.functional.packing import pack, unpack
from supple.lab.study import files

REMEDY = "supple run trains the runs of its part again; without it, their results count as they are"

_LONGEST = 100_000_000
"""Bytes of a header that safetensors allows."""


def dump(state: Mapping[str, Any]) -> bytes:
    """The file of a state of numbers, strings, None, tensors, and lists, tuples and dicts of them."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(state, tensors))
    return save_tensors(tensors, {"state": text})


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state; the file is replaced as a whole or not at all."""
    files.replace(path, dump(state))


def load(path: Path) -> dict[str, Any]:
    """Reads what :func:`dump` gave, with tensors on the CPU; ``Damaged`` if the file is that, or no checkpoint."""

    def parse(content: bytes) -> dict[str, Any]:
        return dict(unpack(_packed(io.BytesIO(content)), load_tensors(content)))

    return files.read(path, parse, REMEDY)


def number(path: Path, name: str) -> int:
    """Reads one whole number at the top of a state, and nothing else."""

    def parse() -> int:
        with files.opened(path) as file:
            return operator.index(_packed(file)[name])

    return files.parsed(path, parse, REMEDY)


def _packed(file: BinaryIO) -> dict[str, Any]:
    """What is no tensor; it stands in the header, which follows its length of eight bytes."""
    header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST)))
    return dict(json.loads(header["__metadata__"]["state"]))
