"""What the commands take: the types of their options, and what is checked before any work begins."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from supple.lab import data

DataName = Enum("DataName", {name: name for name in data.NAMES}, type=str)  # type: ignore[misc]
SetName = Enum("SetName", {name: name for name in data.DATA_SETS}, type=str)  # type: ignore[misc]


class Device(str, Enum):
    """Where to train."""

    cpu = "cpu"
    cuda = "cuda"


class Intervals(str, Enum):
    """Intervals over seeds."""

    student = "student"
    bca = "bca"
    percentile = "percentile"


DataDir = Annotated[
    Path | None,
    typer.Option(help="A folder with the files, compressed or not; it is only read, and nothing is downloaded."),
]
Verify = Annotated[bool, typer.Option(help="Whether files in --data-dir have to be those of the data set.")]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Shows errors whose message says all there is to say without a traceback, and exits with 1.

    Yields:
        Nothing.

    Raises:
        typer.Exit: in place of such an error.
    """
    try:
        yield
    except (OSError, ValueError, ModuleNotFoundError) as error:
        # A package of the lab extra that is missing has a name; main() says how to install it.
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error


def method_names(text: str, known: list[str]) -> list[str]:
    """Names of methods from a list with commas; base always comes first, because the others are compared with it.

    Args:
        text: the list, such as "swr,cbp".
        known: the names there are, the first of which is base.

    Returns:
        The names, each once, in the order of ``known``.

    Raises:
        typer.BadParameter: if there is no name, or one is unknown; the message suggests the nearest.
    """
    given = [part.strip().lower().replace("-", "_") for part in text.split(",") if part.strip()]
    if not given:
        raise typer.BadParameter(
            f"{text!r} names no method; give one or more of {', '.join(known)}, with commas between, or leave the "
            "option out for all.",
            param_hint="--methods",
        )
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise typer.BadParameter(
                f"there is no method {name!r}.{hint} There are {', '.join(known)}.", param_hint="--methods"
            )
    return [name for name in known if name in given or name == known[0]]


def writable(folder: Path) -> None:
    """Makes a folder and tries to write into it.

    Args:
        folder: the folder.

    Raises:
        OSError: if that does not work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write into {folder} ({reason}); give another folder with --out") from error


def chosen_data(name: DataName | None, folder: Path | None, verify: bool) -> str:
    """The data set that is meant: mnist where only a folder is given, and mnist10k where nothing is.

    Args:
        name: the name, if one is given.
        folder: the folder of the files, if one is given.
        verify: whether files in the folder have to be those of the data set.

    Returns:
        The name.

    Raises:
        typer.BadParameter: if the three do not fit together.
    """
    if folder is None and not verify:
        raise typer.BadParameter(
            "this is for files of your own: give their folder with --data-dir, or leave the option out.",
            param_hint="--no-verify",
        )
    if name is None:
        return "mnist" if folder else "mnist10k"
    if folder and name.value == "mnist10k":
        raise typer.BadParameter(
            "mnist10k is part of supple and is in no folder; leave one of the two out.", param_hint="--data-dir"
        )
    return name.value
