"""Which replicas a method acts on at a step."""

from __future__ import annotations

import torch
from torch import Tensor


class Due:
    """Which replicas are due at a step, when each has its own period; known on the host, so nothing is waited for.

    Args:
        frequency: int64 [R] on the CPU, steps from one time to the next, 1 or more.
        active: bool [R] on the CPU; a replica that is not active is never due.
        device: where the network lies.
    """

    def __init__(self, frequency: Tensor, active: Tensor, device: torch.device) -> None:
        self._frequency, self._active, self._device = frequency, active, device
        self._none = torch.zeros_like(active)
        periods = frequency[active].unique().tolist()
        self._smallest = min(periods, default=0)
        self._same = len(periods) == 1
        self._all = rows_of(active, device)

    @property
    def active(self) -> Tensor:
        """Replicas that are ever due, bool [R] on the CPU."""
        return self._active

    def mask(self, step: int) -> Tensor:
        """Replicas due at a step.

        Args:
            step: 1, 2, ...

        Returns:
            bool [R] on the CPU.
        """
        if self._same and step % self._smallest:
            return self._none
        return (step % self._frequency == 0) & self._active

    def __call__(self, step: int) -> slice | Tensor | None:
        """Replicas due at this step (1, 2, ...): None for none, ``slice(None)`` for all, else int64 indices."""
        if self._all is None or step < self._smallest:
            return None
        if self._same:
            return None if step % self._smallest else self._all
        return rows_of(self.mask(step), self._device)


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


def even_rows_of(due: Tensor, device: torch.device) -> slice | Tensor | None:
    """As :func:`rows_of`, but a slice also where the rows are evenly spaced, as those of one setting of a population.

    Args:
        due: bool [R] on the CPU.
        device: where the network lies.

    Returns:
        What indexes a tensor [R, ...]; a slice gives a view without a copy.
    """
    indices = torch.where(due)[0]
    distances = indices.diff().unique()
    if not len(indices) or len(distances) > 1:
        return rows_of(due, device)
    step = int(distances[0]) if len(distances) else 1
    return slice(int(indices[0]), int(indices[-1]) + 1, step)
