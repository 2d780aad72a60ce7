"""``supple methods``: the methods that there are, and what one of them does."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import plain_errors
from supple.lab.escaping import shown
from supple.methods import DASH, Method
from supple.methods.boundary import BoundaryMethod
from supple.methods.penalty import Penalty
from supple.methods.registry import METHODS, defaults, find
from supple.methods.reshaping import Reshaping
from supple.methods.units import UnitMethod


def methods_command(
    name: Annotated[
        str | None, typer.Argument(help="One of them, or package.module:Class of your own.", show_default="all")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/methods.md.")] = False,
) -> None:
    """List the methods, with their settings and defaults, or show one with its rule.

    The settings marked with * switch a method off where they are 0. All of
    them can be compared in a study: [bold]supple run[/].

    [bold]Examples[/]

    [dim]$[/] supple methods

    [dim]$[/] supple methods swr

    [dim]$[/] supple methods my_methods:Mine
    """
    if markdown:
        typer.echo(documented())
        return
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
        told = f"acts on {acts_on(method)}; needs {about.needs}; keeps {about.keeps}; costs {about.cost_text}"
        text = shown(f"{about.label}: {about.title}. {about.source}\n{told}; since {about.since}\n")
        text += shown("  ".join(settings), "dim")
        if about.ranges:
            text += shown(
                f"\ncompared over {', '.join(f'{name} {_span(some)}' for name, some in about.ranges.items())}"
            )
        table.add_row(shown(about.name), text)
    return table


def documented() -> str:
    """The methods as a page in Markdown, docs/methods.md."""
    rows = ["| method | what it does | acts on | needs | keeps | costs | settings | since | source |", "|" + "---|" * 9]
    for method in METHODS.values():
        about = method.about
        cells = [
            f"`supple.{method.__name__}`",
            about.title,
            acts_on(method),
            about.needs,
            about.keeps,
            about.cost_text,
            ", ".join(f"`{name}={value!r}`" for name, value in defaults(method).items() if name != "optimizer_state"),
            about.since,
            about.source,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return _PAGE + "\n".join(rows)


def acts_on(method: type[Method]) -> str:
    """What a method changes, in words."""
    if issubclass(method, UnitMethod):
        return "hidden units"
    if issubclass(method, BoundaryMethod | DASH):
        return "weights, at a boundary"
    if issubclass(method, Penalty):
        return "the loss"
    return "the update" if issubclass(method, Reshaping) else "weights"


def _span(values: Sequence[object]) -> str:
    """Such as "1e-06 to 0.1", or "1, 5, 10"."""
    return " to ".join(map(str, values)) if len(values) == 2 else "/".join(map(str, values))


_PAGE = """# The methods

Made by `supple methods --markdown`. Besides what *needs* says, every method needs `step()` after
`optimizer.step()`, but for those that act at a boundary only. Methods that replace values also have
`optimizer_state`, whose default depends on the optimizer ([what optimizers remember](optimizers.md)). What each does
exactly, with its rule, is in its docstring: `supple methods NAME`. What each *costs* is the time that it adds on
average to a training step of a ResNet-18 and to one of a transformer with 25 million parameters, on two cores of a CPU
([how it was measured](performance.md#what-a-method-costs)).

"""
