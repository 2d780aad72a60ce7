"""When continual backpropagation replaces how many units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from supple.functional import random
from supple.functional.selection import accumulated_count, proportional_count

_NEVER = torch.iinfo(torch.int64).max
_BLOCK = 1024


class ReplacementSchedule:
    """How many units of each layer and replica are replaced at each step.

    That number follows from the ages of the units, and which units were replaced does not matter to it: all that are
    old enough count the same. So it is known on the host before the step, without waiting for the device, and nothing
    has to be computed at a step at which nothing is due.

    Args:
        sizes: units in each of the G layers.
        maturity: int64 [R] on the CPU; a unit is eligible when its age is above this many steps.
        rate: float64 [R] on the CPU; replacement rate a step.
        draw: None to accumulate the rate, or (seed int64 [R] on the CPU, a purpose a layer) to draw the number at each
            step: the whole part of rate * eligible, plus one with the probability of the rest.
    """

    def __init__(
        self, sizes: Sequence[int], maturity: Tensor, rate: Tensor, draw: tuple[Tensor, Sequence[int]] | None = None
    ) -> None:
        self._maturity, self._rate, self._draw = maturity, rate, draw
        # For each place of a layer, the first step at which the unit there is eligible; places are interchangeable.
        self._mature_at = [(maturity + 1).unsqueeze(1).repeat(1, size) for size in sizes]
        self._accumulator = torch.zeros(len(sizes), len(rate), dtype=torch.float64)
        self._eligible = torch.zeros(len(sizes), len(rate), dtype=torch.int64)
        self._changes_at = 0
        self._chances: Tensor | None = None
        self._chances_block = -1
        self.step = 0
        self.counts = torch.zeros_like(self._eligible)
        self.due = False
        self.advance()

    @property
    def active(self) -> Tensor:
        """Replicas in which units are ever replaced, bool [R]."""
        return self._rate > 0

    def advance(self) -> None:
        """Goes on to the next step: ``counts`` [G, R] then says how many to replace, ``due`` whether any."""
        self.step += 1
        if self.step >= self._changes_at:
            self._eligible = torch.stack([(places <= self.step).sum(dim=1) for places in self._mature_at])
            later = [places[places > self.step] for places in self._mature_at]
            self._changes_at = min((int(steps.min()) for steps in later if len(steps)), default=_NEVER)
        if self._draw is None:
            self.counts, self._accumulator = accumulated_count(self._accumulator, self._eligible, self._rate)
        else:
            self.counts = self._drawn()
        self.due = bool(self.counts.any())
        if self.due:
            for places, counts in zip(self._mature_at, self.counts, strict=True):
                rows = torch.where(counts > 0)[0]
                ordered = places[rows].sort(dim=1).values
                replaced = torch.arange(places.shape[1]) < counts[rows].unsqueeze(1)
                places[rows] = torch.where(replaced, (self.step + self._maturity[rows] + 1).unsqueeze(1), ordered)
            self._changes_at = self.step + 1

    def _drawn(self) -> Tensor:
        assert self._draw is not None
        block, place = divmod(self.step, _BLOCK)
        if block != self._chances_block:
            seed, purposes = self._draw
            self._chances = torch.stack([random.uniform(seed, purpose, block, _BLOCK) for purpose in purposes])
            self._chances_block = block
        assert self._chances is not None
        return torch.stack(
            [
                proportional_count(1, self._rate * eligible, chance)
                for eligible, chance in zip(self._eligible, self._chances[:, :, place], strict=True)
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved to go on."""
        return {
            "step": self.step,
            "mature_at": [places.clone() for places in self._mature_at],
            "accumulator": self._accumulator.clone(),
            "counts": self.counts.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Args:
            state: the state.
        """
        self.step = int(state["step"])
        for places, saved in zip(self._mature_at, state["mature_at"], strict=True):
            places.copy_(saved)
        self._accumulator.copy_(state["accumulator"])
        self.counts = state["counts"].clone().cpu()
        self.due = bool(self.counts.any())
        # The places already hold what follows the pending step, so they are counted again at the next.
        self._changes_at = 0
