"""``supple demo``: loss of plasticity and its cures, on the command line."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer
from rich.console import Console
from rich.table import Table as Printed

from supple.lab.commands.options import (
    DataDir,
    DataName,
    Device,
    Verify,
    Where,
    chosen_data,
    interruptible,
    method_names,
    plain_errors,
    say,
    writable,
)
from supple.lab.escaping import shown

if TYPE_CHECKING:
    from supple.lab.report.page import Report
    from supple.lab.report.tables import Table
    from supple.lab.study.results import Results

FILES = ("report.html", "accuracy.png", "accuracy.svg", "results.csv")
"""What the demo writes; nothing else in the folder is touched."""

CODE = """import supple

method = supple.SWR(model, optimizer, frequency=2048, factor=1e-5)
for x, y in stream:
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()
    method.step()  # after optimizer.step(), before the next zero_grad()"""

AGAIN = "The demo does not resume: the same command starts again from the first task."


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
    device: Where = Device.cpu,
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
    from supple.lab.commands.scale import scale
    from supple.lab.report.page import make_report
    from supple.lab.study import shipped
    from supple.lab.study.problems import open_problem
    from supple.lab.study.run_config import RunConfig
    from supple.lab.study.spec import read

    original = read(shipped.find("demo")[0])
    known = list(original.methods)
    chosen = method_names(methods, known) if methods is not None else known
    name = chosen_data(data_name, data_dir, verify)
    with plain_errors():
        study = scale(original, tasks, str(seeds), ",".join(chosen), DataName[name])
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            study, "demo", Path(folder), original, data_dir, verify, device.value, processes=1,
            command=_command_line(context),
        )  # fmt: skip
        with plain_errors():
            writable(out)
            problem = open_problem(study, data_dir, verify, **config.runtime)
            steps = problem.steps(tasks, study.run.seeds)[0]
        console.print(
            f"Permuted {name}: {seeds * len(chosen)} networks, {seeds} for each of {', '.join(chosen)}; "
            f"{tasks} tasks of {steps} steps. Ctrl-C stops early with a partial report.",
            highlight=False,
        )
        watcher = lab.Curves(console) if console.is_terminal else lab.TaskLines(console)
        with plain_errors(), interruptible() as stop, watcher:
            results = lab.train(config, problem, watcher, stop)
        learned = min(results.runs["done"])
        if learned < 2:
            console.print(f"Stopped before two tasks were learned: nothing was written. {AGAIN}", soft_wrap=True)
            raise typer.Exit(130)
        partial = f"The run was stopped after {learned} of {tasks} tasks, and this report is about those only. {AGAIN}"
        title = f"supple demo: permuted {_images(name, own=not verify)}"
        # The numbers lie in the folder of the report.
        report = make_report([replace(results, folder=out)], title=title, code=CODE, bins=25)
        report = report if learned == tasks else replace(report, partial=partial)
        earlier = any((out / file).exists() for file in FILES)
        with plain_errors():
            paths = write(out, report, results)
    view = report.views[0]
    console.print()
    console.print(_printed(view.table))
    if learned < tasks:
        say(f" {partial}", console, start="\nPartial:")
    console.print(shown(f"\n{view.answer}\n"), highlight=False)
    if earlier:
        say(f"Replaced the earlier report in {out}:", console)
    for path in paths:
        say(f"  {path}", console)
    if open_report:
        typer.launch(str(paths[0]))
    if learned < tasks:
        raise typer.Exit(130)


def write(out: Path, report: Report, results: Results) -> list[Path]:
    """Writes :data:`FILES`: the page, its first figure and all numbers."""
    from supple.lab.report.figures import Canvas, to_file
    from supple.lab.report.page import write_report
    from supple.lab.study import files

    drawing = next(report.views[0].figures()).draw(Canvas())
    methods = results.runs["method"].unique(maintain_order=True)
    rows = results.tasks.join(results.runs.select("run", pl.col("method").cast(pl.Enum(methods)), "seed"), on="run")
    rows = rows.sort("task", "method", "seed").with_columns(pl.col("task") + 1, pl.col(pl.Float32).cast(pl.Float64))
    rows = rows.rename({"dead": "dead_share"})
    rows = rows.select("task", "method", "seed", "accuracy", "loss", "dead_share", "reinitialized")
    with files.arriving(out) as place:
        write_report(report, place, ("html",))
        _, png, svg, numbers = (place / name for name in FILES)
        png.write_bytes(to_file(drawing, "png"))
        svg.write_bytes(to_file(drawing, "svg"))
        numbers.write_bytes(rows.write_csv().encode())
    return [out / name for name in FILES]


def _images(name: str, own: bool) -> str:
    """What the images are called."""
    from supple.lab.report.facts import source

    known = source(name)
    return "images" if own else name if known is None else known.title


def _printed(table: Table) -> Printed:
    """What of a table of methods fits a terminal."""
    columns = ("method", "after 10%", "final", "change", "dead, %", "reinitialized")
    printed = Printed(box=None, padding=(0, 1), header_style="bold", caption=shown(table.note), caption_justify="left")
    for name in columns:
        printed.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(shown(row[list(table.header).index(name)]) for name in columns))
    return printed


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
