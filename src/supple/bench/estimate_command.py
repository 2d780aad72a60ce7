"""``supple plan``: what training a population will take, on the command line."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from supple.bench.crew import cores
from supple.bench.estimate import Estimate, estimate
from supple.bench.settings import METHODS, STEP_SIZES
from supple.study.watching import duration


def plan_command(
    width: Annotated[int, typer.Option(min=1, help="Units of each hidden layer.")] = 10,
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(METHODS)}; may be repeated.", show_default="all"),
    ] = None,
    optimizer: Annotated[str, typer.Option(help=", ".join(STEP_SIZES))] = "sgd",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each method.")] = 30,
    settings: Annotated[int, typer.Option(min=1, help="Networks a seed, each with settings of its own.")] = 1,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each network.")] = 1000,
    images: Annotated[int, typer.Option(min=30, help="Images a task.")] = 60_000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    memory: Annotated[
        float | None,
        typer.Option(help="GB a process may take.", show_default="3/4 of what is available, shared by the cores"),
    ] = None,
) -> None:
    """Say what training many networks will take here: memory, parts and time, from a measurement of seconds.

    Networks are those of permuted MNIST, 784-h-h-h-10 at batch 30, at the study's settings. Nothing is kept.

    [bold]Examples[/]

    $ supple plan --width 10 --seeds 30 --tasks 1000

    $ supple plan --width 100 --method swr --settings 36 --seeds 10
    """
    error = Console(stderr=True)
    for name, value, known in (
        *(("--method", one, METHODS) for one in method or ()),
        ("--optimizer", optimizer, tuple(STEP_SIZES)),
        ("--device", device, ("cpu", "cuda")),
    ):
        if value not in known:
            error.print(f"[bold red]Error:[/] {name} is {value!r}; it has to be one of {', '.join(known)}")
            raise typer.Exit(2)
    if memory is not None and not 0 < memory < 1e6:
        error.print(f"[bold red]Error:[/] --memory is {memory:g}; it has to be above 0, in GB")
        raise typer.Exit(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        allowed = None if memory is None else int(memory * 1e9)
        found = estimate(width, tuple(method or METHODS), optimizer, seeds, settings, tasks, images, device, allowed)
    except (ValueError, RuntimeError) as wrong:
        error.print(f"[bold red]Error:[/] {escape(str(wrong))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from wrong
    finally:
        torch.set_num_threads(threads)
    Console().print(_table(found, 1 if device == "cuda" else len(cores())))


def _table(found: list[Estimate], cores: int) -> Table:
    first = found[0]
    total = sum(one.seconds for one in found)
    table = Table(
        caption=f"{first.steps:,} steps of each network; {first.networks:,} networks a method, in {first.parts} "
        f"part{'s' if first.parts > 1 else ''} of at most {first.part}, {first.memory / 1e6:,.0f} MB. All methods: "
        f"{duration(total)} in one process"
        + (f", {duration(total / cores)} with one on each of {cores} cores." if cores > 1 else "."),
        caption_justify="left",
    )
    for heading in ("method", "networks", "network steps", "GFLOP", "steps/s a process", "time, one process"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for one in found:
        table.add_row(
            one.method,
            f"{one.networks:,}",
            f"{one.networks * one.steps:,}",
            f"{one.flops / 1e9:,.0f}",
            f"{one.rate:,.0f}",
            duration(one.seconds),
        )
    return table
