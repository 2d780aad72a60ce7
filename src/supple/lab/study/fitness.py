"""Whether a machine is fit to train parts of a study: it sees the folder, has the same versions, and the images."""

from __future__ import annotations

import platform
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl
import torch

import supple
from supple.lab.study import claims
from supple.lab.study.manifest import same_data
from supple.lab.study.problems import open_problem
from supple.lab.study.spec import from_dict


def installed() -> dict[str, str]:
    """The versions that results depend on."""
    return {
        "supple": supple.__version__,
        "torch": torch.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
    }


def device(kind: str) -> dict[str, str]:
    """The kind of processor of this machine, and "CPU" or the name of its GPU."""
    name = torch.cuda.get_device_name() if kind != "cpu" and torch.cuda.is_available() else "CPU"
    return {"processor": claims.processor(), "device": name}


@contextmanager
def token(folder: Path) -> Iterator[dict[str, Any]]:
    """What :func:`check` takes while this lasts: a file in the folder, which has to be claimed, that others see."""
    for left in folder.glob(".token-*"):
        left.unlink()  # by one that was killed
    path, text = folder / f".token-{uuid.uuid4().hex}", uuid.uuid4().hex
    path.write_text(text)
    try:
        yield {"token": [path.name, text], "versions": installed()}
    finally:
        with suppress(OSError):
            path.unlink()


def compare(versions: Mapping[str, str]) -> None:
    """ValueError if other versions are installed here than on the machine that asks."""
    here = installed()
    other = [
        f"{name} {here.get(name)} instead of {value}" for name, value in versions.items() if here.get(name) != value
    ]
    if other:
        raise ValueError(f"{socket.gethostname()} has {', '.join(other)}; install the same versions on all machines")


def check(
    folder: Path,
    token: tuple[str, str],
    versions: Mapping[str, str],
    study: Mapping[str, Any] | None = None,
    problem: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """ValueError or OSError, with the name of this machine, if it is not fit.

    ``versions`` are those of the one that asks. Where a study is given, its images have to be here, and the same.
    """
    host = socket.gethostname()
    try:
        seen = (folder / token[0]).read_text()
    except OSError:
        seen = ""
    if seen != token[1]:
        raise ValueError(
            f"{host} does not see the folder {folder}; give one with --out that lies on storage all machines share"
        )
    compare(versions)
    if study is None:
        return
    if (problem or {}).get("device", "cpu") != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"{host} has no CUDA device; leave --device out, or choose other machines")
    try:
        found = open_problem(from_dict(study, "the study"), **(problem or {})).identity()
    except (OSError, ValueError) as error:
        raise ValueError(f"{host} cannot open the problem: {error}") from error
    if not same_data(found, identity or {}):
        raise ValueError(
            f"{host} has other data under the name of {study['problem'].get('data', study['problem']['kind'])}"
        )
