"""Where the workers of a run are: what starts them, gives them parts, hears from them, and tells how they ended.

:class:`Processes` are those of this machine; :mod:`supple.lab.study.ray_workers` has those of a cluster.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, Any

from supple.lab.study.manifest import Manifest
from supple.lab.study.run_config import RunConfig

WORKER = [
    sys.executable,
    "-c",
    # Python puts the folder that it is started in before all others, where another module of the same name may lie.
    "import sys; sys.path[:] = filter(None, sys.path); from supple.lab.study.worker import main; main()",
]
"""The command of a worker process."""


@dataclass(frozen=True)
class Ending:
    """How a worker ended: the code of its process, or None where its machine was lost.

    ``starved``: meanwhile the kernel of its machine has killed a process because memory ran out. ``said``: the last
    line that it printed, where it does not stand on the terminal.
    """

    code: int | None
    starved: bool = False
    said: str = ""


class Executor(ABC):
    """Starts workers, which are told apart by numbers, and talks to them; :mod:`supple.lab.study.worker` says how.

    What they tell is put into ``events``, each with the number of the worker; None when it has ended.
    """

    def __init__(self) -> None:
        self.events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()

    def check(self, config: RunConfig, token: Mapping[str, Any]) -> None:
        """Sees, before anything is written, that there are machines and that they are fit; ValueError or OSError.

        ``token`` is that of :func:`supple.lab.study.fitness.token`.
        """
        return

    def prepare(self, config: RunConfig, manifest: Manifest) -> None:
        """Learns what workers will need for the parts of a study."""
        return

    @abstractmethod
    def capacity(self) -> int:
        """How many workers there may be now; it may change while they work."""

    @abstractmethod
    def start(self, number: int, options: Mapping[str, Any]) -> None:
        """Starts a worker with these options."""

    @abstractmethod
    def send(self, number: int, request: Mapping[str, Any]) -> None:
        """Gives a worker a request; one that has ended meanwhile does not get it, which its ending tells too."""

    @abstractmethod
    def ended(self, number: int) -> Ending:
        """How a worker ended that has told None; it is forgotten."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers that are left, at once."""


class Processes(Executor):
    """At most so many worker processes on this machine; what they print goes to a file, or where it always goes."""

    def __init__(self, count: int, printed: IO[bytes] | None = None) -> None:
        super().__init__()
        self.count, self._printed = count, printed
        self._processes: dict[int, Popen[str]] = {}
        self._memory_kills = memory_kills()

    def capacity(self) -> int:
        """As many as were asked for."""
        return self.count

    def start(self, number: int, options: Mapping[str, Any]) -> None:
        """Starts a process."""
        process = Popen(
            WORKER,
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._printed,
            text=True,
            env={**os.environ, **environment()},
            # Ctrl-C reaches all processes of a session; what becomes of a worker is decided here.
            start_new_session=True,
        )
        self._processes[number] = process
        self.send(number, options)

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self.events.put((number, json.loads(line)))
            self.events.put((number, None))

        threading.Thread(target=listen, daemon=True).start()

    def send(self, number: int, request: Mapping[str, Any]) -> None:
        """Writes it to the input of the process."""
        try:
            stdin = self._processes[number].stdin
            assert stdin is not None
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except (BrokenPipeError, ValueError):
            return

    def ended(self, number: int) -> Ending:
        """Waits for the process; who killed it does not tell, but the kernel counts whom it kills for memory."""
        code = self._processes.pop(number).wait()
        count, self._memory_kills = self._memory_kills, memory_kills()
        return Ending(code, self._memory_kills > count, self._last_line())

    def _last_line(self) -> str:
        if self._printed is None:
            return ""
        self._printed.seek(0)
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Kills the processes that are left."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()


def environment() -> dict[str, str]:
    """What a worker's environment has beside its machine's: modules are found where they are found here."""
    path = os.pathsep.join(os.path.abspath(place) for place in sys.path if isinstance(place, str))
    return {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}


def memory_kills() -> int:
    """How many processes the kernel has killed since it started because memory ran out; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
