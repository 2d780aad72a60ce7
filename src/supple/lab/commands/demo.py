"""``supple demo``: loss of plasticity and its cures, on the command line."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from supple.lab import data
from supple.lab.commands.options import (
    DataDir,
    DataName,
    Device,
    Verify,
    chosen_data,
    method_names,
    plain_errors,
    writable,
)


def demo_command(
    context: typer.Context,
    tasks: Annotated[int, typer.Option(min=2, help="Tasks to learn, one after the other.")] = 75,
    seeds: Annotated[int, typer.Option(min=1, help="Networks a method, each with its own seed.")] = 5,
    methods: Annotated[
        str | None,
        typer.Option(help="Only these, such as swr,cbp; base is always among them.", show_default="all"),
    ] = None,
    data_name: Annotated[
        DataName | None, typer.Option("--data", help="The images.", show_default="mnist10k; mnist with --data-dir")
    ] = None,
    data_dir: DataDir = None,
    verify: Verify = True,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("supple-demo"),
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="Open the report when it is done.")] = False,
) -> None:
    """See a network lose its ability to learn, and the methods that prevent it.

    Trains small networks on one permuted-MNIST task after the other, plainly
    and with each method, all at once on one processor core, in about a minute.
    Writes a report, a figure and all numbers, in place of those of an earlier
    demo in the same folder.

    Ctrl-C stops early and writes a partial report of the tasks learned so far;
    a second Ctrl-C stops at once and writes nothing. The demo does not resume:
    the same command starts again from the first task.

    [bold]Examples[/]

    [dim]$[/] supple demo

    [dim]$[/] supple demo --tasks 30 --methods swr,cbp --out first-look

    [dim]$[/] supple demo --data fashion_mnist --device cuda --seeds 20

    [dim]$[/] supple demo --data-dir ~/datasets/mnist
    """
    from supple.lab import demo as lab
    from supple.lab.demo_report import FILES, Run, write
    from supple.lab.report.comparison import answer, summarize
    from supple.lab.report.console import Curves, Plain, Watcher, summary_table
    from supple.lab.study.assembly import assemble

    known = list(lab.study().methods)
    chosen = method_names(methods, known) if methods is not None else known
    name = chosen_data(data_name, data_dir, verify)
    if device is Device.cuda and not torch.cuda.is_available():
        raise typer.BadParameter(
            "torch finds no CUDA device; leave the option out to train on the CPU.", param_hint="--device"
        )
    numbers = list(range(seeds))
    with plain_errors():
        writable(out)
        images = data.load(name, data_dir, verify=verify)
        population = assemble(images, list(lab.columns(chosen).values()), numbers, device=device.value)
    console = Console()
    steps, networks = population.stream.steps, population.network.replicas
    console.print(
        f"Permuted {name}: {networks} networks, {seeds} for each of {', '.join(chosen)}; "
        f"{tasks} tasks of {steps} steps. Ctrl-C stops early with a partial report.",
        highlight=False,
    )
    watcher: Watcher = (
        Curves(console, chosen, tasks, steps, networks)
        if console.is_terminal
        else Plain(console, tasks, steps, networks)
    )
    run = Run(name, images, lab.study(), chosen, numbers, tasks, device.value, _command_line(context), own=not verify)
    with lab.one_thread(), lab.stops_on_interrupt() as check, watcher:

        def on_step() -> None:
            watcher.step()
            check()

        comparison, complete = lab.train(population, chosen, numbers, tasks, on_step=on_step, on_task=watcher.task)
    if comparison is None or comparison.tasks < 2:
        console.print(
            "Stopped before two tasks were learned: nothing was written. The demo does not resume; the same command "
            "starts again from the first task.",
            soft_wrap=True,
        )
        raise typer.Exit(130)
    summaries = summarize(comparison)
    earlier = any((out / file).exists() for file in FILES)
    with plain_errors():
        paths = write(out, run, comparison, summaries)
    console.print()
    console.print(summary_table(comparison, summaries))
    if not complete:
        console.print(
            f"\n[bold]Partial:[/] stopped after {comparison.tasks} of {tasks} tasks; all below is about those only. "
            "The demo does not resume: the same command starts again from the first task.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"\n{escape(answer(comparison, summaries))}\n", highlight=False)
    if earlier:
        console.print(f"Replaced the earlier report in {escape(str(out))}:", soft_wrap=True, highlight=False)
    for path in paths:
        console.print(f"  {escape(str(path))}", soft_wrap=True, highlight=False)
    if open_report:
        typer.launch(str(next(path for path in paths if path.suffix == ".html")))
    if not complete:
        raise typer.Exit(130)


def _command_line(context: typer.Context) -> str:
    """The command with every option that was given."""
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[parameter.name or ""]
            if isinstance(value, bool):
                given.append(parameter.opts[0] if value else parameter.secondary_opts[0])
            else:
                given.append(f"{parameter.opts[0]} {value.value if isinstance(value, Enum) else value}")
    return " ".join(["supple demo", *given])
