"""What is to be run, on what: how many processes there are, and how many runs they train together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from supple.lab.study.assembly import groups
from supple.lab.study.course import Course
from supple.lab.study.manifest import Size
from supple.lab.study.spec import Column, Study


@dataclass(frozen=True)
class Order:
    """What is to be run.

    Args:
        study: the study, already cut down to what is to be run.
        name: its name.
        folder: where results go.
        original: the study as its file says it, before the command line changed it; None: as it is run.
        data_dir: folder with the images; None: the cache, or part of supple.
        verify: whether files in ``data_dir`` have to be those of the data set.
        device: "cpu" or "cuda".
        processes: how many processes train at the same time; None: one a core, or one for a GPU.
        memory: bytes that one process may take; None: a share of what is free.
        command: the command, for the manifest.
    """

    study: Study
    name: str
    folder: Path
    original: Study | None = None
    data_dir: Path | None = None
    verify: bool = True
    device: str = "cpu"
    processes: int | None = None
    memory: int | None = None
    command: str = ""


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def process_count(order: Order) -> int:
    """How many processes train at the same time.

    Args:
        order: what is to be run.

    Returns:
        As many as asked for, or one a core, or one for a GPU.
    """
    if order.processes is not None:
        return order.processes
    if order.device != "cpu":
        return 1
    return len(cores())


def free_memory(device: str, processes: int) -> int:
    """Memory that one process may take.

    Args:
        device: "cpu" or "cuda".
        processes: how many share it.

    Returns:
        Bytes: three quarters of what is available now, over the number of processes.
    """
    if device != "cpu":
        return int(torch.cuda.mem_get_info()[0] * 3 // 4)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Elsewhere than on Linux only the whole memory is told; half of it is taken for available.
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return available * 3 // 4 // processes


def part_size(order: Order, course: Course) -> Size:
    """How many runs to train together: as many as train fastest and fit, but so few that each process has a part.

    Args:
        order: what is to be run.
        course: its problem with the images.

    Returns:
        A function of (column, seeds, columns), which raises ValueError where not even one run fits into the memory.
    """
    processes = process_count(order)
    pieces = -(-processes // len(groups(order.study.columns)))
    allowed = free_memory(order.device, processes) if order.memory is None else order.memory
    room = allowed - course.images_memory

    def size(column: Column, seeds: int, columns: int) -> int:
        one, two = (course.part_memory(column, 1, count) for count in (1, 2))
        whole = one + (columns - 1) * (two - one)
        if room < one:
            raise ValueError(
                f"one network takes {one / 1e6:.1f} MB and the images {course.images_memory / 1e6:.1f} MB, more than "
                f"the {allowed / 1e6:.1f} MB that a process may take; give more with --memory, fewer --processes, or a "
                "smaller network"
            )
        fitting = room // whole * columns if room >= whole else 1 + (room - one) // (two - one)
        return min(fitting, course.most(column, order.device) or fitting, -(-seeds * columns // pieces))

    return size
