"""``supple report``: figures, tables and verdicts from folders of results."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import names_in, plain_errors, say, writable
from supple.lab.escaping import shown


def report_command(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that supple run wrote, finished or not.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report.", show_default="FOLDER/report for one folder, supple-report for several"
        ),
    ] = None,
    formats: Annotated[
        str, typer.Option(help="What to write, of html, svg, png, pdf, md, tex and csv.")
    ] = "html,svg,md,tex,csv",
    open_report: Annotated[bool, typer.Option("--open/--no-open", help="Open the page when it is done.")] = False,
) -> None:
    """Show what studies found: a page with figures, tables and verdicts.

    Compares the methods of each folder seed by seed, shows sweeps, and tests
    the claims of the paper on all folders together. Of a study that is not
    finished the report is partial and says so; run it again later.

    Writes report.html, figures/ and tables/, in place of those of an earlier
    report in the same folder.

    [bold]Examples[/]

    [dim]$[/] supple report supple-results/permuted_mnist/small

    [dim]$[/] supple report supple-results/permuted_mnist/* --out paper --open

    [dim]$[/] supple report my-results --formats html,pdf,tex
    """
    chosen = chosen_formats(formats)
    place = out or (folders[0] / "report" if len(folders) == 1 else Path("supple-report"))
    console = Console()
    with plain_errors():
        from supple.lab.report.page import make_report, write_report
        from supple.lab.studies.claims import check_claims
        from supple.lab.study.results import scan

        with console.status("reading") if console.is_terminal else nullcontext() as status:
            told = (lambda text: status.update(shown(text))) if status is not None else lambda text: None
            results = [scan(folder) for folder in dict.fromkeys(folders)]
            report = make_report(results, told, claims=check_claims)
            writable(place)
            paths = write_report(report, place, chosen, told)
    for view in report.views:
        say("", console, start=f"\n{view.title}")
        if view.partial:
            say(f" {view.partial}", console, start="Partial:")
        say(view.answer, console)
    say(f"\n{report.claims_summary}", console)
    table = Table(box=None, padding=(0, 1), show_header=False)
    for claim in report.claims:
        table.add_row(claim.id, claim.verdict.value, claim.text)
    console.print(table)
    console.print()
    named = [path for path in paths if path.parent == place] or paths
    for path in named:
        say(f"  {path}", console)
    if len(paths) > len(named):
        others = " and ".join(sorted({str(path.parent) for path in paths if path not in named}))
        say(f"  {len(paths) - len(named)} files in {others}", console)
    if open_report and paths[0].suffix == ".html":
        typer.launch(str(paths[0]))


def chosen_formats(text: str) -> list[str]:
    """Formats from a list with commas, such as "html,svg", each once."""
    from supple.lab.report.page import FORMATS

    given = [name.lower() for name in names_in(text)]
    wrong = [name for name in given if name not in FORMATS]
    if wrong or not given:
        named = f"there is no format {wrong[0]!r}" if wrong else f"{text!r} names no format"
        raise typer.BadParameter(f"{named}; give some of {', '.join(FORMATS)}.", param_hint="--formats")
    return list(dict.fromkeys(given))
