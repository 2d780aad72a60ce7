"""Reports: from folders of results to a page, and each figure and table in files of its own."""

from __future__ import annotations

import base64
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import polars as pl
from matplotlib.figure import Figure as Drawing

from supple.lab.escaping import file_name, visible
from supple.lab.report.class_incremental import ClassIncrementalView
from supple.lab.report.comparison import compare, settings_text
from supple.lab.report.figures import Canvas, Figure, to_file, to_themed_svg
from supple.lab.report.measures import BINS, Measured, measure
from supple.lab.report.own import OwnView
from supple.lab.report.permuted import PermutedView
from supple.lab.report.style import DARK, LIGHT, Style, styles_of
from supple.lab.report.tables import Table, claims_table, evidence_texts, points_table
from supple.lab.report.verdicts import Claim, summary
from supple.lab.report.view import View
from supple.lab.study import files
from supple.lab.study.results import Results
from supple.lab.study.spec import kind_of

VIEWS: Mapping[str, type[View]] = {view.kind: view for view in (PermutedView, ClassIncrementalView, OwnView)}
"""How folders are shown, by the kind of their problem; those of other kinds as :class:`View` does."""

FIGURES, TABLES = ("svg", "png", "pdf"), ("md", "tex", "csv")

FORMATS = ("html", *FIGURES, *TABLES)
"""What there is: the page, three forms of each figure, three of each table."""

USUAL = ("html", "svg", "md", "tex", "csv")
"""What is written unless something else is asked for."""

Progress = Callable[[str], None]
"""Told what is being done, before it is."""


@dataclass(frozen=True, eq=False)
class Report:
    """What a report is about: folders, how methods are shown by name, and the claims of a paper where some are tested.

    ``code`` are lines of Python for the reader to go on with. Without a title and what is missing of a report that is
    ``partial`` the page says what the folders say of themselves.
    """

    views: Sequence[View]
    styles: Mapping[str, Style]
    claims: Sequence[Claim] = ()
    title: str = ""
    code: str = ""
    partial: str = ""

    @property
    def claims_summary(self) -> str:
        """How many claims are supported, in a sentence."""
        return summary(self.claims)

    @property
    def tables(self) -> list[Table]:
        """All tables."""
        found = [claims_table(self.claims)] if self.claims else []
        for view in self.views:
            found += filter(None, [view.table, points_table(view.comparison)])
        return found


def make_report(
    folders: Sequence[Results],
    progress: Progress = lambda text: None,
    *,
    claims: Callable[[Sequence[Measured]], Sequence[Claim]] | None = None,
    title: str = "",
    code: str = "",
    bins: int = BINS,
) -> Report:
    """Compares what is in folders of results, and tests claims on them; curves have at most so many points.

    ValueError if nothing was learned yet in a folder.
    """
    folders = [_without_programs(one) for one in folders]
    kinds: dict[str, str] = {}
    labels: dict[str, str] = {}
    shown = [VIEWS.get(kind_of(one.study), View) for one in folders]
    for one in folders:
        kinds.update(one.runs.select("method", "kind").unique(maintain_order=True).iter_rows())
    for kind in dict.fromkeys(shown):
        labels.update(kind.labels([one.runs for one, its in zip(folders, shown, strict=True) if its is kind]))
    styles = styles_of(kinds, labels)
    views: list[View] = []
    for one, kind in zip(folders, shown, strict=True):
        progress(f"comparing {one.name}")
        key = file_name(one.name.rpartition("/")[2], ["claims", *(other.key for other in views)], "study")
        views.append(kind(compare(measure(one, bins), styles, key)))
    progress("testing claims")
    # The claims of a paper are about its own problems.
    claimed = [view.measured for view in views if not isinstance(view, OwnView)]
    tested = claims(claimed) if claims is not None and claimed else ()
    return Report(views, styles, tested, title, code)


def _without_programs(results: Results) -> Results:
    """Results in which methods are only names whose classes lie beside them, so that no program in them is run."""
    taken = [kind for kind in results.runs["kind"].unique() if ":" in kind and _lies_with(kind, results.folder)]
    names = {kind: kind.replace(":", ".") for kind in taken}
    return replace(results, runs=results.runs.with_columns(pl.col("kind").replace(names))) if names else results


def _lies_with(kind: str, folder: Path) -> bool:
    """Whether a class is in a folder or in a package that holds the folder, or in Python's own library."""
    package = kind.partition(":")[0].partition(".")[0]
    if package in sys.stdlib_module_names:
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return True
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    here = folder.resolve()
    return any(
        place.is_relative_to(here) or here.is_relative_to(place)
        for place in (Path(place).resolve() for place in places if place and Path(place).exists())
    )


def write_report(
    report: Report, out: Path, formats: Sequence[str] = USUAL, progress: Progress = lambda text: None
) -> list[Path]:
    """Writes a report into a folder; files of the same names are replaced, and nothing else is touched.

    They are replaced when all of the report is written.
    """
    with files.arriving(out) as place:
        written = _write(report, place, formats, progress)
    return [out / path.relative_to(place) for path in written]


def _write(report: Report, out: Path, formats: Sequence[str], progress: Progress) -> list[Path]:
    written: list[Path] = []

    def write(path: Path, content: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        written.append(path)

    shown: dict[str, list[tuple[Figure, Image, Image]]] = {}
    # No two figures have one file, and none has the anchor of a folder.
    taken = {view.key for view in report.views}
    for view in report.views:
        shown[view.key] = []
        for drawn in view.figures() if {"html", *FIGURES} & set(formats) else ():
            figure = replace(drawn, name=file_name(drawn.name, taken))
            taken.add(figure.name)
            progress(f"drawing {figure.name}")
            wide = figure.draw(Canvas())
            for form in FIGURES:
                if form in formats:
                    write(out / "figures" / f"{figure.name}.{form}", to_file(wide, form))
            if "html" in formats:
                narrow = figure.draw(Canvas(narrow=True))
                shown[view.key].append((figure, _image(figure, wide), _image(figure, narrow)))
    for table in report.tables:
        contents = (table.to_markdown, table.to_latex, table.to_csv)
        for form, content in zip(TABLES, contents, strict=True):
            if form in formats:
                write(out / "tables" / f"{table.name}.{form}", content().encode())
    if "html" in formats:
        progress("writing the page")
        write(out / "report.html", render(report, shown).encode())
        written.insert(0, written.pop())
    return written


class Image(NamedTuple):
    """A figure as the page takes it: its content, and its size in CSS pixels."""

    uri: str
    width: int
    height: int


def _image(figure: Figure, drawing: Drawing) -> Image:
    svg = to_themed_svg(drawing, figure.styles)
    found = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert found is not None
    # A point is 4/3 CSS pixels; letters of 10 points are 13 pixels on a page.
    width, height = (round(float(part) * 4 / 3) for part in found.groups())
    return Image("data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii"), width, height)


def _seen(value: Any) -> Any:
    """What the page shows of a value; what the template has made itself is made of such."""
    return visible(value, keep="\n") if type(value) is str else value


def render(report: Report, figures: Mapping[str, Sequence[tuple[Figure, Image, Image]]]) -> str:
    """Makes the page, one HTML file that needs nothing else, from the figures of each view, for screen and phone."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("supple.lab.report", "."),
        autoescape=True,
        finalize=_seen,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(evidence=evidence_texts, settings=settings_text)
    views, single = report.views, len(report.views) == 1
    title = views[0].title if single else f"{len(views)} studies"
    unfinished = [view.title for view in views if view.partial]
    partial = f"Not finished: {', '.join(unfinished)}." if unfinished else ""
    return environment.get_template("page.html.j2").render(
        report=report,
        title=report.title or f"supple report: {title}",
        partial=report.partial or (views[0].partial if single else partial),
        answer=views[0].answer if single else report.claims_summary,
        how_to_read=dict.fromkeys(text for view in views for text in view.how_to_read),
        figures=figures,
        places={name: k for k, name in enumerate(report.styles, start=1)},
        themes={"light": LIGHT, "dark": DARK},
    )
