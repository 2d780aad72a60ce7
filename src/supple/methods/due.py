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
        """Replicas due at this step (1, 2, ...), as :func:`rows_of` gives them."""
        if self._all is None or step < self._smallest:
            return None
        if self._same:
            return None if step % self._smallest else self._all
        return rows_of(self.mask(step), self._device)


def rows_of(due: Tensor, device: torch.device) -> slice | Tensor | None:
    """Turns a mask on the host into rows: None for none, a slice where they are evenly spaced, else int64 indices.

    The replicas of one setting of a population are evenly spaced; those of several settings seldom are.

    Args:
        due: bool [R] on the CPU.
        device: where the network lies, and the indices are to lie.

    Returns:
        What indexes a tensor [R, ...]; a slice gives a view without a copy.
    """
    indices = torch.where(due)[0]
    numbers = indices.tolist()
    if not numbers:
        return None
    if len(numbers) == len(due):
        return slice(None)
    first, last = numbers[0], numbers[-1]
    step = numbers[1] - first if len(numbers) > 1 else 1
    if numbers == list(range(first, last + 1, step)):
        return slice(first, last + 1, step)
    return indices.to(device, non_blocking=True)


def replicas_at(rows: slice | Tensor, places: Tensor) -> Tensor:
    """The replicas at given places among some rows.

    Args:
        rows: what :func:`rows_of` gave.
        places: int64 [M], from 0 on.

    Returns:
        int64 [M].
    """
    if isinstance(rows, Tensor):
        return rows[places]
    start, step = rows.start or 0, rows.step or 1
    return places if (start, step) == (0, 1) else places * step + start
