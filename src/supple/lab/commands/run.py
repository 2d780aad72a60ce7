"""``supple run``: a study, or what is missing of it, on the command line."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from supple.lab.commands.options import DataDir, DataName, Device, Verify, plain_errors, writable
from supple.lab.study import shipped
from supple.lab.study.crew import Outcome
from supple.lab.study.mistakes import StudyError, nearest
from supple.lab.study.order import Order
from supple.lab.study.running import run
from supple.lab.study.spec import Study, from_dict, read
from supple.lab.study.watching import Bars, Lines


def scale(
    study: Study,
    tasks: int | None,
    seeds: str | None,
    methods: str | None,
    data_name: str | None,
    epochs: int | None = None,
) -> Study:
    """Cuts a study down to what the command line asks for.

    Args:
        study: the study.
        tasks: tasks of each run; None: as many as the study says.
        seeds: how many seeds, or which, such as "5" or "0,3,7"; None: those of the study.
        methods: names of methods with commas between; None: all.
        data_name: the images; None: those of the study.
        epochs: epochs of each task, where there are any; None: as many as the study says.

    Returns:
        The study as it is run.

    Raises:
        StudyError: if a method is not in the study, or a value makes no sense; the message says which.
    """
    content = study.model_dump(mode="json")
    if tasks is not None:
        content["run"]["tasks"] = tasks
    if seeds is not None:
        try:
            numbers = [int(part) for part in seeds.split(",") if part.strip()]
        except ValueError as error:
            raise StudyError(
                f"--seeds is {seeds!r}; give how many, such as 5, or which, such as 0,3,7 or 3,"
            ) from error
        content["run"]["seeds"] = numbers if "," in seeds else numbers[0] if numbers else 0
    if methods is not None:
        chosen = [part.strip() for part in methods.split(",") if part.strip()]
        for name in chosen:
            if name not in study.methods:
                raise StudyError(f"--methods: in this study {nearest(name, study.methods)}")
        if not chosen:
            raise StudyError(f"--methods is {methods!r}; give some of {', '.join(study.methods)}, or leave it out")
        content["methods"] = {name: content["methods"][name] for name in study.methods if name in chosen}
    if data_name is not None:
        content["problem"]["data"] = data_name
    if epochs is not None:
        if "epochs" not in content["problem"]:
            raise StudyError("--epochs: a task of permuted images is one pass over them; leave it out, or give --tasks")
        content["problem"]["epochs"] = epochs
    return from_dict(content, "command line")


StudyName = Annotated[str, typer.Argument(help="A study file, or the name of a study that comes with supple.")]
Tasks = Annotated[int | None, typer.Option(min=1, help="Tasks of each run.", show_default="as the study")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of each task, where classes are added.", show_default="as the study")
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="How many seeds, or which: 5, or 0,3,7, or 3, with a comma for one.", show_default="as the study"
    ),
]
Methods = Annotated[str | None, typer.Option(help="Only these methods, such as swr,cbp.", show_default="all")]
Data = Annotated[DataName | None, typer.Option("--data", help="Other images.", show_default="as the study")]
Where = Annotated[Device, typer.Option(help="Where to train.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that train at the same time.", show_default="one a core; one for a GPU"),
]
Memory = Annotated[
    float | None,
    typer.Option(help="GB that a process may take.", show_default="3/4 of what is free, shared by the processes"),
]


def check_options(device: Device, memory: float | None) -> int | None:
    """Checks options that need no study.

    Args:
        device: where to train.
        memory: GB that a process may take.

    Returns:
        Bytes that a process may take; None where nothing was said.

    Raises:
        typer.BadParameter: if there is no such device, or no such memory.
    """
    if device is Device.cuda and not torch.cuda.is_available():
        raise typer.BadParameter(
            "torch finds no CUDA device; leave the option out to train on the CPU.", param_hint="--device"
        )
    if memory is not None and not 0 < memory < 1e6:
        raise typer.BadParameter(f"it is {memory:g}; it has to be above 0, in GB.", param_hint="--memory")
    return None if memory is None else int(memory * 1e9)


def run_command(
    study: StudyName,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="supple-results/STUDY")
    ] = None,
    tasks: Tasks = None,
    seeds: Seeds = None,
    methods: Methods = None,
    epochs: Epochs = None,
    data_name: Data = None,
    data_dir: DataDir = None,
    verify: Verify = True,
    device: Where = Device.cpu,
    processes: Processes = None,
    memory: Memory = None,
) -> None:
    """Run a study, or what is missing of it.

    Results are written as they come. Ctrl-C stops; after that, or a crash, or
    a loss of power, the same command goes on where it was, and ends with the
    same results. With more seeds, methods or tasks than before it runs only
    what is missing. [bold]supple plan[/] says before how long it will take.

    [bold]Examples[/]

    [dim]$[/] supple run permuted_mnist/small --tasks 20 --seeds 2 --data mnist10k

    [dim]$[/] supple run permuted_mnist/small --data-dir ~/datasets/mnist --methods base,swr

    [dim]$[/] supple run incremental_cifar100/regular --device cuda

    [dim]$[/] supple run my-study.toml --out results/my-study
    """
    console = Console()
    allowed = check_options(device, memory)
    with plain_errors():
        path, name = shipped.find(study)
        original = read(path)
        chosen = scale(original, tasks, seeds, methods, data_name.value if data_name else None, epochs)
        folder = out or Path("supple-results") / name
        writable(folder)
        command = shlex.join(["supple", *sys.argv[1:]])
        order = Order(chosen, name, folder, original, data_dir, verify, device.value, processes, allowed, command)
        console.print(
            f"{chosen.title}: {len(chosen.columns) * len(chosen.run.seeds):,} runs, {chosen.run.tasks:,} tasks each, "
            f"into {folder}. Ctrl-C stops; the same command goes on.",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
        outcome = _watched(order, console)
    for message in outcome.errors:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    if outcome.complete:
        console.print(f"Done: all results are in {folder}.", highlight=False, soft_wrap=True, markup=False)
        return
    console.print("Not complete; the same command goes on where it was.", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if outcome.errors else 130)


def _watched(order: Order, console: Console) -> Outcome:
    """Runs an order; Ctrl-C stops it, and a second one at once."""
    stop = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Bars(console) if console.is_terminal else Lines(console) as watcher:
            return run(order, watcher, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
