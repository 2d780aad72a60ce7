"""What is to be run, on what: how many processes there are, and how many runs they train together.

Within rounding, a replica's result does not depend on its neighbours, so replicas may be trained in any company; those
trained together are a part. Rounding grows as a network learns, so that the parts are a matter of the study and not of
the machine: as many processes as there may be, the same runs are trained together, and end bit for bit the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from supple.lab.limits import cores, usable_memory
from supple.lab.study.errors import StudyError
from supple.lab.study.problem import StudyProblem
from supple.lab.study.spec import ClassIncrementalStudy, Column, PermutedStudy, Study

PartSize = Callable[[Column, int, int], int]
"""How many runs to train together, from one of their columns, and the numbers of seeds and of columns."""

CACHED = 26_000_000
"""Bytes of weights up to which a part trains fastest on a core; ``benchmarks/parts.py`` measures it."""

PART_SIZE = 24
"""Runs that a CPU trains together where nothing else is said: more train little faster, and fewer parts than cores
leave some of them idle. On a GPU it is as many as there are."""


@dataclass(frozen=True)
class RunConfig:
    """What is to be run.

    ``study`` is already cut down to that; ``original`` is as its file says it, None where that is the same. ``memory``
    is the bytes that one process may take, ``part_size`` the most runs that are trained together; None: as the folder
    says, or else :data:`PART_SIZE` on a CPU; ``given`` is the problem of a study of kind
    "own". StudyError if the device cannot do what is asked for.
    """

    study: Study
    name: str
    folder: Path
    original: Study | None = None
    data_dir: Path | None = None
    verify: bool = True
    device: str = "cpu"
    graphs: bool = False
    processes: int | None = None
    memory: int | None = None
    part_size: int | None = None
    command: str = ""
    given: Any = None

    def __post_init__(self) -> None:
        if self.graphs and not isinstance(self.study, PermutedStudy):
            compiled = "; a transformer has compiled = true in [network]"
            raise StudyError(
                "--graphs is for perceptrons on permuted images"
                f"{compiled if isinstance(self.study, ClassIncrementalStudy) else '; leave it out'}"
            )
        if self.device != "cpu":
            return
        if self.graphs:
            raise StudyError("--graphs records steps of a GPU; leave it out, or add --device cuda")
        if any(getattr(column.network, "precision", "") == "tf32" for column in self.study.columns):
            raise StudyError("precision tf32 is of products on a GPU; choose float32 or bfloat16, or add --device cuda")

    @property
    def runtime(self) -> dict[str, Any]:
        """What a problem has to know of where it is run."""
        return {"device": self.device, "graphs": self.graphs}

    @property
    def problem_options(self) -> dict[str, Any]:
        """What :func:`supple.lab.study.problems.open_problem` takes beside the study."""
        data_dir = None if self.data_dir is None else str(self.data_dir.absolute())
        given = {} if self.given is None else {"given": self.given}
        return {"data_dir": data_dir, "verify": self.verify, **self.runtime, **given}

    @cached_property
    def process_count(self) -> int:
        """How many processes train at the same time: as many as asked for, or one a core, or one for a GPU."""
        if self.processes is not None:
            return self.processes
        if self.device != "cpu":
            return 1
        return cores()


def free_memory(device: str, processes: int) -> int:
    """Bytes that one process may take: three quarters of what is available now, over the number of processes."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info()[0] * 3 // 4)
    return usable_memory() // processes


def usual_part_size(config: RunConfig) -> int | None:
    """The most runs that are trained together in a new folder; None: as many as there are."""
    return config.part_size or (PART_SIZE if config.device == "cpu" else None)


def fitting(config: RunConfig, problem: StudyProblem, most: int | None) -> PartSize:
    """How many runs to train together: at most so many, of large networks as many as train fastest, if they fit.

    What it returns raises ValueError where not even one run fits into the memory.
    """
    allowed = free_memory(config.device, config.process_count) if config.memory is None else config.memory
    room = allowed - problem.images_memory

    def size(column: Column, seeds: int, columns: int) -> int:
        one, two = (problem.part_memory(column, 1, count) for count in (1, 2))
        whole = one + (columns - 1) * (two - one)
        if room < one:
            raise ValueError(
                f"one network with its results takes {one / 1e6:,.1f} MB and the images "
                f"{problem.images_memory / 1e6:,.1f} MB, more than the {allowed / 1e6:,.1f} MB that a process may "
                "take; give more with --memory, fewer --processes, or a smaller network"
            )
        room_for = room // whole * columns if room >= whole else 1 + (room - one) // (two - one)
        return min(filter(None, (room_for, problem.most(column), most)))

    return size


def cached(weights: int) -> int:
    """How many replicas, of so many bytes of weights each, train fastest together on a core; at least 1."""
    return max(1, CACHED // weights)


def cut(seeds: int, settings: int, size: int) -> list[tuple[slice, slice]]:
    """Cuts S seeds with C settings each into parts of at most ``size`` runs: (which seeds, which settings) of each.

    A part has all settings of some seeds, or some settings of one seed. The parts are in order, and as even as they can
    be.
    """
    if size >= settings:
        return [(some, slice(0, settings)) for some in _even(seeds, size // settings)]
    return [(slice(seed, seed + 1), some) for seed in range(seeds) for some in _even(settings, size)]


def _even(count: int, size: int) -> list[slice]:
    """Cuts a count of things into as few pieces of at most ``size`` as possible, as even as they can be."""
    pieces = -(-count // size)
    return [slice(count * k // pieces, count * (k + 1) // pieces) for k in range(pieces)]
