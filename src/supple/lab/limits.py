"""What this machine can hold, asked before anything is made of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

LARGEST = 10**9
"""The largest number that any size of a study may be."""

RUN_RECORDS = 9_000
"""Bytes that what is known of a run takes in each process, where each run has settings of its own; measured."""

ROW_IN_MEMORY, ROW_ON_DISK = 150, 20
"""Bytes of a row of a table in the process that writes it, with copies, and in a compressed file; measured."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes that may be taken: three quarters of what is available now."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Elsewhere than on Linux only the whole memory is told; half of it is taken for available.
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return available * 3 // 4


def check_runs(runs: int) -> None:
    """Refuses more runs than those whose records fit into the memory of a process on each core."""
    most = usable_memory() // cores() // RUN_RECORDS
    if runs > most:
        raise ValueError(
            f"{runs:,} runs are more than the {most:,} whose records fit into the memory of this machine; give fewer "
            "seeds or settings, or share them out over several study files"
        )


def check_tasks(tasks: int) -> None:
    """Refuses more tasks than those whose results of a single run fit into memory."""
    most = usable_memory() // ROW_IN_MEMORY
    if tasks > most:
        raise ValueError(f"the results of at most {most:,} tasks fit into the memory of this machine")


def check_disk(folder: Path, rows: int) -> None:
    """Refuses results with more rows than there is room for on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if rows * ROW_ON_DISK > free:
        raise ValueError(
            f"the results of {rows:,} tasks of all runs together take about {rows * ROW_ON_DISK / 1e9:,.1f} GB, more "
            f"than the {free / 1e9:,.1f} GB that are free in {folder}; give fewer tasks or runs, or another folder "
            "with --out"
        )


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator raises a plain RuntimeError.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
