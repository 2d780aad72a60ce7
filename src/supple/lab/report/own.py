"""A problem of one's own: what its file or its call says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from supple.lab.report.comparison import settings_text
from supple.lab.report.facts import Facts, run_facts
from supple.lab.report.view import View


class OwnView(View):
    """A folder of a problem of one's own."""

    kind: ClassVar[str] = "own"

    @property
    def how_to_read(self) -> Sequence[str]:  # type: ignore[override]
        """What a reader has to know."""
        outcome = self.measured.outcome
        better = "lower" if outcome.lower else "higher"
        measured = (
            "It is measured on each batch before the network learns from it, averaged over the task, or on the test of "
            "a task that has one. "
            if outcome.name != "return"
            else ""
        )
        return (
            f"Methods are compared by {outcome.name}, of which {better} is better. {measured}Final is the mean of the "
            "last 10% of the tasks; after 10% of tasks means as many tasks around the one at 10%. Where tasks are "
            "equally hard, a line that gets worse is loss of plasticity.",
            "Dead units and rank are those at the start of the last task.",
        )

    @property
    def facts(self) -> Facts:
        """What exactly was run."""
        study: Any = self.measured.study
        given = study.problem.arguments
        name = "given in a call of supple.lab.compare" if study.problem.kind == "own" else study.problem.kind
        found = [
            ("Study", self.measured.results.name),
            ("Problem", f"{name}{': ' if given else ''}{settings_text(given)}"),
            ("Network", settings_text(study.network.values)),
            ("Optimizer", settings_text(study.optimizer.values)),
            ("Length", self.length_text()),
            *run_facts(self.measured),
        ]
        return [(name, text) for name, text in found if text]
