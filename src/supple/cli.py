"""The entry point of the command line; the commands are in :mod:`supple.commands`."""

from __future__ import annotations

import sys

EXTRA = frozenset({"jinja2", "matplotlib", "pooch", "rich", "scipy", "typer"})
"""Packages that the command line needs and ``pip install supple`` leaves out."""


def main() -> None:
    """Runs the command line; where packages of the study extra are missing, says how to install them."""
    try:
        from supple.commands import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(f'The command line needs {error.name}, which is not installed: pip install "supple[study]"')
