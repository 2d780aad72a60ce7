"""How more replicas than a cache or a memory holds are cut into parts.

Within rounding, a replica's result does not depend on its neighbours, so replicas may be trained in any company.
Parts whose weights stay in a core's share of the cache train fastest.
"""

from __future__ import annotations

import itertools

import torch

CACHED = 26_000_000
"""Bytes of weights up to which a part trains fastest on a core; ``benchmarks/parts.py`` measures it."""


def cached(weights: int) -> int:
    """How many replicas, of so many bytes of weights each, train fastest together on a core; at least 1."""
    return max(1, CACHED // weights)


def cut(seeds: int, settings: int, size: int) -> list[slice]:
    """Cuts seed-first replicas into parts of at most ``size``: of whole seeds, or of some settings of one seed.

    Of S seeds with C settings each, replica s * C + c has seed s and setting c. The parts are in order, as even as they
    can be, and together they are all S * C replicas.
    """
    for name, value in (("seeds", seeds), ("settings", settings), ("size", size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it has to be 1 or more")
    if size >= settings:
        return [slice(a * settings, b * settings) for a, b in _even(seeds, size // settings)]
    within = _even(settings, size)
    return [slice(s * settings + a, s * settings + b) for s in range(seeds) for a, b in within]


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator raises a plain RuntimeError.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _even(count: int, size: int) -> list[tuple[int, int]]:
    """Cuts a count of things into as few pieces of at most ``size`` as possible, as even as they can be."""
    pieces = -(-count // size)
    bounds = [count * k // pieces for k in range(pieces + 1)]
    return list(itertools.pairwise(bounds))
