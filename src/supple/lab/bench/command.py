"""``supple bench``: the benchmark on the command line."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from supple.lab.bench.plan import Plan
from supple.lab.bench.results import Results
from supple.lab.bench.running import run
from supple.lab.bench.table import show

QUICK: dict[str, Any] = {"widths": (10, 100), "optimizers": ("sgd",), "repeats": 2, "seconds": 0.3, "footprint": None}
"""What ``--quick`` measures less of."""
SCALING = (32, 64, 128, 256)
"""Numbers of replicas of ``--scaling``."""


def make_plan(quick: bool, **given: Any) -> Plan:
    """The plan for some options.

    Args:
        quick: whether to measure less.
        given: fields of :class:`supple.lab.bench.Plan`; None: as by default.

    Returns:
        The plan.

    Raises:
        ValueError: as :class:`supple.lab.bench.Plan`.
    """
    return replace(Plan(), **{**(QUICK if quick else {}), **{k: v for k, v in given.items() if v is not None}})


def bench_command(
    width: Annotated[
        list[int] | None,
        typer.Option(help="Units of each hidden layer; may be repeated.", show_default="10, 100, 1000"),
    ] = None,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(help="sgd or adamw; may be repeated. sgd is always among them.", show_default="both"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="swr, cbp, redo, l2 or shrink_and_perturb; may be repeated. base is always among them.",
            show_default="swr, cbp, redo",
        ),
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="How often all take their turn.", show_default="3")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of one turn.", show_default="1")] = None,
    replicas: Annotated[int, typer.Option(help="Networks of a population.")] = Plan.replicas,
    settings: Annotated[int, typer.Option(help="Networks of a population that share a seed.")] = Plan.settings,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = Plan.device,
    precision: Annotated[
        str, typer.Option(help="Of the engine's matrix products: float32, tf32 (on a GPU) or bfloat16.")
    ] = Plan.precision,
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Replay the engine's steps with SGD as CUDA graphs (on a GPU).")
    ] = Plan.graphs,
    quick: Annotated[bool, typer.Option("--quick", help="Half a minute instead of minutes; less exact.")] = False,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Also time and memory for 32 to 256 networks and one and two tasks.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for all numbers; - for standard output.", allow_dash=True)
    ] = None,
) -> None:
    """Measure how fast populations train here, against loops that train one network a process.

    Every contender has all cores, and all take turns, several times over: the engine with each optimizer and method, a
    plain training loop, a careful one, one in JAX where it is installed, and large matrix products for the machine's
    peak. Use a machine that does nothing else. Ctrl-C stops.

    [bold]Examples[/]

    [dim]$[/] supple bench

    [dim]$[/] supple bench --quick --json -

    [dim]$[/] supple bench --width 100 --method swr --method shrink_and_perturb --repeats 5
    """
    on_stdout = str(json_file) == "-"
    console = Console(stderr=on_stdout)
    try:
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch finds no CUDA device; leave the option out")
        plan = make_plan(
            quick,
            widths=tuple(width) if width else None,
            optimizers=tuple(dict.fromkeys(["sgd", *optimizer])) if optimizer else None,
            methods=tuple(dict.fromkeys(["base", *method])) if method else None,
            repeats=repeats,
            seconds=seconds,
            replicas=replicas,
            settings=settings,
            device=device,
            precision=precision,
            graphs=graphs,
            scaling=SCALING if scaling else None,
        )
        # A file that cannot be written is to be found out before the work; so it is not opened after it.
        with nullcontext() if on_stdout or json_file is None else json_file.open("w") as file:
            results = _run(plan, console)
            if file is not None:
                file.write(results.to_json() + "\n")
    except (OSError, ValueError, RuntimeError) as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        Console(stderr=True).print("Stopped; nothing was reported.")
        raise typer.Exit(130) from error
    console.print(show(results))
    if on_stdout:
        typer.echo(results.to_json())


def _run(plan: Plan, console: Console) -> Results:
    """Runs with a progress bar on a terminal, in silence elsewhere."""
    bar = Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("passed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=1)
        return run(plan, lambda done, total, text: bar.update(task, completed=done, total=total, description=text))
