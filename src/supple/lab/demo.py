"""The demo: loss of plasticity and its cures on permuted MNIST, all methods and seeds in one population.

Network and settings are those of the small network of Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights
vs units for maintaining plasticity in neural networks", arXiv 2508.00212.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import FrameType

import numpy as np
import torch

from supple.lab.population import Population, TaskMetrics
from supple.lab.report.comparison import Comparison
from supple.lab.study.part import Stopped
from supple.lab.study.shipped import find
from supple.lab.study.spec import Column, Study, read


@cache
def study() -> Study:
    """The study of the small network, whose network, optimizer and settings the demo has.

    Returns:
        The study.
    """
    return read(find("permuted_mnist/small")[0])


def columns(methods: Iterable[str] | None = None) -> dict[str, Column]:
    """What the demo compares.

    Args:
        methods: names of methods of the study; None: all.

    Returns:
        The columns by name of the method, in the order of the names.
    """
    known = {column.method: column for column in study().columns}
    return known if methods is None else {method: known[method] for method in methods}


def train(
    population: Population,
    methods: Sequence[str],
    seeds: Sequence[int],
    tasks: int,
    *,
    on_step: Callable[[], object] = lambda: None,
    on_task: Callable[[Comparison], object] = lambda so_far: None,
) -> tuple[Comparison | None, bool]:
    """Trains a population on the first tasks of its stream.

    Args:
        population: the networks, from :func:`supple.lab.study.assembly.assemble`.
        methods: names of the methods.
        seeds: the seeds.
        tasks: how many tasks.
        on_step: called after each step; what stops the run raises :class:`Stopped` here.
        on_task: called after each task with what was measured so far.

    Returns:
        (what was measured of the complete tasks, None if there are none; whether all tasks were learned).
    """
    measured: list[TaskMetrics] = []
    try:
        for task in range(tasks):
            measured.append(population.train_task(task, lambda steps: on_step()))
            on_task(_comparison(methods, seeds, measured))
    except Stopped:
        pass
    return (_comparison(methods, seeds, measured) if measured else None), len(measured) == tasks


def _comparison(methods: Sequence[str], seeds: Sequence[int], measured: Sequence[TaskMetrics]) -> Comparison:
    """The measurements of replicas, each [S * C], as arrays [tasks, S, C]."""

    def stacked(name: str) -> np.ndarray:
        values = torch.stack([getattr(metrics, name) for metrics in measured])
        return values.view(len(measured), len(seeds), len(methods)).cpu().numpy()

    shares = {name: stacked(name).astype(np.float64) for name in ("accuracy", "loss", "dead")}
    return Comparison(tuple(methods), tuple(seeds), **shares, reinitialized=stacked("reinitialized"))


@contextmanager
def stops_on_interrupt() -> Iterator[Callable[[], None]]:
    """Makes Ctrl-C a request to stop at the end of the current step; a second Ctrl-C interrupts at once.

    Yields:
        What is to be called after each step; raises :class:`Stopped` if a stop was asked for.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    def check() -> None:
        if asked.is_set():
            raise Stopped

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread on the CPU.

    The products of so small a network take microseconds, less than handing a part to another thread; where another
    program keeps a core busy, waiting for that part makes a step ten to twenty times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
