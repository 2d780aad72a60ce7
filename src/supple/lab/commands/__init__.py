"""The commands: what they take, and what they say; a file each."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import supple
from supple.lab.commands.cluster import status_command
from supple.lab.commands.data import data_app
from supple.lab.commands.demo import demo_command
from supple.lab.commands.export import export_command
from supple.lab.commands.methods import methods_command
from supple.lab.commands.report import report_command
from supple.lab.commands.run import plan_command, run_command

app = typer.Typer(
    name="supple", no_args_is_help=True, rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False
)
app.command("demo")(demo_command)
app.add_typer(data_app, name="data")
app.command("methods")(methods_command)
app.command("plan")(plan_command)
app.command("run")(run_command)
app.command("status")(status_command)
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
    # Methods of one's own are found in the working directory; nothing in it hides what is installed.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
