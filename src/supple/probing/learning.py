"""Letting networks learn the same tasks, one a seed, and checking the curves that come of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from supple.probing.curves import Array, points
from supple.probing.networks import Origin, seeded

Learn = Callable[[nn.Module, torch.optim.Optimizer, int], Any]
"""Lets a network learn a seed's task with an optimizer, and gives the curve: the loss before each step."""


class Learning:
    """Lets networks learn tasks, all for the same budget.

    Args:
        origin: the networks and the seeds.
        learn: lets a network learn a task.
        optimizer: makes the optimizer from parameters.
        higher: whether a curve's numbers are better where they are higher.
        progress: whether to say on standard error how far it has come.

    Attributes:
        budget: length of a curve; 0 until the first.
    """

    def __init__(
        self,
        origin: Origin,
        learn: Learn,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        higher: bool,
        progress: bool,
    ) -> None:
        self.origin, self.learn, self.optimizer = origin, learn, optimizer
        self.higher, self.progress, self.budget = higher, progress, 0

    def losses(self, students: Mapping[str, Callable[[int], nn.Module]]) -> dict[str, Array]:
        """Lets networks learn the task of each seed.

        Args:
            students: by name, what makes a network from the number of the seed.

        Returns:
            Losses [seeds, points] by name; of scores, their negative.

        Raises:
            TypeError: if ``learn`` gives no curve.
            ValueError: if curves have other lengths, or a fresh network's is not finite.
        """
        seeds = self.origin.seeds
        found: dict[str, list[Array]] = {name: [] for name in students}
        progress = Progress(len(seeds) * len(students), self.progress)
        for number, seed in enumerate(seeds):
            for name, student in students.items():
                with seeded(seed, self.origin.device):
                    network = student(number)
                with seeded(seed, self.origin.device):
                    curve = self.curve(network, self.optimizer(network.parameters()), seed)
                if name == "fresh" and not np.isfinite(curve).all():
                    step = int(np.flatnonzero(~np.isfinite(curve))[0])
                    raise ValueError(
                        f"the fresh network of seed {seed} has a loss of {curve[step]} at step {step}, so nothing is "
                        "there to compare with; the step size may be too large: give another optimizer="
                    )
                found[name].append((-1 if self.higher else 1) * points(curve))
                progress.done()
        return {name: np.stack(curves) for name, curves in found.items()}

    def curve(self, network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Array:
        """Lets a network learn a task, and checks the curve.

        Args:
            network: the network.
            optimizer: its optimizer.
            seed: the seed of the task.

        Returns:
            The curve [steps].

        Raises:
            TypeError: if ``learn`` gives none.
            ValueError: if it has another length than the first one.
        """
        given = self.learn(network, optimizer, seed)
        said = "learn(network, optimizer, seed) returned"
        need = "it has to return the curve: the loss (or with higher=True the score) before each step"
        if given is None or isinstance(given, str):
            raise TypeError(f"{said} {given!r}; {need}")
        try:
            numbers = np.array([float(one) for one in (given.tolist() if isinstance(given, Tensor) else given)])
        except (TypeError, ValueError):
            raise TypeError(f"{said} a {type(given).__name__}; {need}") from None
        if len(numbers) < 2:
            raise ValueError(f"{said} {len(numbers)} numbers; a curve needs two or more")
        self.budget = self.budget or len(numbers)
        if len(numbers) != self.budget:
            raise ValueError(
                f"{said} {len(numbers)} numbers, and {self.budget} the time before; curves are compared at equal "
                "budgets"
            )
        return numbers


class Progress:
    """Says on standard error how many networks have learned: in place on a terminal, elsewhere now and then.

    Args:
        total: how many there are.
        shown: whether to say anything.
    """

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.shown, self.count = total, shown, 0
        self.began = self.last = time.monotonic()

    def done(self) -> None:
        """Says that one more has."""
        self.count += 1
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if not self.shown or (not terminal and (now - self.last < 30 or self.count == self.total)):
            return
        self.last = now
        left = (now - self.began) / self.count * (self.total - self.count)
        line = f"probe: {self.count} of {self.total} networks have learned, {left:.0f} s left"
        end = "\n" if not terminal or self.count == self.total else ""
        print(f"\r{line:60}" if terminal else line, end=end, file=sys.stderr, flush=True)
