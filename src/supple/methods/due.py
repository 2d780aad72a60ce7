"""Which replicas a method acts on at a step."""

from __future__ import annotations

import torch
from torch import Tensor


class Due:
    """Which replicas are due at a step, when each has its own period; known on the host, so nothing is waited for.

    Args:
        frequency: int64 [R] on the CPU, steps from one time to the next, 1 or more.
        device: where the network lies.
    """

    def __init__(self, frequency: Tensor, device: torch.device) -> None:
        self._frequency = frequency
        self._same = int(frequency[0]) if bool((frequency == frequency[0]).all()) else None
        self._smallest = int(frequency.min())
        self._device = device

    def __call__(self, step: int) -> slice | Tensor | None:
        """Replicas due at this step (1, 2, ...): None for none, ``slice(None)`` for all, else int64 indices."""
        if self._same is not None:
            return None if step % self._same else slice(None)
        if step < self._smallest:
            return None
        return rows_of(step % self._frequency == 0, self._device)


def rows_of(due: Tensor, device: torch.device) -> slice | Tensor | None:
    """Turns a mask on the host into rows: None for none, ``slice(None)`` for all, else int64 indices on the device.

    Args:
        due: bool [R] on the CPU.
        device: where the network lies.

    Returns:
        What indexes a tensor [R, ...]; a slice gives a view without a copy.
    """
    if bool(due.all()):
        return slice(None)
    indices = torch.where(due)[0]
    return indices.to(device, non_blocking=True) if len(indices) else None
