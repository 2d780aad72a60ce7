"""A pool of worker processes that train the parts of a study."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from supple.lab.study.files import Damaged
from supple.lab.study.manifest import Manifest
from supple.lab.study.progress import Watcher
from supple.lab.study.run_config import RunConfig

WORKER = [sys.executable, "-m", "supple.lab.study.worker"]
"""The command of a worker process."""


_KILLED = {-getattr(signal, name, 0) for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")} - {0}
"""What a process ends with that somebody else has ended."""

_PATIENCE = 5
"""How often a worker may be killed at one point of its part before the run ends."""


def memory_kills() -> int:
    """How many processes the kernel has killed since it started because memory ran out; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@dataclass
class Outcome:
    """How a run ended.

    ``errors`` are what went wrong in parts, ``halved`` is how often a part was halved because memory ran out.
    """

    complete: bool = False
    errors: list[str] = field(default_factory=list)
    halved: int = 0


class WorkerPool:
    """Worker processes, each of which trains one part after another.

    ``parts`` are those that the run is about; those that are complete are left alone. The manifest is written where a
    part is halved.
    """

    def __init__(
        self, config: RunConfig, manifest: Manifest, parts: Sequence[int], watcher: Watcher, stop: threading.Event
    ) -> None:
        self.config, self.manifest, self.watcher, self.stop = config, manifest, watcher, stop
        self.tasks, self.stages = manifest.study.run.tasks, manifest.study.problem.stages
        self.parts = list(parts)
        self.waiting = [number for number in parts if not self._complete(number)]
        self._tell_parts()
        self.outcome = Outcome()
        self.events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self.processes: dict[int, Popen[str]] = {}
        self.busy: dict[int, int] = {}
        self.killed: dict[int | None, tuple[float, list[bool]]] = {}
        self.memory_kills = memory_kills()

    def train(self) -> Outcome:
        """Trains all parts; when this returns or raises, there are no processes any more."""
        count = 0 if self.stop.is_set() else min(self.config.process_count, len(self.waiting))
        try:
            for number in range(count):
                self.processes[number] = self._start(number)
            while self.processes:
                if self.stop.is_set():
                    for process in self.processes.values():
                        self._send(process, {"stop": True})
                try:
                    number, event = self.events.get(timeout=0.2)
                except queue.Empty:
                    continue
                self._handle(number, event)
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
        self.outcome.complete = not self.waiting and not self.outcome.errors
        return self.outcome

    def _complete(self, number: int) -> bool:
        """Whether a part is complete; one that is damaged is not, and its worker says what becomes of it."""
        try:
            return self.manifest.part(number).complete(self.tasks)
        except Damaged:
            return False

    def _tell_parts(self) -> None:
        parts = {number: self.manifest.part(number) for number in self.parts}
        progress = {number: (part.size, part.reached(self.stages)) for number, part in parts.items()}
        self.watcher.start(progress, self.manifest.steps)

    def _start(self, number: int) -> Popen[str]:
        # Methods of one's own are found where the command found them.
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), os.getcwd())))
        process = Popen(
            WORKER,
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path},
            # Ctrl-C reaches all processes of a session; what becomes of a worker is decided here.
            start_new_session=True,
        )
        data_dir = None if self.config.data_dir is None else str(self.config.data_dir)
        problem = {"data_dir": data_dir, "verify": self.config.verify, **self.config.runtime}
        self._send(process, {"folder": str(self.config.folder), "tasks": self.tasks, "problem": problem})

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self.events.put((number, json.loads(line)))
            self.events.put((number, None))

        threading.Thread(target=listen, daemon=True).start()
        return process

    def _send(self, process: Popen[str], request: dict[str, Any]) -> None:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # it has ended, which its output tells too

    def _handle(self, number: int, event: dict[str, Any] | None) -> None:
        kind = event["event"] if event else None
        if event is None:
            self._ended(number)
        elif kind == "step":
            self.watcher.step(event["part"], event["task"], event["step"])
        elif kind == "stage":
            self.watcher.stage(event["part"], event["done"], event["accuracy"])
        elif kind == "ready":
            self.killed.pop(None, None)
            self._next(number)
        elif kind == "say":
            self.watcher.say(event["message"])
        else:
            self.busy.pop(number, None)
            if kind == "memory":
                self._halve(event["part"], event["message"])
            elif kind == "error":
                # What went wrong with one part, such as a full disk, would go wrong with the next.
                self._fail(event["message"])
            self._next(number)

    def _next(self, number: int) -> None:
        """Gives a worker its next part, or lets it end."""
        if self.waiting and not self.stop.is_set():
            self.busy[number] = self.waiting.pop(0)
            self._send(self.processes[number], {"part": self.busy[number]})
        else:
            self._send(self.processes[number], {"stop": True})

    def _ended(self, number: int) -> None:
        process = self.processes.pop(number)
        code, part = process.wait(), self.busy.pop(number, None)
        if code == 0 or self.stop.is_set():
            self.waiting[:0] = [] if part is None else [part]
            return
        if code in _KILLED:
            self._killed(part)
        else:
            self._fail(f"a worker process ended with code {code}; what it printed stands above")
        if not self.stop.is_set():
            self.processes[number] = self._start(number)

    def _killed(self, part: int | None) -> None:
        """Lets the part of a worker that was killed go on; None: it was still starting.

        Who did it does not tell, but the kernel counts whom it kills where memory runs out: twice without a checkpoint
        in between means that the part is too large.
        """
        count, self.memory_kills = self.memory_kills, memory_kills()
        starved = self.memory_kills > count
        reached = 0.0 if part is None else self.manifest.part(part).reached(self.stages)
        place, earlier = self.killed.get(part, (reached, []))
        kills = [*(earlier if place == reached else []), starved]
        self.killed[part] = reached, kills
        if part is not None and starved and kills.count(True) > 1:
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
            self.watcher.say("A worker process was killed; its part goes on from its last checkpoint.")

    def _halve(self, number: int, message: str) -> None:
        part = self.manifest.part(number)
        if part.size == 1 or part.done:
            # Results that are there were learned together, and stay so.
            what = "one network does" if part.size == 1 else f"{part.size} networks, which have learned together, do"
            self._fail(f"{what} not fit into memory ({message}); free some, or use fewer --processes")
            return
        self.watcher.say(f"Memory ran out with {part.size} networks; going on with half of them.")
        other = self.manifest.halve(number)
        self.killed.pop(number, None)
        self.manifest.write()
        self.outcome.halved += 1
        self.parts.append(other)
        self.waiting[:0] = [number, other]
        self._tell_parts()

    def _fail(self, message: str) -> None:
        self.outcome.errors.append(message)
        self.stop.set()
