"""How far the parts of a results folder are, and who trains them, as their files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supple.lab.study import checkpoint, claims, files
from supple.lab.study.manifest import Manifest, open_manifest
from supple.lab.study.results import CHECKPOINT, part_folder

SILENT = 2.4 * claims.RENEWED_EVERY
"""Seconds without a renewal after which a part counts as lost; it is taken over later."""


@dataclass(frozen=True)
class PartStatus:
    """A part: "done", "running", "lost" or "waiting"; ``done`` tasks, with the part of the last one, of ``runs`` runs.

    ``holder`` is who trains or has lost it, ``rate`` its network steps a second.
    """

    number: int
    runs: int
    state: str
    done: float
    holder: Mapping[str, Any]
    rate: float


@dataclass(frozen=True)
class Status:
    """The parts of a folder, and the network steps of all of them."""

    name: str
    parts: Sequence[PartStatus]
    taken: float
    steps: int

    def count(self, state: str) -> int:
        """How many parts are in a state."""
        return sum(part.state == state for part in self.parts)

    @property
    def complete(self) -> bool:
        """Whether all parts are done."""
        return self.count("done") == len(self.parts)

    @property
    def rate(self) -> float:
        """Network steps a second of the parts that are trained now."""
        return sum(part.rate for part in self.parts)


def look(folder: Path, watch: claims.Watch) -> Status:
    """Reads how far a folder is; FileNotFoundError or ValueError if it holds no results.

    ``watch`` has to be the same at each look; what was lost on another machine is seen by what does not change.
    """
    manifest = open_manifest(folder)
    parts = [_part(manifest, number, watch) for number in range(len(manifest.parts))]
    total = sum(manifest.steps)
    taken = sum(part.runs * _steps(manifest.steps, part.done) for part in parts)
    return Status(manifest.name, parts, taken, total * sum(part.runs for part in parts))


def _part(manifest: Manifest, number: int, watch: claims.Watch) -> PartStatus:
    part, tasks = manifest.part(number), manifest.study.run.tasks
    folder, stages = part_folder(manifest.folder, number), manifest.study.problem.stages
    claim, done = claims.read(folder), 0.0
    with suppress(files.Damaged):
        path = folder / CHECKPOINT
        if path.exists():
            whole = checkpoint.number(path, "tasks") if stages == 1 else checkpoint.number(path, "epoch") / stages
            done = min(float(tasks), whole)
    if claim is None or claim.given_back:
        state = "done" if done >= tasks else "waiting"
        return PartStatus(number, part.size, state, done, {}, 0.0)
    if claim.free or watch.silent(folder, claim) >= SILENT:
        return PartStatus(number, part.size, "done" if done >= tasks else "lost", done, claim.holder, 0.0)
    reached = max(done, min(tasks, claim.note.get("done", 0.0)))
    return PartStatus(number, part.size, "running", reached, claim.holder, claim.note.get("rate", 0.0))


def _steps(steps: Sequence[int], done: float) -> float:
    """Steps of a run that has learned so many tasks."""
    whole = int(done)
    return sum(steps[:whole]) + ((done - whole) * steps[whole] if done > whole else 0)
