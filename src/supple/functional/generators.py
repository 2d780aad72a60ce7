"""The random generators of PyTorch, NumPy and Python, which belong to whoever trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch


@contextmanager
def generators_kept(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Puts the random generators of PyTorch, NumPy and Python back afterwards, to where they were.

    Args:
        devices: accelerators whose generators are put back, too; a CPU among them is no matter.

    Yields:
        Nothing.
    """
    put_back: list[Callable[[], Any]] = [
        partial(torch.set_rng_state, torch.get_rng_state()),
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),  # noqa: NPY002
    ]
    for device in devices:
        if device.type not in ("cpu", "meta"):
            there = torch.get_device_module(device)
            where = () if device.type == "mps" else (device,)
            put_back.append(partial(there.set_rng_state, there.get_rng_state(*where), *where))
    try:
        yield
    finally:
        for one in put_back:
            one()
