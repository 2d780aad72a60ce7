"""The commands: what they take, and what they say; a file each, imported when it is asked for."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import supple

COMMANDS = {
    "demo": "See a network lose its ability to learn, and the methods that prevent it.",
    "data": "List the data sets: which are here, where, and whether their content is right.",
    "methods": "List the methods, with their settings and defaults, or show one with its rule.",
    "plan": "Say what running a study will take here: runs, parts, memory and time, from a measurement of seconds.",
    "run": "Run a study, or what is missing of it.",
    "status": "Show how far a results folder is: parts done, running, lost and waiting, how fast, and the time left.",
    "report": "Show what studies found: a page with figures, tables and verdicts.",
    "leaderboard": "Rank the methods on a dozen small problems, each at the best of six settings.",
    "export": "Copy results into a small folder, to keep or to pass on.",
}
"""The commands with the first lines of their help, so that ``supple --help`` imports none of them."""

_PLACES = {"status": "cluster"}
"""The modules of commands that are in another than that of their name."""


class _Lazy(TyperGroup):
    """A group that imports a command when it is to run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and load(str(found.name)), rest


def load(name: str) -> Any:
    """Imports a command."""
    module = import_module(f"supple.lab.commands.{_PLACES.get(name, name)}")
    if name == "data":
        return typer.main.get_command(module.data_app)
    alone = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(module, f"{name}_command"))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="supple",
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


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
