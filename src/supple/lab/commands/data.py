"""``supple data``: the data sets that are here, and fetching others."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supple.lab import data
from supple.lab.commands.options import DataDir, SetName, Verify, plain_errors, say
from supple.lab.escaping import shown

data_app = typer.Typer(no_args_is_help=False, rich_markup_mode="rich")


@data_app.callback(invoke_without_command=True)
def data_list(context: typer.Context, data_dir: DataDir = None) -> None:
    """List the data sets: which are here, where, and whether their content is right.

    [bold]Examples[/]

    [dim]$[/] supple data

    [dim]$[/] supple data --data-dir ~/datasets

    [dim]$[/] supple data fetch mnist
    """
    if context.invoked_subcommand:
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("data set", "here", "verified", "size", "licence", "where"):
        table.add_column(column, no_wrap=column != "where", overflow="fold")
    table.add_row("mnist10k", "yes", "yes", "1 MB", "CC BY-SA 3.0", "part of supple")
    with plain_errors():
        for state in data.states(data_dir):
            size = sum(file.path.stat().st_size for file in state.files if file.path)
            table.add_row(
                state.source.name,
                "yes" if state.present else "no",
                "yes" if state.verified else "no",
                f"{size / 1e6:.0f} MB" if size else "-",
                state.source.licence,
                shown(state.folder / state.source.name if data_dir is None else state.folder),
            )
    Console().print(table)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[SetName, typer.Argument(help="The data set.")], data_dir: DataDir = None, verify: Verify = True
) -> None:
    """Download a data set into the cache, or check the files in a folder.

    [bold]Examples[/]

    [dim]$[/] supple data fetch mnist

    [dim]$[/] supple data fetch fashion_mnist --data-dir ~/datasets
    """
    with plain_errors():
        for path in data.fetch(name.value, data_dir, verify=verify).values():
            say(path)
