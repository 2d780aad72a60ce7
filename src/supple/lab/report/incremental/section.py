"""What a report says about a class-incremental folder.

More classes are harder, so that a fall of accuracy over additions says nothing about plasticity. What does is the
difference from the network trained from scratch on the same classes: the method "reset" of the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from supple.lab.report.bootstrap import IntervalKind, interval_of
from supple.lab.report.comparison import also, compared
from supple.lab.report.incremental.measured import classes_seen, final_words
from supple.lab.report.incremental.problem import classes_after
from supple.lab.report.incremental.resets import whole
from supple.lab.report.measured import Measured
from supple.lab.report.paired import differences
from supple.lab.report.section import Row, Section, make_section
from supple.lab.report.statistics import Interval
from supple.lab.report.style import MethodStyle

SCRATCH = "the network trained from scratch on the same classes"
"""What the whole network drawn again at each addition is."""


@dataclass(frozen=True, eq=False)
class IncrementalSection(Section):
    """A class-incremental folder, ready to be shown.

    Args:
        scratch: the network trained from scratch at each addition; None if it was not run.
        from_scratch: for each other row that has seeds in common with ``scratch`` its final accuracy minus that of
            ``scratch``, seed by seed; empty without it.
    """

    scratch: Row | None
    from_scratch: Mapping[str, Interval]
    unit: ClassVar[str] = "classes"

    @property
    def answer(self) -> str:
        """What the folder shows, in plain words."""
        first, rows = self.rows[0], {row.name: row for row in self.rows}
        late = {summary.method: summary.late for summary in self.summaries}
        plain = "plain training" if first.name == "base" else first.style.label
        subject = SCRATCH if first is self.scratch else plain
        text = (
            f"With {final_words(self.measured)}, {subject} ended at a test accuracy of "
            f"{100 * late[first.name].mean:.1f}%"
        )
        shown = []
        if first.name in self.from_scratch:
            shown.append(self.from_scratch[first.name])
            text += f", {compared(shown[0], SCRATCH)}"
        others = [name for name in rows if rows[name] not in (first, self.scratch)]
        if others:
            best = max(others, key=lambda name: float(late[name].mean))
            label = rows[best].style.label
            alone = len(others) == 1
            gaps = {rows[name].style.label: self.gap(best, name) for name in others if name != best}
            behind = self.from_scratch.get(best)
            gain = next(summary.gain for summary in self.summaries if summary.method == best)
            shown.append(gain if behind is None else behind)
            text += (
                f". {label}{', on average the best method,' * (not alone)} ended at {100 * late[best].mean:.1f}%, "
                f"{compared(gain, plain) if behind is None else compared(behind, 'that network')}{also(gaps, label)}"
            )
        chance = any(np.isfinite(one.mean) and np.isnan(one.low) for one in shown or [late[first.name]])
        return f"{text}. {self._diverged}" + " One seed gives no interval, so this may be chance." * chance

    @property
    def _diverged(self) -> str:
        count = sum(row.count for row in self.rows)
        lost = [row for row in self.rows if row.diverged]
        if not lost:
            return f"None of {count:,} runs diverged." if count > 1 else "The run did not diverge."
        named = ", ".join(f"{row.style.label} {row.diverged:,}" for row in lost) if len(lost) < 5 else ""
        return f"{sum(row.diverged for row in lost):,} of {count:,} runs diverged{f' ({named})' * bool(named)}."

    @property
    def so_far(self) -> str:
        """How far the runs of a study that is not finished have come."""
        wanted = classes_after(self.measured.problem, self.measured.results.manifest["tasks"])
        return f"first {classes_seen(self.measured)[-1]:,}{f' of {wanted:,}' if wanted else ''} classes"


def make_incremental_section(
    measured: Measured, styles: Mapping[str, MethodStyle], key: str, kind: IntervalKind = "student"
) -> IncrementalSection:
    """Compares the methods of a class-incremental folder, also with the network trained from scratch.

    Args:
        measured: its numbers.
        styles: for each name of a method how it is shown.
        key: names its files and anchors.
        kind: of the intervals.

    Returns:
        The section.
    """
    made = make_section(measured, styles, key, kind)
    scratch, interval = _scratch(made.rows), interval_of(kind)
    from_scratch = {}
    if scratch is not None:
        for row in made.rows:
            d = differences(row.outcome["late"], scratch.outcome["late"])
            if row is not scratch and len(d):
                from_scratch[row.name] = interval(d)
    return IncrementalSection(
        made.key, made.measured, made.rows, made.summaries, made.p, made.kind, scratch, from_scratch
    )


def _scratch(rows: Sequence[Row]) -> Row | None:
    """The row of the whole network drawn again, that under the method's own name if there are several."""
    anew = [row for row in rows if row.kind == "reset" and all(map(whole, _parts(row)))]
    return next((row for row in anew if row.name == row.kind), anew[0] if anew else None)


def _parts(row: Row) -> Sequence[str | None]:
    """What a row draws again, at each of its points."""
    return row.grid.get("parts", [row.settings.get("parts")])
