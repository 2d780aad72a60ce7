"""``supple export``: a small copy of results, to keep or to pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from supple.lab.commands.options import plain_errors, say, writable


def export_command(
    folder: Annotated[Path, typer.Argument(help="Folder that supple run wrote, finished or not.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the copy.", show_default=False)],
    csv: Annotated[bool, typer.Option("--csv", help="Write each table as CSV too, for other programs.")] = False,
) -> None:
    """Copy results into a small folder, to keep or to pass on.

    The copy has one file a table and no checkpoints. [bold]supple report[/] and
    supple.lab.load read it like the original; supple run cannot go on from it.

    [bold]Examples[/]

    [dim]$[/] supple export supple-results/permuted_mnist/small results/small

    [dim]$[/] supple export supple-results/permuted_mnist/small small --csv
    """
    with plain_errors():
        from supple.lab.study.results import export

        writable(out)
        results = export(folder, out, csv=csv)
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    say(f"{len(results.runs):,} runs with {len(results.tasks):,} tasks in {out}, {size / 1e6:.1f} MB")
