"""How much a method has reinitialized."""

from __future__ import annotations

import warnings
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


class Skips:
    """How often something was left alone because what is known of it is not finite, and the warning of it.

    Args:
        method: name of the method, for the warning.
        replicas: R.
        device: where the network lies.
    """

    def __init__(self, method: str, replicas: int, device: torch.device) -> None:
        self.total = torch.zeros(replicas, dtype=torch.int64, device=device)
        self._method = method
        self._news = self._warned = False

    def add(self, finite: Tensor, rows: slice | Tensor = slice(None)) -> None:
        """Counts one tensor or layer of each replica for which something is not finite.

        Args:
            finite: bool, one for each of the given replicas.
            rows: which replicas.
        """
        self.total[rows] += ~finite
        self._news = True

    def warn(self, stacklevel: int) -> None:
        """Warns the first time that there is something to say; waits for the device if anything was added.

        Args:
            stacklevel: whose line the warning names, as in ``warnings.warn`` called from here.
        """
        if self._warned or not self._news:
            return
        self._news = False
        if bool(self.total.any()):
            self._warned = True
            warnings.warn(
                f"{self._method} left a parameter or layer alone because its gradients or features are infinite or "
                "NaN. An overflow now and then is usual with a GradScaler; otherwise training diverges. This is said "
                "once; .skipped counts how often",
                UserWarning,
                stacklevel=stacklevel,
            )

    def restore(self, total: Tensor) -> None:
        """Takes back a saved total.

        Args:
            total: [R].
        """
        self.total.copy_(total)
        self._news = True
