"""``supple report``: figures, tables and verdicts from folders of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from supple.lab.commands.options import Intervals, plain_errors, writable


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
    intervals: Annotated[
        Intervals, typer.Option(help="Intervals over seeds; student holds with few seeds, the others are bootstraps.")
    ] = Intervals.student,
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

    [dim]$[/] supple report my-results --formats html,pdf,tex --intervals bca
    """
    chosen = chosen_formats(formats)
    place = out or (folders[0] / "report" if len(folders) == 1 else Path("supple-report"))
    console = Console()
    with plain_errors():
        from supple.lab.report.files import make_report, write_report
        from supple.lab.report.study_page import claims_summary

        with console.status("reading") if console.is_terminal else _Silence() as status:
            report = make_report(list(dict.fromkeys(folders)), intervals.value, status.update)
            writable(place)
            paths = write_report(report, place, chosen, status.update)
    for section in report.sections:
        console.print(f"\n[bold]{escape(section.measured.title)}[/]", highlight=False)
        if section.partial:
            console.print(f"[bold]Partial:[/] {escape(section.partial)}", highlight=False, soft_wrap=True)
        console.print(escape(section.answer), highlight=False, soft_wrap=True)
    console.print(f"\n{claims_summary(report.claims)}", highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 1), show_header=False)
    for claim in report.claims:
        table.add_row(claim.id, claim.verdict.value, claim.text)
    console.print(table)
    console.print()
    shown = [path for path in paths if path.parent == place] or paths
    for path in shown:
        console.print(f"  {escape(str(path))}", soft_wrap=True, highlight=False)
    if len(paths) > len(shown):
        folders_written = sorted({path.parent for path in paths if path not in shown})
        named = " and ".join(escape(str(folder)) for folder in folders_written)
        console.print(f"  {len(paths) - len(shown)} files in {named}", soft_wrap=True, highlight=False)
    if open_report and paths[0].suffix == ".html":
        typer.launch(str(paths[0]))


class _Silence:
    """Stands for a status line where there is no terminal."""

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def update(self, text: str) -> None:
        """Says nothing.

        Args:
            text: what is being done.
        """


def chosen_formats(text: str) -> list[str]:
    """Formats from a list with commas.

    Args:
        text: the list, such as "html,svg".

    Returns:
        The formats, each once.

    Raises:
        typer.BadParameter: if there is none, or one is unknown.
    """
    from supple.lab.report.files import FORMATS

    given = [part.strip().lower() for part in text.split(",") if part.strip()]
    wrong = [name for name in given if name not in FORMATS]
    if wrong or not given:
        named = f"there is no format {wrong[0]!r}" if wrong else f"{text!r} names no format"
        raise typer.BadParameter(f"{named}; give some of {', '.join(FORMATS)}.", param_hint="--formats")
    return list(dict.fromkeys(given))
