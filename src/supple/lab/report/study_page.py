"""The page of studies: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from supple.lab.report.evidence import Claim
from supple.lab.report.facts import study_facts
from supple.lab.report.section import Section
from supple.lab.report.style import DARK, LIGHT, MethodStyle
from supple.lab.report.tables import evidence_texts
from supple.lab.report.verdicts import Verdict
from supple.lab.report.views import table_of


@dataclass(frozen=True)
class Image:
    """A figure as the page takes it.

    Args:
        uri: its content.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """A figure of a page.

    Args:
        key: names it.
        alt: what it shows, for those who cannot see it.
        wide: for a screen.
        narrow: for a phone.
    """

    key: str
    alt: str
    wide: Image
    narrow: Image


def image(svg: bytes) -> Image:
    """Puts an SVG file into a page.

    Args:
        svg: its content.

    Returns:
        The image.
    """
    found = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    assert found is not None
    # A point is 4/3 CSS pixels; a figure is drawn with letters of 10 points, which on a page are 13 pixels.
    width, height = (round(float(part) * 4 / 3) for part in found.groups())
    return Image("data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii"), width, height)


def claims_summary(claims: Sequence[Claim]) -> str:
    """How many claims are supported, in words.

    Args:
        claims: the claims.

    Returns:
        A sentence.
    """
    counts = Counter(claim.verdict for claim in claims)
    parts = []
    for verdict, verb in ((Verdict.SUPPORTED, "support"), (Verdict.CONTRADICTED, "contradict")):
        if counts[verdict]:
            ids = ", ".join(claim.id for claim in claims if claim.verdict is verdict)
            parts.append(f"{verb} {counts[verdict]} ({ids})")
    unclear = [claim for claim in claims if claim.verdict is Verdict.NOT_ENOUGH]
    begun = ", ".join(claim.id for claim in unclear if claim.evidence)
    if begun:
        parts.append(f"are part of what decides {begun.count(',') + 1} ({begun})")
    away = len([claim for claim in unclear if not claim.evidence])
    if away:
        parts.append(f"have nothing to say about {away}")
    text = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    scaled = any(claim.scale for claim in claims if claim.evidence)
    small = " Some are smaller than the paper's; a verdict is about runs of this size." if scaled else ""
    return f"Of {len(claims)} claims of arXiv 2508.00212 these runs {text}.{small}"


def render_studies(
    sections: Sequence[Section],
    claims: Sequence[Claim],
    figures: Mapping[str, Sequence[Shown]],
    styles: Mapping[str, MethodStyle],
) -> str:
    """Makes the page.

    Args:
        sections: the folders.
        claims: the claims on all of them.
        figures: for the key of each section its figures; the first is the most important.
        styles: for each name of a method how it is shown.

    Returns:
        The HTML.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("supple.lab.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["evidence"] = evidence_texts
    single = len(sections) == 1
    first = sections[0]
    page = {
        "title": f"supple report: {first.measured.title}" if single else f"supple report: {len(sections)} studies",
        "partial": _partial(sections),
        "answer": first.answer if single else claims_summary(claims),
        "claims": claims_summary(claims) if single else "Open a claim to see its evidence.",
        "permuted": any(section.measured.problem.get("kind") == "permuted" for section in sections),
        "incremental": any(section.measured.incremental for section in sections),
        "online": any(not section.measured.incremental for section in sections),
    }
    return environment.get_template("study.html.j2").render(
        page=page,
        sections=sections,
        claims=claims,
        figures=figures,
        tables={section.key: table_of(section) for section in sections},
        facts={section.key: study_facts(section.measured) for section in sections},
        styles=styles,
        places={name: k for k, name in enumerate(styles, start=1)},
        themes={"light": LIGHT, "dark": DARK},
    )


def _partial(sections: Sequence[Section]) -> list[str]:
    """What is missing; of several studies only that something is."""
    unfinished = [section for section in sections if section.partial]
    if not unfinished:
        return []
    if len(sections) == 1:
        return [unfinished[0].partial]
    return [f"Not finished: {', '.join(section.measured.title for section in unfinished)}."]
