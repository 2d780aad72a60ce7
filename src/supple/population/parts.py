"""Training more replicas than a cache or a memory holds, a part at a time.

Within rounding, a replica's result does not depend on its neighbours, so replicas may be trained in any company.
Parts whose weights stay in a core's share of the cache train fastest, and parts that do not fit into memory can be
halved.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from supple.population.population import Population, TaskMetrics

CACHED = 26_000_000
"""Bytes of weights up to which a part trains fastest on a core; ``benchmarks/parts.py`` measures it."""


def cached(weights: int) -> int:
    """How many replicas train fastest together on a core.

    Args:
        weights: bytes of the weights of one.

    Returns:
        As many as have :data:`CACHED` bytes of weights, at least 1.
    """
    return max(1, CACHED // weights)


def cut(seeds: int, settings: int, size: int) -> list[slice]:
    """Cuts seed-first replicas into parts: of whole seeds, or of some settings of one seed.

    Args:
        seeds: number of seeds, S.
        settings: settings a seed, C; replica s * C + c has seed s and setting c.
        size: most replicas of a part, 1 or more.

    Returns:
        The parts, in order, as even as they can be; together they are all S * C replicas.

    Raises:
        ValueError: if a number is below 1.
    """
    for name, value in (("seeds", seeds), ("settings", settings), ("size", size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it has to be 1 or more")
    if size >= settings:
        return [slice(a * settings, b * settings) for a, b in _even(seeds, size // settings)]
    within = _even(settings, size)
    return [slice(s * settings + a, s * settings + b) for s in range(seeds) for a, b in within]


def halve(part: slice, settings: int) -> list[slice]:
    """Halves a part that :func:`cut` made, between two seeds or, where it has one, between two settings.

    Args:
        part: the part, of two replicas or more.
        settings: settings a seed.

    Returns:
        Two parts.
    """
    length = part.stop - part.start
    unit = settings if length > settings else 1
    middle = part.start + (length // unit + 1) // 2 * unit
    return [slice(part.start, middle), slice(middle, part.stop)]


def train_in_parts(
    make: Callable[[slice], Population],
    parts: Sequence[slice],
    settings: int,
    tasks: range,
    on_halve: Callable[[slice, Exception], object] = lambda part, error: None,
) -> Iterator[tuple[slice, int, TaskMetrics]]:
    """Trains parts one after another, each on all tasks.

    A part that runs out of memory is trained in two halves, from the first task on. Within rounding that gives the same
    results, so what was reported of it before is not reported again.

    Args:
        make: makes the population of some replicas.
        parts: the parts, from :func:`cut`.
        settings: settings a seed.
        tasks: which tasks of the stream, in order.
        on_halve: called with (part, error) when a part ran out of memory.

    Yields:
        (part, task, what was measured) after each task of each part.

    Raises:
        Exception: what running out of memory raised, if a part of one replica does not fit.
    """
    # With each part, how many of its tasks have been reported.
    waiting = [(part, 0) for part in reversed(parts)]
    while waiting:
        part, reported = waiting.pop()
        population = None
        for number, task in enumerate(tasks):
            try:
                population = population or make(part)
                metrics = population.train_task(task)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or part.stop - part.start == 1:
                    raise
                on_halve(part, error)
                waiting += [(half, max(number, reported)) for half in reversed(halve(part, settings))]
                break
            if number >= reported:
                yield part, task, metrics
        population = None
        gc.collect()


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU.

    Args:
        error: the error.

    Returns:
        The answer.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator raises a plain RuntimeError.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _even(count: int, size: int) -> list[tuple[int, int]]:
    """Cuts a count of things into as few pieces of at most ``size`` as possible, as even as they can be."""
    pieces = -(-count // size)
    bounds = [count * k // pieces for k in range(pieces + 1)]
    return list(itertools.pairwise(bounds))
