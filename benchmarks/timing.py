"""What the benchmarks share: worker processes on cores of their own, the machine's peak, spreads and tables."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.utils.benchmark import Timer

import supple
from supple.lab.population import Products

Workers = list[ProcessPoolExecutor]
"""Processes of one worker each."""


def cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def workers(groups: Sequence[Sequence[int]]) -> Iterator[Workers]:
    """Worker processes, each on a group of cores and with as many threads, until the end of the ``with`` block."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        try:
            yield [
                stack.enter_context(ProcessPoolExecutor(1, context, initializer=_settle, initargs=(group,)))
                for group in groups
            ]
        except (BrokenProcessPool, BrokenPipeError):
            sys.exit("A worker process of the benchmark has ended, as happens where something kills it.")


def _settle(group: Sequence[int]) -> None:
    # Ctrl-C reaches all processes; the one that started this one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGPIPE"):
        # Without the one that started it, it ends without a word.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, group)
    torch.set_num_threads(len(group))


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def ask(processes: Workers, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]] | None = None) -> list:
    """Calls a function in all workers at the same time, in each with its own arguments; the answers, one a worker."""
    asked = [
        process.submit(function, *own)
        for process, own in zip(processes, arguments or [()] * len(processes), strict=True)
    ]
    return [answer.result() for answer in asked]


def timer(statement: str, setup: str = "pass", threads: int | None = None, **names: Any) -> Timer:
    """A timer with as many threads as torch has now; the device is waited for where there is a GPU."""
    return Timer(statement, setup, globals=names, num_threads=threads or torch.get_num_threads())


def peak(
    device: str = "cpu", sizes: Sequence[int] | None = None, seconds: float = 0.2, precision: str = "float32"
) -> float:
    """The rate of large matrix products, the best of several, in 1e9 operations a second."""
    best, dtype = 0.0, torch.bfloat16 if precision == "bfloat16" else torch.float32
    # CPUs without instructions for bfloat16 are slow at it.
    usual = (4096, 8192) if device != "cpu" else (1024, 2048) if precision == "float32" else (512,)
    for size in sizes or usual:
        a, b, out = torch.rand(3, size, size, device=device).to(dtype)
        with Products(precision, a).applied():
            found = timer("torch.mm(a, b, out=out)", a=a, b=b, out=out).blocked_autorange(min_run_time=seconds)
        best = max(best, 2 * size**3 / min(found.times) / 1e9)
    return best


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and range of values, one a turn."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": list(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Ratios within each turn, so that a busy moment of the machine falls on both sides."""
    return [a / b for a, b in zip(above, below, strict=True)]


def ends(found: dict[str, Any], form: str) -> str:
    """The range of a spread; a hyphen between numbers that may have signs would be read as one."""
    return f"{form.format(found['low'])}..{form.format(found['high'])}"


def table(left: Sequence[str], right: Sequence[str], caption: str = "") -> Table:
    """An empty table, some columns aligned to the left and the others to the right."""
    found = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, header_style="bold")
    found.caption, found.caption_justify, found.caption_style = caption or None, "left", "dim"
    for name in left:
        found.add_column(name, no_wrap=True)
    for name in right:
        found.add_column(name, justify="right", no_wrap=True)
    return found


def machine(device: str) -> dict[str, Any]:
    """What is measured on: names and versions."""
    found = {
        "cpu": _cpu(),
        "cores": len(cores()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "supple": supple.__version__,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
