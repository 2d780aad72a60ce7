"""The commands: what they take, and what they say; a file each."""

from __future__ import annotations

from typing import Annotated

import typer

import supple
from supple.lab.bench.command import bench_command
from supple.lab.commands.data import data_app
from supple.lab.commands.demo import demo_command
from supple.lab.commands.export import export_command
from supple.lab.commands.plan import plan_command
from supple.lab.commands.report import report_command
from supple.lab.commands.run import run_command

app = typer.Typer(
    name="supple", no_args_is_help=True, rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False
)
app.command("demo")(demo_command)
app.add_typer(data_app, name="data")
app.command("bench")(bench_command)
app.command("plan")(plan_command)
app.command("run")(run_command)
app.command("report")(report_command)
app.command("export")(export_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"supple {supple.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keeps neural networks able to learn.

    Start with:  [bold]supple demo[/]
    """
