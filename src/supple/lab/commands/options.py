"""What several commands take: the types of their options, and what is checked before any work begins."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console

from supple.lab import data
from supple.lab.escaping import shown
from supple.lab.population.layers import PRECISIONS
from supple.lab.study.errors import did_you_mean

DataName = Enum("DataName", {name: name for name in data.NAMES}, type=str)  # type: ignore[misc]
ProductPrecision = Enum("ProductPrecision", {name: name for name in PRECISIONS}, type=str)  # type: ignore[misc]
SetName = Enum("SetName", {name: name for name in data.DATA_SETS}, type=str)  # type: ignore[misc]


class Device(str, Enum):
    """Where to train."""

    cpu = "cpu"
    cuda = "cuda"


def there(device: Device) -> Device:
    """Refuses a GPU where torch finds none."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise typer.BadParameter(
            "torch finds no CUDA device; leave the option out to train on the CPU.", param_hint="--device"
        )
    return device


Where = Annotated[Device, typer.Option(help="Where to train.", callback=there)]
DataDir = Annotated[
    Path | None,
    typer.Option(help="A folder with the files, compressed or not; it is only read, and nothing is downloaded."),
]
Verify = Annotated[bool, typer.Option(help="Whether files in --data-dir have to be those of the data set.")]


def say(text: object, console: Console | None = None, start: str = "") -> None:
    """Prints lines of text as they are, with a bold start."""
    (console or Console()).print(shown(start, "bold") + shown(text), highlight=False, soft_wrap=True)


def say_error(error: object) -> None:
    """Prints what went wrong to standard error."""
    Console(stderr=True).print(shown("Error: ", "bold red") + shown(error), highlight=False, soft_wrap=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Shows errors whose message says all there is to say without a traceback, and exits with 1."""
    try:
        yield
    except (OSError, ValueError, MemoryError, ModuleNotFoundError) as error:
        # A package of the lab extra that is missing has a name; main() says how to install it.
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise
        say_error(error)
        raise typer.Exit(1) from error


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Makes Ctrl-C, or a request to end, set an event; a second Ctrl-C interrupts at once.

    Schedulers ask with SIGTERM or SIGUSR1.
    """
    stop = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    names = ("SIGINT", "SIGTERM", "SIGUSR1")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, on_interrupt) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def names_in(text: str) -> list[str]:
    """The names of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def method_names(text: str, known: list[str]) -> list[str]:
    """Names of methods from a list with commas, each once, in the order of those known.

    The first known one, base, always comes first, because the others are compared with it.
    """
    given = [name.lower().replace("-", "_") for name in names_in(text)]
    if not given:
        raise typer.BadParameter(
            f"{text!r} names no method; give one or more of {', '.join(known)}, with commas between, or leave the "
            "option out for all.",
            param_hint="--methods",
        )
    for name in given:
        if name not in known:
            raise typer.BadParameter(
                f"there is no method {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}.",
                param_hint="--methods",
            )
    return [name for name in known if name in given or name == known[0]]


def writable(folder: Path) -> None:
    """Makes a folder and tries to write into it; OSError if that does not work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write into {folder} ({reason}); give another folder with --out") from error


def chosen_data(name: DataName | None, folder: Path | None, verify: bool) -> str:
    """The data set that is meant: mnist where only a folder is given, and mnist10k where nothing is."""
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
