"""A worker process of a study: trains the parts that it is told to, and tells how it goes.

Requests come on standard input, one JSON object a line: {"part": 3}, or {"stop": true}. What happens goes to standard
output, one JSON object a line with "event": "ready" (for a part), "step", "stage", "say" (a message for the user),
"done", "memory" (it ran out) or "error". The process ends when its input does, so it does not outlive the one that
started it.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from supple.lab.study import files
from supple.lab.study.manifest import open_manifest
from supple.lab.study.part import Stopped
from supple.lab.study.problems import open_problem
from supple.lab.study.run_config import out_of_memory

_EVERY = 0.2
"""Seconds between two reports of steps."""


class Worker:
    """What a worker process does.

    Its options are "folder", "tasks", and as "problem" the arguments of :func:`open_problem`.
    """

    def __init__(self, options: dict[str, Any], requests: TextIO, answers: TextIO) -> None:
        self.folder, self.tasks = Path(options["folder"]), options["tasks"]
        self._requests, self._answers = requests, answers
        self._parts: queue.Queue[int | None] = queue.Queue()
        self._stop = threading.Event()
        self._problem = open_problem(open_manifest(self.folder).study, **options["problem"])
        threading.Thread(target=self._listen, daemon=True).start()

    def serve(self) -> None:
        """Trains parts until the input ends or a stop is asked for."""
        self._tell("ready")
        while (part := self._parts.get()) is not None:
            try:
                self._train(part)
                self._tell("done", part=part)
            except Stopped:
                return
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._tell("memory", part=part, message=str(error))
            except (OSError, ValueError) as error:
                self._tell("error", part=part, message=str(error))

    def _train(self, number: int) -> None:
        # Read anew, since a part may have been halved.
        part = open_manifest(self.folder).part(number)
        part.folder.mkdir(parents=True, exist_ok=True)
        told = 0.0

        def on_step(task: int, step: int) -> None:
            nonlocal told
            if self._stop.is_set():
                raise Stopped
            now = time.monotonic()
            if now - told >= _EVERY:
                told = now
                self._tell("step", part=number, task=task, step=step)

        def on_stage(done: float, accuracy: Sequence[float]) -> None:
            names = [column.method for column in part.columns]
            self._tell("stage", part=number, done=done, accuracy=list(zip(names, accuracy, strict=True)))

        # The worker of a run that was killed may need a moment to see that.
        with files.locked(part.folder, wait=30):
            part.train(self._problem, self.tasks, on_step, on_stage, lambda message: self._tell("say", message=message))

    def _listen(self) -> None:
        for line in self._requests:
            request = json.loads(line)
            if request.get("stop"):
                break
            self._parts.put(request["part"])
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
    Worker(json.loads(sys.stdin.readline()), sys.stdin, answers).serve()


if __name__ == "__main__":
    main()
