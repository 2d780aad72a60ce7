"""The entry point of the command line; the commands are in :mod:`supple.lab.commands`."""

from __future__ import annotations

import codecs
import io
import sys

EXTRA = frozenset(
    {
        "jinja2",
        "matplotlib",
        "polars",
        "pooch",
        "pydantic",
        "rich",
        "safetensors",
        "scipy",
        "tomli",
        "typer",
    }
)
"""Packages that the command line needs and an installation without the lab extra leaves out."""

_PLAIN = {"±": "+-", "−": "-", "–": "-", "…": "...", **dict(zip("▁▂▃▄▅▆▇█", "12345678", strict=True))}
"""What stands for a character where an encoding does not have it; a bar becomes its height."""


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: replaces characters by :data:`_PLAIN`, and others by question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


def _print_anywhere() -> None:
    """Lets a standard output without these characters take plain ones, instead of failing when all work is done."""
    codecs.register_error("supple-plain", _in_plain_characters)
    # Standard error replaces what it cannot write anyway.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="supple-plain")


def main() -> None:
    """Runs the command line; where packages of the lab extra are missing, says how to install them."""
    _print_anywhere()
    try:
        from supple.lab.commands import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # Commands name files themselves; what is left is standard output, such as a file on a full disk.
        sys.exit(f"Error: cannot write {error.filename or 'the output'}: {error.strerror or error}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.exit(
            f"The command line needs {error.name}, which is not installed: "
            'run pip install ".[lab]" in a clone of supple'
        )
