"""What a report of studies writes: a page, and each figure and table in files of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from supple.lab.report.bootstrap import IntervalKind
from supple.lab.report.claims import check_claims
from supple.lab.report.drawing import NARROW, WIDE, to_pdf, to_png, to_svg, to_themed_svg
from supple.lab.report.evidence import Claim
from supple.lab.report.incremental.resets import partial_resets
from supple.lab.report.measured import Measured, measure
from supple.lab.report.section import Section
from supple.lab.report.study_page import Shown, image, render_studies
from supple.lab.report.style import LIGHT, MethodStyle
from supple.lab.report.tables import Table, claims_table, points_table
from supple.lab.report.variants import row_styles
from supple.lab.report.views import figures_of, section_of, table_of
from supple.lab.study.results import load

FORMATS = ("html", "svg", "png", "pdf", "md", "tex", "csv")
"""What there is: the page, three forms of each figure, three of each table."""

USUAL = ("html", "svg", "md", "tex", "csv")
"""What is written unless something else is asked for."""

_FIGURES: Mapping[str, Callable[[Figure], bytes]] = {"svg": to_svg, "png": to_png, "pdf": to_pdf}
_TABLES: Mapping[str, Callable[[Table], str]] = {
    "md": Table.to_markdown,
    "tex": Table.to_latex,
    "csv": Table.to_csv,
}

Progress = Callable[[str], None]
"""Told what is being done, before it is."""


@dataclass(frozen=True, eq=False)
class Report:
    """What a report is about.

    Args:
        sections: the folders.
        claims: the claims on all of them.
        styles: for each name of a method how it is shown.
    """

    sections: Sequence[Section]
    claims: Sequence[Claim]
    styles: Mapping[str, MethodStyle]


def make_report(
    folders: Sequence[Path], kind: IntervalKind = "student", progress: Progress = lambda text: None
) -> Report:
    """Reads folders of results and compares what is in them.

    Args:
        folders: the folders.
        kind: of the intervals.
        progress: told what is being done.

    Returns:
        The report.

    Raises:
        FileNotFoundError: if a folder holds no results.
        ValueError: if its results are of another version or damaged, or nothing was learned yet.
    """
    measured: list[Measured] = []
    for folder in folders:
        progress(f"reading {folder}")
        measured.append(measure(load(folder)))
    kinds: dict[str, str] = {}
    for one in measured:
        kinds.update(one.results.runs.select("method", "kind").unique(maintain_order=True).iter_rows())
    styles = row_styles(kinds, partial_resets(one.results.runs for one in measured))
    sections: list[Section] = []
    for one in measured:
        progress(f"comparing {one.name}")
        sections.append(section_of(one, styles, _key(one.name, [section.key for section in sections]), kind))
    progress("testing claims")
    return Report(sections, check_claims(measured, kind), styles)


def write_report(
    report: Report, out: Path, formats: Sequence[str] = USUAL, progress: Progress = lambda text: None
) -> list[Path]:
    """Writes a report; files of the same names are replaced, and nothing else is touched.

    Args:
        report: the report.
        out: the folder, which is there.
        formats: which of :data:`FORMATS`.
        progress: told what is being done.

    Returns:
        The files.

    Raises:
        OSError: if one cannot be written.
    """
    written: list[Path] = []
    shown: dict[str, list[Shown]] = {}
    for section in report.sections:
        shown[section.key] = []
        for drawn in figures_of(section) if {"html", *_FIGURES} & set(formats) else ():
            progress(f"drawing {drawn.key}")
            wide = drawn.draw(WIDE, LIGHT)
            for name, make in _FIGURES.items():
                if name in formats:
                    _write(out / "figures" / f"{drawn.key}.{name}", make(wide), written)
            if "html" in formats:
                sizes = (wide, drawn.draw(NARROW, LIGHT))
                images = [image(to_themed_svg(figure, drawn.pairs)) for figure in sizes]
                shown[section.key].append(Shown(drawn.key, drawn.alt, *images))
    for table in _tables(report):
        for name, form in _TABLES.items():
            if name in formats:
                _write(out / "tables" / f"{table.key}.{name}", form(table).encode(), written)
    if "html" in formats:
        progress("writing the page")
        page = render_studies(report.sections, report.claims, shown, report.styles)
        written.insert(0, out / "report.html")
        written[0].write_text(page, encoding="utf-8")
    return written


def _tables(report: Report) -> list[Table]:
    found = [claims_table(report.claims)]
    for section in report.sections:
        found.append(table_of(section))
        points = points_table(section)
        if points is not None:
            found.append(points)
    return found


def _write(path: Path, content: bytes, written: list[Path]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    written.append(path)


def _key(name: str, taken: Sequence[str]) -> str:
    """A name for files and anchors that no other section has."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.rpartition("/")[2].lower()).strip("-") or "study"
    found, k = plain, 2
    while found in taken:
        found, k = f"{plain}-{k}", k + 1
    return found
