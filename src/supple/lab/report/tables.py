"""Tables, as people read them and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from supple.lab.escaping import visible
from supple.lab.report.comparison import Comparison, Line, settings_text
from supple.lab.report.statistics import Interval
from supple.lab.report.texts import interval_text, level, p_text, percent, rounded
from supple.lab.report.verdicts import Claim, Judged, Verdict

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "|": r"$|$",
    "<": "$<$", ">": "$>$", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip

_MARKDOWN = re.compile(r"\\|[|*`~$\[\]]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|:(?=//)|(?<=www)\.")
"""What Markdown, in one dialect or another, reads otherwise than as itself."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a cell begins with that a spreadsheet takes for a formula."""


@dataclass(frozen=True)
class Table:
    """A table as people read it, and for each row its numbers by name, as programs read them.

    ``lines`` has for each row the name of its method; it is empty where rows are no methods.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[Mapping[str, Any]]
    note: str = ""
    lines: Sequence[str] = ()

    def to_markdown(self) -> str:
        """The table as Markdown."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(map(markdown, cells)) + " |"

        rule = "|" + "|".join(["---", *["---:"] * (len(self.header) - 1)]) + "|"
        lines = [f"**{markdown(self.title)}**", "", line(self.header), rule, *map(line, self.rows)]
        return "\n".join([*lines, "", markdown(self.note), ""] if self.note else [*lines, ""])

    def to_latex(self) -> str:
        """The table as LaTeX, for the package booktabs."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(latex(cell) for cell in cells) + r" \\"

        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex(f'{self.title}. {self.note}'.strip())}}}",
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
        """The numbers as CSV with a header, in full precision."""
        names = list(dict.fromkeys(name for row in self.numbers for name in row))
        content = io.StringIO()
        writer = csv.DictWriter(content, names, restval="", lineterminator="\n")
        writer.writerow({name: as_csv(name) for name in names})
        writer.writerows({name: as_csv(value) for name, value in row.items()} for row in self.numbers)
        return content.getvalue()


def latex(text: str) -> str:
    """Text with what LaTeX would read otherwise written out."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def markdown(text: str) -> str:
    """Text with what Markdown would read otherwise escaped, also in the cell of a table."""
    return _MARKDOWN.sub(lambda found: "&#92;" if found[0] == "\\" else f"\\{found[0]}", visible(text))


def as_csv(value: Any) -> Any:
    """A cell of a CSV file: numbers as they are, and texts with a mark before what would be a formula."""
    if not isinstance(value, str):
        return value
    seen = visible(value)
    return f"'{seen}" if seen.lstrip().startswith(_FORMULA) else seen


@dataclass(frozen=True)
class Column:
    """A column of a table of methods: texts, and numbers by name; only numbers where it has no header."""

    header: str
    cell: Callable[[Line], tuple[str, Mapping[str, Any]]]


def interval_column(header: str, name: str, of: Callable[[Line], Interval | None], signed: bool = True) -> Column:
    """A column of outcomes with their intervals; a dash where a line has none."""

    def cell(line: Line) -> tuple[str, Mapping[str, Any]]:
        found = of(line)
        return ("–", {}) if found is None else (percent(found, signed, line.what.share), ends_of(name, found))

    return Column(header, cell)


def outcome_column(header: str, name: str, signed: bool = False) -> Column:
    """A column of an outcome of runs: "early", "late" or "change"."""
    return interval_column(header, "final" if name == "late" else name, lambda line: line.interval(name), signed)


def average_column(header: str, name: str, of: str, decimals: int = 1, scale: float = 1) -> Column:
    """A column of the mean of an outcome at the best point."""

    def cell(line: Line) -> tuple[str, Mapping[str, Any]]:
        mean = line.average(of)
        return rounded(scale * mean, decimals), {name: mean}

    return Column(header, cell)


def gain_columns(comparison: Comparison) -> list[Column]:
    """How far each line is from the first, and the adjusted p-value."""
    first, p = comparison.first, dict(zip((line.name for line in comparison.lines), comparison.p, strict=True))

    def gap(line: Line) -> Interval | None:
        return None if line is first else comparison.gap(line, first)

    return [
        interval_column(f"against {first.style.label}", "gain", gap),
        Column("p (Holm)", lambda line: (p_text(p[line.name]), {"p_holm": float(p[line.name])})),
    ]


def diverged_column(shown: bool) -> Column:
    """How many runs diverged."""

    def cell(line: Line) -> tuple[str, Mapping[str, Any]]:
        diverged, runs = line.diverged, len(line.runs)
        return f"{diverged:,} of {runs:,}", {"diverged": diverged, "runs": runs}

    return Column("diverged" if shown else "", cell)


REINITIALIZED = average_column("reinitialized", "reinitialized", "reinitialized", decimals=0)
RANK = average_column("rank", "rank", "rank")
SEEDS = Column("seeds", lambda line: (str(len(line.seeds)), {"seeds": len(line.seeds)}))


def methods_table(comparison: Comparison, columns: Sequence[Column], note: str) -> Table:
    """The methods of a folder, each at its best setting, with what is said of each and how to read it."""
    if any(line.swept for line in comparison.lines):
        note += " Of a sweep, each seed reports the setting that the other half of the seeds chose."
    rows: list[list[str]] = []
    numbers: list[dict[str, Any]] = []
    for line in comparison.lines:
        settings = settings_text(line.settings)
        rows.append([line.style.label])
        numbers.append({"method": line.name, "kind": line.kind, "settings": settings, "points": len(line.points)})
        for column in columns:
            text, found = column.cell(line)
            rows[-1] += [text] if column.header else []
            numbers[-1].update(found)
    return Table(
        f"{comparison.key}-methods",
        f"{comparison.title}: methods",
        ["method", *(column.header for column in columns if column.header)],
        rows,
        numbers,
        note,
        [line.name for line in comparison.lines],
    )


def points_table(comparison: Comparison) -> Table | None:
    """Every point of every sweep of a folder; None if nothing was swept."""
    names = list(dict.fromkeys(name for line in comparison.lines for name in line.grid))
    rows, numbers = [], []
    outcome, share = comparison.outcome, comparison.outcome.share
    for line in comparison.lines:
        if not line.swept:
            continue
        settings = line.runs.unique("point", keep="first", maintain_order=True).select(list(line.grid)).to_dicts()
        for k, (point, late) in enumerate(zip(settings, line.late, strict=True)):
            seen = pl.Series(late).drop_nans()
            mean, best = float("nan") if seen.is_empty() else float(seen.mean()), k == line.fit.best  # type: ignore[arg-type]
            shown = level(mean, share, 2).removesuffix("%")
            rows.append([line.style.label, settings_text(point), shown, str(len(seen)), "best" if best else ""])
            spread = seen.std() if len(seen) > 1 else ""
            found = {"method": line.name, **dict.fromkeys(names, ""), **point}
            numbers.append({**found, "final": mean, "std": spread, "seeds": len(seen), "best": best})
    if not rows:
        return None
    return Table(
        f"{comparison.key}-sweeps",
        f"{comparison.title}: sweeps",
        ["method", "settings", "final, %" if share else "final", "seeds", ""],
        rows,
        numbers,
        f"Mean over seeds of the final {outcome.name}; that of the best point is too good an estimate of what it is "
        "worth.",
    )


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims of a paper with all of their evidence."""
    rows: list[list[str]] = []
    numbers: list[dict[str, Any]] = []
    for claim in claims:
        rows.append([claim.id, claim.text, "", "", "", claim.verdict.value])
        which = {"claim": claim.id, "claim_verdict": claim.verdict.value}
        for judged in claim.evidence:
            rows.append(["", *evidence_texts(judged)])
            statement = judged.statement
            numbers.append(
                {
                    **which,
                    "setting": statement.place,
                    "difference": statement.words,
                    **ends_of("mean", judged.interval),
                    "margin": statement.margin,
                    "says": statement.says.value,
                    "pairs": len(statement.differences),
                    "p_holm": judged.p,
                    "verdict": judged.verdict.value,
                    "note": statement.note,
                }
            )
        if not claim.evidence:
            numbers.append(which)
    return Table(
        "claims",
        f"Claims of {claims[0].source}",
        ["claim", "difference, seed by seed", "mean and 95% interval", "seeds", "p against", "verdict"],
        rows,
        numbers,
        "Accuracy in points. p is of what would contradict the claim, adjusted over its statements.",
    )


def evidence_texts(judged: Judged) -> list[str]:
    """What was compared, mean and interval, pairs, p and verdict, as texts."""
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


def ends_of(name: str, interval: Interval) -> dict[str, float]:
    """The mean of an interval and both ends by name, as numbers of a table."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
