"""How much a method has reinitialized."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Reinitialized(NamedTuple):
    """How many entries or units were reinitialized.

    Attributes:
        last: by the last step; int64, a scalar, or [R] for a stacked network.
        total: by all steps so far; the same shape.
    """

    last: Tensor
    total: Tensor


class Counts:
    """Counts of the last step that changed something, and of all steps; nothing is done at steps that change nothing.

    Args:
        replicas: R.
        device: where the network lies.
    """

    def __init__(self, replicas: int, device: torch.device) -> None:
        self._total = torch.zeros(replicas, dtype=torch.int64, device=device)
        self._last = torch.zeros_like(self._total)
        self._step = 0

    def add(self, step: int, counts: Tensor, rows: slice | Tensor = slice(None)) -> None:
        """Adds what was reinitialized.

        Args:
            step: the step that it belongs to.
            counts: int64, one for each of the given replicas.
            rows: which replicas.
        """
        if step != self._step:
            self._last.zero_()
            self._step = step
        self._last[rows] += counts
        self._total[rows] += counts

    def at(self, step: int) -> Reinitialized:
        """What the given step, the last so far, and all steps reinitialized.

        Args:
            step: the number of steps so far.

        Returns:
            Copies, each [R].
        """
        last = self._last if step == self._step else torch.zeros_like(self._last)
        return Reinitialized(last.clone(), self._total.clone())

    def restore(self, step: int, last: Tensor, total: Tensor) -> None:
        """Takes back what :meth:`at` gave.

        Args:
            step: the number of steps so far.
            last: [R].
            total: [R].
        """
        self._step = step
        self._last.copy_(last)
        self._total.copy_(total)
