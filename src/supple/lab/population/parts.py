"""How more replicas than a cache or a memory holds are cut into parts.

Within rounding, a replica's result does not depend on its neighbours, so replicas may be trained in any company.
Parts whose weights stay in a core's share of the cache train fastest.
"""

from __future__ import annotations

import torch

CACHED = 26_000_000
"""Bytes of weights up to which a part trains fastest on a core; ``benchmarks/parts.py`` measures it."""


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


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator raises a plain RuntimeError.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _even(count: int, size: int) -> list[slice]:
    """Cuts a count of things into as few pieces of at most ``size`` as possible, as even as they can be."""
    pieces = -(-count // size)
    return [slice(count * k // pieces, count * (k + 1) // pieces) for k in range(pieces)]
