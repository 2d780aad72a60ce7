"""The table of the methods of a class-incremental folder."""

from __future__ import annotations

import numpy as np

from supple.lab.report.comparison import percent
from supple.lab.report.incremental.measured import final_words
from supple.lab.report.incremental.section import SCRATCH, IncrementalSection
from supple.lab.report.tables import INTERVALS, SWEPT, Table, decimal, ends_of, p_text


def incremental_table(section: IncrementalSection) -> Table:
    """The methods of a class-incremental folder, each at its best setting.

    Args:
        section: the folder.

    Returns:
        The table.
    """
    first, scratch = section.rows[0], section.scratch
    # Where the network trained from scratch comes first, every row is compared with it already.
    against = [f"against {scratch.style.label}"] if scratch is not None and scratch is not first else []
    header = ["method", "final", f"against {first.style.label}", "p (Holm)", *against, "diverged", "dormant, %", "rank",
              "reinitialized", "seeds"]  # fmt: skip
    rows, numbers = [], []
    for row, summary, p in zip(section.rows, section.summaries, section.p, strict=True):
        gain = summary.gain if row is not first else None
        behind = section.from_scratch.get(row.name)
        rows.append(
            [
                row.style.label,
                percent(summary.late),
                "–" if gain is None else percent(gain, signed=True),
                p_text(p),
                *(["–" if behind is None else percent(behind, signed=True)] * len(against)),
                f"{row.diverged:,} of {row.count:,}",
                decimal(100 * row.dead),
                decimal(row.rank),
                f"{row.reinitialized:,.0f}" if np.isfinite(row.reinitialized) else "–",
                str(len(row.seeds)),
            ]
        )
        numbers.append(
            {
                "method": row.name,
                "kind": row.kind,
                "settings": row.settings_text,
                "points": len(row.points),
                **ends_of("final", summary.late),
                **({} if gain is None else ends_of("gain", gain)),
                "p_holm": p,
                **({} if behind is None else ends_of("from_scratch", behind)),
                "dormant": row.dead,
                "rank": row.rank,
                "reinitialized": row.reinitialized,
                "diverged": row.diverged,
                "runs": row.count,
                "seeds": len(row.seeds),
            }
        )
    note = (
        f"Test accuracy in per cent: final is with {final_words(section.measured)}; mean over seeds ± half of the 95% "
        f"interval ({INTERVALS[section.kind]}). Differences are taken seed by seed, in points"
        + (f"; {scratch.style.label} is {SCRATCH}" if scratch is not None else "")
        + ". A run that diverged counts as 0. Dormant units and rank are those on the last new classes before they are "
        "learned, without runs that diverged."
        + (f" {SWEPT}" if any(len(row.points) > 1 for row in section.rows) else "")
    )
    return Table(
        f"{section.key}-methods", f"{section.measured.title}: methods", header, rows, numbers, note,
        [row.name for row in section.rows],
    )  # fmt: skip
