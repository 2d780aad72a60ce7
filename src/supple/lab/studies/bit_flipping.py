"""Slowly changing regression: bits, of which some are flipped now and then, and a target that is too large to learn.

An input has 20 bits and one that is always 1. 15 of the bits stay as they are within a task, and one of them, drawn at
random, is flipped between two tasks; the other five are drawn anew for each example. The target is the output of a
network of 100 linear threshold units, whose weights are all 1 or -1: unit i is 1 where w_i x > m beta - S_i, with m
inputs, beta = 0.7, and the number S_i of its weights that are -1. The learner has five hidden units, so it has to go
on learning. (The authors' program draws all slow bits anew unless it is told ``flip_one``, as the papers have it.)

Source: Dohare, Sutton and Mahmood, "Continual backprop: stochastic gradient descent with persistent randomness", arXiv
2108.06325; the "slowly changing regression problem" of Dohare et al., Nature 632, 2024. A flip every 10,000 examples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab.nn import MLP
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled

_TARGET, _START, _FLIP, _EXAMPLES = (
    random.purpose("bit flipping", what) for what in ("target", "start", "flip", "examples")
)


def make(
    bits: int = 20, slow: int = 15, examples: int = 10_000, batch_size: int = 1, units: int = 100, beta: float = 0.7
) -> Problem:
    """The problem, with a flip after so many examples, which come in batches."""
    return Problem(
        network=lambda seed, hidden=5, activation="relu": MLP(
            bits + 1, hidden, 1, depth=1, activation=activation, seed=seed
        ),
        optimizer=lambda parameters, lr=0.01: torch.optim.SGD(parameters, lr=lr),
        stream=lambda seed: BitFlipping(seed, bits, slow, examples, batch_size, units, beta),
        loss=nn.functional.mse_loss,
    )


class BitFlipping:
    """The tasks of a seed; ``inputs`` and ``target`` are what they are made of."""

    def __init__(
        self, seed: int, bits: int, slow: int, examples: int, batch_size: int, units: int, beta: float
    ) -> None:
        self._seed = torch.tensor([seed])
        self._bits, self._slow, self._examples, self._batch_size = bits, slow, examples, batch_size
        signs = 1.0 - 2 * (random.words(self._seed, _TARGET, 0, units * (bits + 2))[0] & 1)
        self._weights, self._outgoing = signs[: units * (bits + 1)].view(units, bits + 1), signs[-units:]
        self._thresholds = (bits + 1) * beta - (self._weights < 0).sum(dim=1)

    def inputs(self, task: int) -> Tensor:
        """Bits of the examples of a task, [examples, bits + 1]; the slow ones come first, and the last is 1."""
        state = random.words(self._seed, _START, 0, self._slow)[0] & 1
        flips = random.words(self._seed, _FLIP, 0, task)[0] % self._slow
        state = (state + torch.bincount(flips, minlength=self._slow)) & 1
        fast = random.words(self._seed, _EXAMPLES, task, self._examples * (self._bits - self._slow))[0] & 1
        parts = (
            state.expand(self._examples, -1),
            fast.view(self._examples, -1),
            torch.ones(self._examples, 1, dtype=torch.int64),
        )
        return torch.cat(parts, dim=1).float()

    def target(self, inputs: Tensor) -> Tensor:
        """What is to be learned, [examples, 1]."""
        return ((inputs @ self._weights.T > self._thresholds).float() @ self._outgoing).unsqueeze(1)

    def __getitem__(self, task: int) -> Shuffled:
        inputs = self.inputs(task)
        return Shuffled((inputs, self.target(inputs)), self._batch_size)
