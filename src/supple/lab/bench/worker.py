"""A worker process: makes one contender and measures it when asked to.

Requests come on standard input, one JSON object a line with the name of a function below as "do" and its arguments;
each gets one line on standard output, {"result": ...} or {"error": ...}. The process ends when its input does, so it
does not outlive the one that started it.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from supple.lab.bench import timing
from supple.lab.bench.engine import Engine
from supple.lab.bench.jax_loop import JaxLoop
from supple.lab.bench.loops import CarefulLoop, PlainLoop
from supple.lab.bench.memory import footprint
from supple.lab.bench.settings import BATCH, images
from supple.lab.population.graphs import WARM_UP
from supple.lab.population.products import Precision
from supple.lab.streams import PermutedStream


class Worker:
    """What a worker process does.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.contender: timing.Contender | None = None

    def make(
        self,
        name: str,
        hidden: int,
        first_seed: int,
        seeds: int,
        settings: int,
        count: int,
        configurations: tuple[Sequence[str], Sequence[str]],
        precision: Precision = "float32",
        graphs: bool = False,
    ) -> dict[str, Any]:
        """Makes a contender and warms it up: "engine", "plain", "careful" or "jax".

        Args:
            name: which.
            hidden: units of each hidden layer.
            first_seed: the seed of the loops, and the first of the engine.
            seeds: seeds of the engine.
            settings: replicas a seed of the engine.
            count: images a task.
            configurations: optimizers and methods of the engine.
            precision: of the engine's matrix products.
            graphs: whether the engine's steps with SGD are replayed as CUDA graphs.

        Returns:
            "steps", the number of steps a task.
        """
        # What was measured before goes first, so that both are never in memory together.
        self.contender = None
        gc.collect()
        numbers = range(first_seed, first_seed + seeds)
        if name == "engine":
            stream = PermutedStream(images(count), numbers, BATCH, self.device)
            self.contender = engine = Engine(hidden, settings, stream, *configurations, precision, graphs)
            for optimizer, method in itertools.product(*configurations):
                engine.use(optimizer, method)
                # With graphs, the last of these steps is a replay.
                timing.warm_up(engine, WARM_UP + 2 if graphs else 2)
        else:
            stream = PermutedStream(images(count), numbers[:1], BATCH)
            makers: dict[str, Callable[[], timing.Contender]] = {
                "plain": lambda: PlainLoop(hidden, stream, self.device),
                "careful": lambda: CarefulLoop(hidden, stream, self.device),
                "jax": lambda: JaxLoop(hidden, stream),
            }
            self.contender = makers[name]()
            timing.warm_up(self.contender)
        return {"steps": stream.steps}

    def use(self, optimizer: str, method: str) -> None:
        """Lets the engine train with this optimizer and method."""
        assert isinstance(self.contender, Engine)
        self.contender.use(optimizer, method)

    def measure(self, seconds: float) -> dict[str, float]:
        """Measures the contender."""
        assert self.contender is not None
        return asdict(timing.measure(self.contender, seconds, timing.synchronizer(self.device)))

    def peak(self) -> float:
        """Operations a second of large matrix products."""
        return timing.peak(self.device)

    def footprint(self, **arguments: Any) -> dict[str, Any]:
        """Memory and time of one population."""
        return asdict(footprint(device=self.device, **arguments))


_PUBLIC = ("make", "use", "measure", "peak", "footprint")


def main(arguments: list[str]) -> None:
    """Serves requests until the input ends.

    Args:
        arguments: the device, the number of threads, and the numbers of the cores to stay on (none: all).
    """
    device, threads, *cores = arguments
    # Ctrl-C reaches the whole group of processes; the one that started this one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores))
    torch.set_num_threads(int(threads))
    # Whatever a library prints must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    worker = Worker(device)
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            if name not in _PUBLIC:
                raise ValueError(f"there is no request {name!r}; there are {', '.join(_PUBLIC)}")
            answer = {"result": getattr(worker, name)(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
