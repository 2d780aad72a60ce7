"""Tables, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from supple.lab.report.comparison import percent
from supple.lab.report.drawing import number
from supple.lab.report.evidence import Claim
from supple.lab.report.measured import Windows
from supple.lab.report.section import Section, setting_words
from supple.lab.report.statistics import Interval
from supple.lab.report.verdicts import Judged, Verdict

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "|": r"$|$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip

INTERVALS = {"student": "Student's", "bca": "BCa bootstrap", "percentile": "percentile bootstrap"}
"""What the kinds of intervals are called."""

SWEPT = "Of a sweep, each seed reports the setting that the other half of the seeds chose."
"""What has to be said of a sweep."""


@dataclass(frozen=True)
class Table:
    """A table as people read it, and its numbers as programs read them.

    Args:
        key: names its files.
        title: what it shows.
        header: a text a column.
        rows: texts, a row each.
        numbers: for each row its values by name.
        note: how to read it.
        names: for each row the name of its method; empty where rows are no methods.
    """

    key: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[Mapping[str, Any]]
    note: str = ""
    names: Sequence[str] = field(default_factory=tuple)

    def to_markdown(self) -> str:
        """The table as Markdown.

        Returns:
            The text.
        """

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        rule = "|" + "|".join(["---", *["---:"] * (len(self.header) - 1)]) + "|"
        lines = [f"**{self.title}**", "", line(self.header), rule, *map(line, self.rows)]
        return "\n".join([*lines, "", self.note, ""] if self.note else [*lines, ""])

    def to_latex(self) -> str:
        """The table as LaTeX, for the package booktabs.

        Returns:
            The text.
        """

        def line(cells: Sequence[str]) -> str:
            return " & ".join(latex(cell) for cell in cells) + r" \\"

        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex(' '.join(filter(None, (self.title + '.', self.note))))}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                line(self.header),
                r"\midrule",
                *map(line, self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def to_csv(self) -> str:
        """The numbers as CSV, in full precision.

        Returns:
            The text, with a header.
        """
        names = list(dict.fromkeys(name for row in self.numbers for name in row))
        content = io.StringIO()
        writer = csv.DictWriter(content, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.numbers)
        return content.getvalue()


def latex(text: str) -> str:
    """Text with what LaTeX would read otherwise written out.

    Args:
        text: the text.

    Returns:
        The LaTeX.
    """
    return "".join(_LATEX.get(character, character) for character in text)


def methods_table(section: Section) -> Table:
    """The methods of a folder, each at its best setting.

    Args:
        section: the folder.

    Returns:
        The table.
    """
    windows = section.measured.windows
    first = section.rows[0]
    diverged = any(row.diverged for row in section.rows)
    swept = any(len(row.points) > 1 for row in section.rows)
    header = ["method", "final", "after 10%", "change", f"against {first.style.label}", "p (Holm)", "dead, %", "rank",
              "reinitialized", *(["diverged"] if diverged else []), "seeds"]  # fmt: skip
    rows, numbers = [], []
    for row, summary, p in zip(section.rows, section.summaries, section.p, strict=True):
        compared = row is not first
        texts = [
            row.style.label,
            percent(summary.late),
            percent(summary.early),
            percent(summary.change, signed=True),
            percent(summary.gain, signed=True) if compared else "–",
            p_text(p),
            decimal(100 * row.dead),
            decimal(row.rank),
            f"{row.reinitialized:,.0f}" if np.isfinite(row.reinitialized) else "–",
        ]
        if diverged:
            texts.append(f"{row.diverged:,} of {row.count:,}")
        rows.append([*texts, str(len(row.seeds))])
        numbers.append(
            {
                "method": row.name,
                "kind": row.kind,
                "settings": row.settings_text,
                "points": len(row.points),
                **ends_of("final", summary.late),
                **ends_of("early", summary.early),
                **ends_of("change", summary.change),
                **(ends_of("gain", summary.gain) if compared else {}),
                "p_holm": p,
                "dead": row.dead,
                "rank": row.rank,
                "reinitialized": row.reinitialized,
                "diverged": row.diverged,
                "runs": row.count,
                "seeds": len(row.seeds),
            }
        )
    note = (
        f"Accuracy in per cent: final is {Windows.words(windows.late)}, after 10% {Windows.words(windows.early)}; mean "
        f"over seeds ± half of the 95% interval ({INTERVALS[section.kind]}). Differences are taken seed by seed."
    )
    if swept:
        note += f" {SWEPT}"
    return Table(
        f"{section.key}-methods", f"{section.measured.title}: methods", header, rows, numbers, note,
        [row.name for row in section.rows],
    )  # fmt: skip


def points_table(section: Section) -> Table | None:
    """Every point of every sweep of a folder.

    Args:
        section: the folder.

    Returns:
        The table; None if nothing was swept.
    """
    names = list(dict.fromkeys(name for row in section.rows for name in row.grid))
    if not names:
        return None
    rows, numbers = [], []
    for row in section.rows:
        if len(row.points) == 1:
            continue
        for k, point in enumerate(row.points):
            late = row.late[k][np.isfinite(row.late[k])]
            mean = float(late.mean()) if len(late) else float("nan")
            settings = ", ".join(f"{setting_words(name)} {number(value)}" for name, value in point.items())
            rows.append(
                [row.style.label, settings, f"{100 * mean:.2f}", str(len(late)), "best" if k == row.best else ""]
            )
            spread = float(late.std(ddof=1)) if len(late) > 1 else ""
            numbers.append(
                {"method": row.name, **dict.fromkeys(names, ""), **point, "final": mean, "std": spread}
                | {"seeds": len(late), "best": k == row.best}
            )
    return Table(
        f"{section.key}-sweeps", f"{section.measured.title}: sweeps",
        ["method", "settings", "final, %", "seeds", ""], rows, numbers,
        "Mean over seeds of the final accuracy; that of the best point is too high an estimate of what it is worth.",
    )  # fmt: skip


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims with all of their evidence.

    Args:
        claims: the claims.

    Returns:
        The table.
    """
    rows: list[list[str]] = []
    numbers: list[dict[str, Any]] = []
    for claim in claims:
        rows.append([claim.id, claim.text, "", "", "", claim.verdict.value])
        for judged in claim.evidence:
            rows.append(["", *evidence_texts(judged)])
            statement, interval = judged.statement, judged.interval
            numbers.append(
                {
                    "claim": claim.id,
                    "claim_verdict": claim.verdict.value,
                    "setting": statement.place,
                    "difference": statement.words,
                    **ends_of("mean", interval),
                    "margin": statement.margin,
                    "says": statement.says.value,
                    "pairs": len(statement.differences),
                    "p_holm": judged.p,
                    "verdict": judged.verdict.value,
                    "note": statement.note,
                }
            )
        if not claim.evidence:
            numbers.append({"claim": claim.id, "claim_verdict": claim.verdict.value})
    return Table(
        "claims",
        "Claims of arXiv 2508.00212",
        ["claim", "difference, seed by seed", "mean and 95% interval", "seeds", "p against", "verdict"],
        rows,
        numbers,
        "Accuracy in points. p is of what would contradict the claim, adjusted over its statements.",
    )


def evidence_texts(judged: Judged) -> list[str]:
    """A statement and what was found, as texts.

    Args:
        judged: the statement.

    Returns:
        What was compared, mean and interval, pairs, p and verdict.
    """
    statement = judged.statement
    supported = judged.verdict is Verdict.SUPPORTED
    agreed = ", no pair against it" if statement.shares else " by every pair"
    return [
        f"{statement.place}: {statement.words}",
        interval_text(judged.interval, statement.unit),
        str(len(statement.differences)),
        # A p-value of what would contradict a statement says nothing where the statement is supported.
        "–" if supported else p_text(judged.p),
        judged.verdict.value + (agreed if supported and judged.unanimous else ""),
    ]


def interval_text(interval: Interval, unit: str = "points") -> str:
    """A difference with its interval.

    Args:
        interval: the difference.
        unit: "points" for a share, which is shown times 100, or the unit of what is shown as it is.

    Returns:
        Such as "+2.01 (+1.88 to +2.14)".
    """
    scale = 100 if unit == "points" else 1
    mean, low, high = (scale * float(part) for part in interval)
    if not np.isfinite(mean):
        return "–"
    digits = "+.2f" if unit == "points" else "+.3g"
    ends = f" ({low:{digits}} to {high:{digits}})" if np.isfinite(low) else ""
    shown = "" if unit == "points" else f" {unit}" if unit else ""
    return f"{mean:{digits}}{ends}{shown}".replace("-", "−")


def p_text(p: float) -> str:
    """A p-value.

    Args:
        p: the value.

    Returns:
        Such as "0.012", "< 0.001", or a dash where there is none.
    """
    return "–" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def ends_of(name: str, interval: Interval) -> dict[str, float]:
    """An interval as numbers of a table.

    Args:
        name: of the mean.
        interval: the interval.

    Returns:
        The mean and both ends by name.
    """
    return {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}


def decimal(value: float) -> str:
    """A number with one decimal.

    Args:
        value: the number.

    Returns:
        The text; a dash where there is none.
    """
    return f"{value:.1f}" if np.isfinite(value) else "–"
