"""How a thousand workers share the parts of a study, where training is sleeping: what is lost to giving them out.

The pool, the executor's contract and the claims are those of ``supple run``; only the workers are threads that sleep
and tell how far they are, and a tenth of them dies within a part without a word, as with a machine that is lost. Then
its claim is taken over when it has been silent for long enough.

    python benchmarks/workers.py --workers 1000 --parts 4000 --seconds 60
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supple.lab.study import claims
from supple.lab.study.executor import Ending, Executor
from supple.lab.study.manifest import Manifest
from supple.lab.study.pool import WorkerPool
from supple.lab.study.progress import Watcher
from supple.lab.study.results import part_folder
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import from_dict


@dataclass
class Log:
    """What the workers did: how often each part was completed, seconds slept, and seconds between two parts.

    ``waited`` are the seconds that some waited until parts of the dead could be taken over, and ``pool`` those of a
    processor core that giving parts out took, without the workers.
    """

    completed: Counter[int] = field(default_factory=Counter)
    slept: float = 0.0
    between: float = 0.0
    waited: float = 0.0
    deaths: int = 0
    pool: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sleepers(Executor):
    """Workers that sleep for each part, of which those that ``dying`` names die halfway through their first."""

    def __init__(self, count: int, seconds: float, dying: frozenset[int], log: Log) -> None:
        super().__init__()
        self.count, self.seconds, self.dying, self.log = count, seconds, dying, log
        self._requests: dict[int, queue.SimpleQueue[Mapping[str, Any]]] = {}
        self._endings: dict[int, Ending] = {}

    def capacity(self) -> int:
        """As many as were asked for."""
        return self.count

    def start(self, number: int, options: Mapping[str, Any]) -> None:
        """Starts a thread."""
        self._requests[number] = queue.SimpleQueue()
        threading.Thread(target=self._work, args=(number, options), daemon=True).start()

    def send(self, number: int, request: Mapping[str, Any]) -> None:
        """Puts it into the queue of the thread."""
        self._requests[number].put(request)

    def ended(self, number: int) -> Ending:
        """How the thread ended."""
        return self._endings.pop(number)

    def close(self) -> None:
        """Threads that are left end with the program."""
        return

    def _work(self, number: int, options: Mapping[str, Any]) -> None:
        self.events.put((number, {"event": "ready"}))
        since = time.monotonic()
        while "part" in (request := self._requests[number].get()):
            part = request["part"]
            try:
                place = part_folder(Path(options["folder"]), part)
                place.mkdir(parents=True, exist_ok=True)
                with claims.take(place, request["lost"]) as holder:
                    between, dies = time.monotonic() - since, number in self.dying
                    seconds = self.seconds / 2 if dies else self.seconds
                    end = time.monotonic() + seconds
                    while (left := end - time.monotonic()) > 0:
                        time.sleep(min(left, options["every"]))
                        self.events.put((number, {"event": "step", "part": part, "task": 0, "step": 1}))
                    since = time.monotonic()
                    with self.log.lock:
                        self.log.slept += seconds
                        if request["lost"]:
                            self.log.waited += between
                        else:
                            self.log.between += between
                        self.log.deaths += dies
                        self.log.completed[part] += not dies
                    if dies:
                        # Nothing is given back, and nothing renewed.
                        holder._done.set()
                        holder.give_back = lambda **_: None  # type: ignore[method-assign]
                        self._endings[number] = Ending(None)
                        self.events.put((number, None))
                        return
                self.events.put((number, {"event": "done", "part": part}))
            except claims.Busy:
                self.events.put((number, {"event": "busy", "part": part}))
        self._endings[number] = Ending(0)
        self.events.put((number, None))


def simulate(workers: int, parts: int, seconds: float, folder: Path, dying: float = 0.1) -> tuple[Log, float]:
    """Lets so many workers sleep for so many parts; what they did, and how long it took."""
    content = {
        "title": "asleep",
        "problem": {"data": "mnist10k"},
        "network": {"hidden": 2, "depth": 1},
        "run": {"tasks": 1, "seeds": parts},
        "methods": {"base": {}},
    }
    study = from_dict(content, "asleep")
    manifest = Manifest(folder, "asleep", study, [1], {"count": 0, "digest": ""}, {}, 1)
    manifest.add_missing(study.columns, study.run.seeds, lambda *_: 1)
    log = Log()
    dead = frozenset(range(0, workers, round(1 / dying)))
    executor = Sleepers(workers, seconds, dead, log)
    pool = WorkerPool(
        RunConfig(study, "asleep", folder), manifest, range(parts), executor, Watcher(), threading.Event()
    )
    began, cpu = time.monotonic(), time.thread_time()
    outcome = pool.train()
    log.pool = time.thread_time() - cpu
    if not outcome.complete:
        raise RuntimeError(f"parts were lost: {outcome}")
    return log, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--parts", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=60.0, help="that a part takes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        log, took = simulate(options.workers, options.parts, options.seconds, Path(folder))
        cpu = time.process_time() - cpu
    ideal = log.slept / options.workers
    print(
        f"{options.workers} workers, {log.deaths} of which died, {options.parts} parts of {options.seconds:g} s: "
        f"{sum(count == 1 for count in log.completed.values())} completed once, "
        f"{sum(count > 1 for count in log.completed.values())} more than once, "
        f"{options.parts - len(log.completed)} lost\n"
        f"between two parts {1000 * log.between / options.parts:.0f} ms, "
        f"{100 * log.between / log.slept:.2f}% of the time at work, and {log.waited:.0f} s until the parts of the dead "
        f"were taken over; in all {took:.0f} s, at least {ideal:.0f} s; "
        f"{1000 * cpu / options.parts:.1f} ms of a processor core a part, "
        f"{1000 * log.pool / options.parts:.1f} of them in the pool"
    )


if __name__ == "__main__":
    main()
