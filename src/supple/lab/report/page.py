"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
from matplotlib.figure import Figure

from supple.lab.report.comparison import Comparison, Summary, answer, percent
from supple.lab.report.drawing import NARROW, WIDE, to_svg
from supple.lab.report.figures import accuracy_over_tasks
from supple.lab.report.style import DARK, LIGHT, method_style


@dataclass(frozen=True)
class Page:
    """What a page says beside the numbers.

    Args:
        title: the title.
        figure_title: the title of the figure.
        partial: what is missing, where the run was stopped; empty if nothing.
        facts: what exactly was run: pairs of a name and a text.
        settings: for each method, its settings as text.
        code: the lines of Python to go on with.
    """

    title: str
    figure_title: str
    partial: str
    facts: Sequence[tuple[str, str]]
    settings: Mapping[str, str]
    code: str


def render(page: Page, comparison: Comparison, summaries: Sequence[Summary]) -> str:
    """Makes the page; figures are inside it, one for each theme and width, and nothing is loaded from anywhere.

    Args:
        page: what it says.
        comparison: what was measured.
        summaries: from :func:`supple.lab.report.comparison.summarize`.

    Returns:
        The HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("supple.lab.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = percent
    figures = {
        (theme.name, size): _data_uri(accuracy_over_tasks(comparison.curves(), page.figure_title, theme, size=inches))
        for theme in (LIGHT, DARK)
        for size, inches in (("wide", WIDE), ("narrow", NARROW))
    }
    summaries = list(summaries)
    return environment.get_template("page.html.j2").render(
        page=page,
        comparison=comparison,
        summaries=summaries,
        answer=answer(comparison, summaries),
        figures=figures,
        styles={method: method_style(method) for method in comparison.methods},
        themes={"light": LIGHT, "dark": DARK},
    )


def _data_uri(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(to_svg(figure)).decode("ascii")
