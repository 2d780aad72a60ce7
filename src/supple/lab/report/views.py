"""How folders of each kind of problem are shown: their section, table and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from supple.lab.report.bootstrap import IntervalKind
from supple.lab.report.drawn import Drawn, section_figures
from supple.lab.report.incremental.drawn import incremental_figures
from supple.lab.report.incremental.section import IncrementalSection, make_incremental_section
from supple.lab.report.incremental.tables import incremental_table
from supple.lab.report.measured import Measured
from supple.lab.report.section import Section, make_section
from supple.lab.report.style import MethodStyle
from supple.lab.report.tables import Table, methods_table


def section_of(
    measured: Measured, styles: Mapping[str, MethodStyle], key: str, kind: IntervalKind = "student"
) -> Section:
    """Compares the methods of a folder as its problem asks for.

    Args:
        measured: its numbers.
        styles: for each name of a method how it is shown.
        key: names its files and anchors.
        kind: of the intervals.

    Returns:
        The section.
    """
    return (make_incremental_section if measured.incremental else make_section)(measured, styles, key, kind)


def table_of(section: Section) -> Table:
    """The table of a folder's methods.

    Args:
        section: the folder.

    Returns:
        The table.
    """
    return incremental_table(section) if isinstance(section, IncrementalSection) else methods_table(section)


def figures_of(section: Section) -> Iterator[Drawn]:
    """The figures of a folder.

    Args:
        section: the folder.

    Returns:
        The figures, in the order of the page.
    """
    return incremental_figures(section) if isinstance(section, IncrementalSection) else section_figures(section)
