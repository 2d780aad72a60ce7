"""``supple methods``: the methods that there are, and what one of them does."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import plain_errors
from supple.lab.escaping import shown
from supple.methods import Method
from supple.methods.registry import METHODS, defaults, find


def methods_command(
    name: Annotated[
        str | None, typer.Argument(help="One of them, or package.module:Class of your own.", show_default="all")
    ] = None,
) -> None:
    """List the methods, with their settings and defaults, or show one with its rule.

    The settings marked with * switch a method off where they are 0. All of
    them can be compared in a study: [bold]supple run[/].

    [bold]Examples[/]

    [dim]$[/] supple methods

    [dim]$[/] supple methods swr

    [dim]$[/] supple methods my_methods:Mine
    """
    if name is None:
        Console().print(_table(list(METHODS.values())))
        return
    with plain_errors():
        method = find(name)
    Console().print(_table([method]))
    typer.echo("\n" + inspect.cleandoc(method.__doc__ or ""))


def _table(methods: list[type[Method]]) -> Table:
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for method in methods:
        about = method.about
        settings = [
            f"{setting}={default!r}{'*' if setting in about.strength else ''}"
            for setting, default in defaults(method).items()
        ]
        text = shown(f"{about.label}: {about.title}. {about.source}\n") + shown("  ".join(settings), "dim")
        table.add_row(shown(about.name), text)
    return table
