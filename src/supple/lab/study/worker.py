"""A worker process of a study: trains the parts that it is told to, and tells how it goes.

Requests come on standard input, one JSON object a line: {"part": 3}, with the "lost" claim of it that may be taken
over; {"stop": "soon"}, with a checkpoint after the stage that is being learned; or {"stop": true}. What happens goes to
standard output, one JSON object a line with "event": "ready" (for a part), "unfit" (nothing can be trained here),
"step", "stage", "say" (a message for the user), "done", "busy" (another has the part), "memory" (it ran out) or
"error". The process ends when its input does, so it does not outlive the one that started it.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

import torch

from supple.lab.limits import out_of_memory
from supple.lab.study import claims, fitness
from supple.lab.study.manifest import open_manifest
from supple.lab.study.part import Stopped
from supple.lab.study.problems import open_problem


class Worker:
    """What a worker process does.

    Its options are "folder", "tasks", "every" (seconds between two reports of steps), as "problem" the arguments of
    :func:`open_problem`, and as "fitness" those of :func:`supple.lab.study.fitness.check`, if anything is checked.
    """

    def __init__(self, options: dict[str, Any], requests: TextIO, answers: TextIO) -> None:
        self.folder, self.tasks = Path(options["folder"]), options["tasks"]
        self._every = options["every"]
        self._requests, self._answers = requests, answers
        self._parts: queue.Queue[tuple[int, str | None] | None] = queue.Queue()
        self._stop, self._ending = threading.Event(), threading.Event()
        if options.get("fitness"):
            fitness.check(self.folder, **options["fitness"])
        self._device = fitness.device(options["problem"].get("device", "cpu"))
        self._problem = open_problem(open_manifest(self.folder).study, **options["problem"])
        threading.Thread(target=self._listen, daemon=True).start()

    def serve(self) -> None:
        """Trains parts until the input ends or a stop is asked for."""
        self._tell("ready")
        while (request := self._parts.get()) is not None:
            part, lost = request
            try:
                self._train(part, lost)
                self._tell("done", part=part)
            except Stopped:
                return
            except (claims.Busy, claims.Lost):
                self._tell("busy", part=part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._tell("memory", part=part, message=str(error))
            except (OSError, ValueError) as error:
                self._tell("error", part=part, message=str(error))

    def _train(self, number: int, lost: str | None) -> None:
        # Read anew, since a part may have been halved.
        manifest = open_manifest(self.folder)
        part = manifest.part(number)
        part.folder.mkdir(parents=True, exist_ok=True)
        before = [0, *accumulate(manifest.steps)]
        told, began, first = 0.0, time.monotonic(), None

        def on_step(task: int, step: int) -> None:
            nonlocal told, first
            if self._stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now - told >= self._every:
                told = now
                self._tell("step", part=number, task=task, step=step)
                taken = before[task] + step
                first = taken - 1 if first is None else first
                rate = part.size * (taken - first) / max(now - began, 1e-9)
                holder.note = {"done": round(task + step / manifest.steps[task], 4), "rate": round(rate, 3)}

        def on_stage(done: float, accuracy: Sequence[float]) -> None:
            names = [column.method for column in part.columns]
            self._tell("stage", part=number, done=done, accuracy=list(zip(names, accuracy, strict=True)))

        def on_damage(message: str) -> None:
            self._tell("say", message=message)

        with claims.take(part.folder, lost, **self._device) as holder:
            ending = self._ending.is_set
            part.train(self._problem, self.tasks, on_step, on_stage, on_damage, holder.renew, ending)

    def _listen(self) -> None:
        for line in self._requests:
            request = json.loads(line)
            if request.get("stop") == "soon":
                self._ending.set()
                self._parts.put(None)
            elif request.get("stop"):
                break
            else:
                self._parts.put((request["part"], request.get("lost")))
        self._stop.set()
        self._parts.put(None)

    def _tell(self, event: str, **what: Any) -> None:
        try:
            print(json.dumps({"event": event, **what}), file=self._answers, flush=True)
        except BrokenPipeError:
            self._stop.set()


def main() -> None:
    """Serves requests until the input ends; the first line of the input is the options."""
    # One thread is fastest for many small networks, and gives the same sums on every machine of a kind.
    torch.set_num_threads(1)
    # As a process that is killed does, it ends without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Whatever a library prints must not come between the reports.
    answers, sys.stdout = sys.stdout, sys.stderr
    options = json.loads(sys.stdin.readline())
    if options.get("patient"):
        # A scheduler tells all processes of a job that it will end; the one that started this one says what to do.
        for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        worker = Worker(options, sys.stdin, answers)
    except (OSError, ValueError) as error:
        print(json.dumps({"event": "unfit", "message": str(error)}), file=answers, flush=True)
        return
    worker.serve()


if __name__ == "__main__":
    main()
