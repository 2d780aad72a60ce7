"""What running a study will take on this machine, from a measurement of seconds."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supple.lab.limits import out_of_memory
from supple.lab.study.assembly import population_key
from supple.lab.study.manifest import Manifest
from supple.lab.study.part import Part
from supple.lab.study.problem import StudyProblem
from supple.lab.study.run_config import RunConfig, fitting, usual_part_size
from supple.lab.study.schema import AnyNetwork, AnyOptimizer


@dataclass(frozen=True)
class Estimate:
    """What the runs of one network and optimizer will take.

    ``part`` is the number of runs of the largest part, and ``memory``, in bytes, what it takes at its peak, with the
    images. ``steps`` are those of each run, ``flops`` those of the matrix products of all runs. ``rate``, network steps
    a second with what is measured at the start of each task, and ``seconds`` are of one process. ``share`` is how much
    of a core this process got while it was measured; others took the rest.
    """

    network: AnyNetwork
    optimizer: AnyOptimizer
    methods: tuple[str, ...]
    runs: int
    parts: int
    part: int
    steps: int
    flops: int
    memory: int
    rate: float
    seconds: float
    share: float


def estimate(config: RunConfig, problem: StudyProblem, seconds: float = 1.5) -> list[Estimate]:
    """Trains the largest parts of each network and optimizer for some seconds, and says what all will take.

    It is one part for each choice of methods that parts have. The folder is neither read nor written, and of the images
    only the number and size matter. ValueError if not even one network fits into the memory, or it runs out all the
    same.
    """
    study = config.study
    steps = problem.steps(study.run.tasks, study.run.seeds)
    manifest = Manifest(Path(), config.name, study, steps, {}, {})
    manifest.add_missing(study.columns, study.run.seeds, fitting(config, problem, usual_part_size(config)))
    parts = [manifest.part(number) for number in range(len(manifest.parts))]
    found = []
    for _, members in itertools.groupby(parts, key=lambda part: population_key(part.columns[0])):
        group = list(members)
        largest = max(group, key=lambda part: part.size)
        first = largest.columns[0]
        runs, length, passed = sum(part.size for part in group), sum(steps), 0.0
        alike: dict[frozenset[str], list[Part]] = defaultdict(list)
        for part in group:
            alike[frozenset(column.kind for column in part.columns)].append(part)
        began, used = time.perf_counter(), time.process_time()
        for some in alike.values():
            rate = _rate(problem, max(some, key=lambda part: part.size), seconds / len(alike))
            passed += sum(part.size for part in some) * length / rate
        share = (time.process_time() - used) / (time.perf_counter() - began)
        found.append(
            Estimate(
                network=first.network,
                optimizer=first.optimizer,
                methods=tuple(dict.fromkeys(column.method for part in group for column in part.columns)),
                runs=runs,
                parts=len(group),
                part=largest.size,
                steps=length,
                flops=2 * problem.multiply_adds(first) * runs * length,
                memory=problem.images_memory + problem.part_memory(first, len(largest.seeds), len(largest.columns)),
                rate=runs * length / passed,
                seconds=passed,
                share=min(1.0, share),
            )
        )
    return found


def _rate(problem: StudyProblem, part: Part, seconds: float) -> float:
    try:
        return problem.rate(part.columns, part.seeds, seconds)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ValueError(
            f"memory ran out with {part.size} networks ({error}); give less than there is with --memory"
        ) from error


def makespan(found: Sequence[Estimate], config: RunConfig) -> float:
    """Seconds that all will take with the processes of a run, if parts are shared out evenly."""
    parts = sum(one.parts for one in found)
    return sum(one.seconds for one in found) / min(config.process_count, max(1, parts))


def others(found: Sequence[Estimate], config: RunConfig) -> str:
    """A sentence about other programs, where they took much of the processor during the measurement."""
    share = min(one.share for one in found)
    if config.device != "cpu" or share >= 0.8:
        return ""
    return f" Other programs keep this machine busy: the measurement got {share:.0%} of a core."
