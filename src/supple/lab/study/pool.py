"""Shares the parts of a study out to workers, and decides what becomes of what goes wrong."""

from __future__ import annotations

import itertools
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from supple.lab.study import claims
from supple.lab.study.executor import Ending, Executor
from supple.lab.study.files import Damaged
from supple.lab.study.manifest import Manifest, open_manifest
from supple.lab.study.progress import Watcher
from supple.lab.study.results import part_folder
from supple.lab.study.run_config import RunConfig

_KILLED = {-getattr(signal, name, 0) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")} - {0}
"""What a process ends with that somebody else has ended."""

_REPORTS = 500
"""How many reports of steps all workers together make in a second, at most."""

_PATIENCE = 5
"""How often a worker may be killed at one point of its part before the run ends."""


@dataclass
class Outcome:
    """How a run ended.

    ``errors`` are what went wrong in parts, ``halved`` is how often a part was halved because memory ran out, ``left``
    how many parts others were training at the end.
    """

    complete: bool = False
    errors: list[str] = field(default_factory=list)
    halved: int = 0
    left: int = 0


class WorkerPool:
    """The workers of a run, each of which trains one part after another.

    ``parts`` are those that the run is about; those that are complete are left alone. The manifest is written where a
    part is halved. ``together``: other runs train parts of the folder too, which is claimed only while the manifest is
    written; what is with them at the end is left to them. ``shared``: all of them take from the same parts. Workers
    that are to stop have ``grace`` seconds for the stage that they are learning, and then a checkpoint.
    """

    def __init__(
        self,
        config: RunConfig,
        manifest: Manifest,
        parts: Sequence[int],
        executor: Executor,
        watcher: Watcher,
        stop: threading.Event,
        fitness: Mapping[str, Any] | None = None,
        together: bool = False,
        shared: bool = False,
        grace: float = 0.0,
    ) -> None:
        self.config, self.manifest, self.executor = config, manifest, executor
        self.watcher, self.stop, self.fitness = watcher, stop, fitness
        self.together, self.shared, self.grace = together, shared, grace
        self.tasks, self.stages = manifest.study.run.tasks, manifest.study.problem.stages
        self.parts = list(parts)
        self.waiting = [number for number in parts if not self._complete(number)]
        self._tell_parts()
        self.outcome = Outcome()
        self.workers: set[int] = set()
        self.ready: set[int] = set()
        self.idle: set[int] = set()
        self.busy: dict[int, int] = {}
        self.killed: dict[int | None, tuple[float, list[bool]]] = {}
        self._numbers, self._unfit = itertools.count(), 0
        self._claims, self.elsewhere = claims.Watch(), list[int]()
        self._looked, self._idle_since, self._leaving = 0.0, float("inf"), False

    def train(self) -> Outcome:
        """Trains all parts; when this returns or raises, there are no workers any more."""
        stopped, told = None, None
        try:
            self._start_workers()
            # Workers that are still starting are not waited for.
            while self.workers and (self.busy or (self._missing and not self.stop.is_set() and not self._leaving)):
                if self.stop.is_set():
                    stopped = stopped or time.monotonic()
                    how = True if time.monotonic() - stopped >= self.grace else "soon"
                    for number in self.workers if how != told else ():
                        self.executor.send(number, {"stop": how})
                    told = how
                with suppress(queue.Empty):
                    self._handle(*self.executor.events.get(timeout=0.2))
                self._look_again()
                self._start_workers()
        finally:
            self.executor.close()
        self.outcome.left = len(self.elsewhere)
        self.outcome.complete = not self._missing and not self.outcome.errors
        return self.outcome

    @property
    def _missing(self) -> int:
        """How many parts no worker of this run has."""
        return len(self.waiting) + len(self.elsewhere)

    def _start_workers(self) -> None:
        """Starts as many workers as there may be, and as there are parts for."""
        spare = len(self.workers) - len(self.busy)
        while (
            not self.stop.is_set()
            and spare < self._missing
            and len(self.workers) < self.executor.capacity() - self._unfit
        ):
            number = next(self._numbers)
            self.executor.start(number, self._options())
            self.workers.add(number)
            spare += 1

    def _options(self) -> dict[str, Any]:
        """What a worker has to know."""
        return {
            "folder": str(self.config.folder.absolute()),
            "tasks": self.tasks,
            "problem": self.config.problem_options,
            "fitness": self.fitness,
            "patient": self.grace > 0,
            "every": max(0.2, self.executor.capacity() / _REPORTS),
        }

    def _complete(self, number: int) -> bool:
        """Whether a part is complete; one that is damaged is not, and its worker says what becomes of it."""
        try:
            return self.manifest.part(number).complete(self.tasks)
        except Damaged:
            return False

    def _tell_parts(self) -> None:
        parts = {number: self.manifest.part(number) for number in self.parts}
        progress = {number: (part.size, part.reached(self.stages)) for number, part in parts.items()}
        self.watcher.per_cent = bool(self.manifest.outcome["share"])
        self.watcher.start(progress, self.manifest.steps)

    def _handle(self, number: int, event: dict[str, Any] | None) -> None:
        kind = event["event"] if event else None
        if event is None:
            self._ended(number)
        elif kind == "step":
            self.watcher.step(event["part"], event["task"], event["step"])
        elif kind == "stage":
            self.watcher.stage(event["part"], event["done"], event["accuracy"])
        elif kind == "ready":
            self.ready.add(number)
            self.killed.pop(None, None)
            self._next(number)
        elif kind == "unfit":
            self._unfit += 1
            if self.ready:
                self.watcher.say(f"{event['message']}; going on without it.")
            else:
                self._fail(event["message"])
        elif kind == "say":
            self.watcher.say(event["message"])
        else:
            part = self.busy.pop(number, None)
            if kind == "busy" and part is not None:
                self.waiting.append(part)
            elif kind == "memory":
                self._halve(event["part"], event["message"])
            elif kind == "error":
                # What went wrong with one part, such as a full disk, would go wrong with the next.
                self._fail(event["message"])
            self._next(number)

    def _next(self, number: int) -> None:
        """Gives a worker its next part, or lets it wait for one, or end."""
        self.idle.discard(number)
        taken = None if self.stop.is_set() else self._take()
        if taken is not None:
            self.busy[number], self._idle_since = taken["part"], float("inf")
            self.executor.send(number, taken)
        elif not self._missing or self.stop.is_set():
            self.executor.send(number, {"stop": True})
        else:
            self.idle.add(number)

    def _take(self) -> dict[str, Any] | None:
        """The next part that nobody has, as a request to train it.

        Those that others have are put aside, and those that others have completed left out.
        """
        while self.waiting:
            part = self.waiting.pop(0)
            folder = part_folder(self.config.folder, part)
            claim = claims.read(folder)
            lost = claim is not None and self._claims.lost(folder, claim)
            if claim is not None and not claim.free and not lost:
                self.elsewhere.append(part)
            elif claim is not None and self._complete(part):
                self.watcher.step(part, self.tasks - 1, self.manifest.steps[-1])
            else:
                return {"part": part, "lost": claims.mark(claim) if claim is not None and lost else None}
        return None

    def _look_again(self) -> None:
        """Sees from time to time which parts that others had nobody has now; they are the next that are given out.

        With workers that wait for one it looks every second, but at no more than a hundred parts a second.
        """
        now = time.monotonic()
        if now - self._looked < (max(1.0, len(self.elsewhere) / 100) if self.idle else claims.LOST_AFTER / 2):
            return
        self._looked = now
        for part in list(self.elsewhere):
            folder = part_folder(self.config.folder, part)
            claim = claims.read(folder)
            if claim is None or claim.free or self._claims.lost(folder, claim):
                self.elsewhere.remove(part)
                self.waiting.insert(0, part)
        if not self.idle:
            return
        if self._idle_since == float("inf"):
            self._idle_since = now
            self.watcher.say(f"{_parts(self._missing)} with other workers; waiting in case they are lost.")
        if self.shared:
            self._see_new_parts()
        for number in list(self.idle):
            self._next(number)
        if self.together and now - self._idle_since > claims.LOST_AFTER + 2 * claims.RENEWED_EVERY and not self.busy:
            # Whoever has them renews its claims, and needs no help.
            self._leaving = True

    def _see_new_parts(self) -> None:
        """Learns of parts that others have cut in two."""
        known = len(self.manifest.parts)
        self.manifest = open_manifest(self.config.folder)
        new = range(known, len(self.manifest.parts))
        self.parts += new
        self.waiting += new
        if new:
            self._tell_parts()

    def _ended(self, number: int) -> None:
        self.workers.remove(number)
        self.idle.discard(number)
        ending, part = self.executor.ended(number), self.busy.pop(number, None)
        if ending.code == 0 or self.stop.is_set():
            self.waiting[:0] = [] if part is None else [part]
        elif ending.code is None or ending.code in _KILLED:
            self._killed(part, ending)
        else:
            said = f"it said: {ending.said}" if ending.said else "what it printed stands above"
            self._fail(f"a worker process ended with code {ending.code}; {said}")

    def _killed(self, part: int | None, ending: Ending) -> None:
        """Lets the part of a worker that was killed go on; None: it was still starting.

        That memory ran out twice without a checkpoint in between means that the part is too large.
        """
        reached = 0.0 if part is None else self.manifest.part(part).reached(self.stages)
        place, earlier = self.killed.get(part, (reached, []))
        kills = [*(earlier if place == reached else []), ending.starved]
        self.killed[part] = reached, kills
        if part is not None and ending.starved and kills.count(True) > 1:
            self._halve(part, "its process was killed twice where memory ran out")
        elif len(kills) >= _PATIENCE:
            self._fail(
                f"worker processes were killed {len(kills)} times before they got any further; find out what kills "
                "them, or, where memory may run out unseen, give less with --memory or use fewer --processes"
            )
        elif part is None:
            self.watcher.say("A worker process was killed while it started; another takes its place.")
        else:
            self.waiting.insert(0, part)
            what = "A machine was lost" if ending.code is None else "A worker process was killed"
            self.watcher.say(f"{what}; its part goes on from its last checkpoint.")

    def _halve(self, number: int, message: str) -> None:
        part = self.manifest.part(number)
        if part.size == 1 or part.done:
            # Results that are there were learned together, and stay so.
            what = "one network does" if part.size == 1 else f"{part.size} networks, which have learned together, do"
            self._fail(f"{what} not fit into memory ({message}); free some, or use fewer --processes")
            return
        self.watcher.say(f"Memory ran out with {part.size} networks; going on with half of them.")
        self.killed.pop(number, None)
        with claims.claimed(self.config.folder, 60) if self.together else nullcontext():
            if self.together:
                self.manifest = open_manifest(self.config.folder)
            other = self.manifest.halve(number)
            self.manifest.write()
        self.outcome.halved += 1
        self.parts.append(other)
        self.waiting[:0] = [number, other]
        self._tell_parts()

    def _fail(self, message: str) -> None:
        self.outcome.errors.append(message)
        self.stop.set()


def _parts(count: int) -> str:
    return "1 part is" if count == 1 else f"{count} parts are"
