"""When a method acts: in which replicas a step is due, known on the host so that nothing waits for the device."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from supple.functional import random
from supple.functional.utility import accumulated_count, proportional_count

Rows = slice | Tensor
"""Some of the replicas, as what indexes a tensor [R, ...]: a slice, which gives a view, or int64 indices."""

ALL = slice(None)
"""All replicas."""

_NEVER = torch.iinfo(torch.int64).max
_BLOCK = 1024


class Every:
    """Each replica is due every so many steps, counted from 1.

    Args:
        period: int64 [R] on the CPU, steps from one time to the next, 1 or more.
        active: bool [R] on the CPU; a replica that is not active is never due.
        device: where the network lies.
    """

    def __init__(self, period: Tensor, active: Tensor, device: torch.device) -> None:
        self.active = active
        self._period, self._device = period, device
        self._none = torch.zeros_like(active)
        periods = period[active].unique().tolist()
        self._smallest = min(periods, default=_NEVER)
        self._same = len(periods) == 1
        self._all = rows_of(active, device)

    def mask(self, step: int) -> Tensor:
        """Replicas due at a step.

        Args:
            step: 1, 2, ...

        Returns:
            bool [R] on the CPU.
        """
        if self._same and step % self._smallest:
            return self._none
        return (step % self._period == 0) & self.active

    def rows(self, step: int) -> Rows | None:
        """Replicas due at a step, as :func:`rows_of` gives them.

        Args:
            step: 1, 2, ...

        Returns:
            The rows; None for none.
        """
        if step < self._smallest:
            return None
        if self._same:
            return None if step % self._smallest else self._all
        return rows_of(self.mask(step), self._device)

    def advance(self, missed: Collection[int] = (), frozen: Collection[int] = ()) -> None:
        """Goes on to the next step, which needs no bookkeeping here.

        Args:
            missed: layers that did not run.
            frozen: layers that do not train.
        """


class Replacements:
    """How many units of each layer and replica continual backpropagation replaces at each step.

    That number follows from the ages of the units, and which units were replaced does not matter to it: all that are
    old enough count the same. So it is known before the step, and where nothing is due nothing is computed.

    In a layer that does not run in a step no unit grows older, and what was due there is due again at the next step, on
    top of what comes due then: over time as many units are replaced as if it had always run. A layer that rests for
    long is not replaced as a whole when it is back: after ``LATEST`` steps in a row nothing more comes due.

    Args:
        sizes: units in each of the G layers.
        maturity: int64 [R] on the CPU; a unit is eligible when its age is above this many steps.
        rate: float64 [R] on the CPU; replacement rate a step.
        draw: None to accumulate the rate, or (seed int64 [R] on the CPU, a purpose a layer) to draw the number at each
            step: the whole part of rate * eligible, plus one with the probability of the rest.

    Attributes:
        step: the step that the rest is about, the next one; :meth:`advance` goes on to the one after.
        counts: int64 [G, R], how many units to replace, in layers that run.
        due: whether any.
    """

    LATEST = 1000

    def __init__(
        self, sizes: Sequence[int], maturity: Tensor, rate: Tensor, draw: tuple[Tensor, Sequence[int]] | None = None
    ) -> None:
        self.active = rate > 0
        self._maturity, self._rate, self._draw = maturity, rate, draw
        # For each place of a layer, the first step at which the unit there is eligible; places are interchangeable.
        self._mature_at = [(maturity + 1).unsqueeze(1).repeat(1, size) for size in sizes]
        shape = len(sizes), len(rate)
        # What is left of the rate and of the units due, before the next step and after it.
        self._fraction = self._fraction_after = torch.zeros(shape, dtype=torch.float64)
        self._owed = self._owed_after = torch.zeros(shape, dtype=torch.int64)
        self._rested, self._behind = [0] * len(sizes), False
        self._eligible = torch.zeros_like(self._owed)
        self._changes_at = 0
        self._chances: Tensor | None = None
        self._chances_block = -1
        self.step = 1
        self._work_out()

    def mask(self, step: int) -> Tensor:
        """Replicas in which a unit of any layer is replaced at the next step.

        Args:
            step: that step.

        Returns:
            bool [R] on the CPU.
        """
        return (self.counts > 0).any(dim=0)

    def advance(self, missed: Collection[int] = (), frozen: Collection[int] = ()) -> None:
        """Goes on to the next step.

        Args:
            missed: the layers that did not run in this one.
            frozen: the layers that could not be acted on, where nothing came due.
        """
        if self.due:
            for number, (places, counts) in enumerate(zip(self._mature_at, self.counts, strict=True)):
                if number in missed or number in frozen:
                    continue
                rows = torch.where(counts > 0)[0]
                ordered = places[rows].sort(dim=1).values
                replaced = torch.arange(places.shape[1]) < counts[rows].unsqueeze(1)
                places[rows] = torch.where(replaced, (self.step + self._maturity[rows] + 1).unsqueeze(1), ordered)
            self._changes_at = 0
        if missed or frozen or self._behind:
            self._rest(missed, frozen)
        self._fraction, self._owed = self._fraction_after, self._owed_after
        self.step += 1
        self._work_out()

    def _rest(self, missed: Collection[int], frozen: Collection[int]) -> None:
        """Takes layers that did not run out of the account of the step."""
        fraction, owed = self._fraction_after.clone(), self._owed_after.clone()
        for number in {*missed, *frozen}:
            self._mature_at[number] += 1
            if number in frozen or self._rested[number] >= self.LATEST:
                fraction[number], owed[number] = self._fraction[number], self._owed[number]
            else:
                owed[number] += self.counts[number]
        self._fraction_after, self._owed_after, self._changes_at = fraction, owed, 0
        self._rested = [steps + 1 if number in missed else 0 for number, steps in enumerate(self._rested)]
        self._behind = any(self._rested) or bool(owed.any())

    def _work_out(self) -> None:
        """Works out what is due in the next step."""
        if self.step >= self._changes_at:
            self._eligible = torch.stack([(places <= self.step).sum(dim=1) for places in self._mature_at])
            later = [places[places > self.step] for places in self._mature_at]
            self._changes_at = min((int(steps.min()) for steps in later if len(steps)), default=_NEVER)
        if self._draw is None:
            due, self._fraction_after = accumulated_count(self._fraction, self._eligible, self._rate)
        else:
            due = self._drawn(*self._draw)
        self.counts, self._owed_after = due, self._owed
        if self._behind:
            self.counts = torch.minimum(due + self._owed, self._eligible)
            self._owed_after = due + self._owed - self.counts
        self.due = bool(self.counts.any())

    def draw_with(self, seed: Tensor) -> None:
        """Draws the numbers with other seeds from now on, where they are drawn.

        Args:
            seed: int64 [R] on the CPU.
        """
        if self._draw is not None:
            self._draw, self._chances = (seed, self._draw[1]), None

    def _drawn(self, seed: Tensor, purposes: Sequence[int]) -> Tensor:
        block, place = divmod(self.step, _BLOCK)
        if self._chances is None or block != self._chances_block:
            self._chances = torch.stack([random.uniform(seed, purpose, block, _BLOCK) for purpose in purposes])
            self._chances_block = block
        expected = self._rate * self._eligible
        return proportional_count(1, expected, self._chances[:, :, place])

    def state_dict(self) -> dict[str, Any]:
        """Gives what has to be saved to go on."""
        return {
            "step": self.step,
            "mature_at": [places.clone() for places in self._mature_at],
            "accumulator": self._fraction.clone(),
            "owed": self._owed.clone(),
            "rested": list(self._rested),
            "counts": self.counts.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Args:
            state: the state.
        """
        self.step = state["step"]
        for places, saved in zip(self._mature_at, state["mature_at"], strict=True):
            places.copy_(saved)
        self._fraction, self._owed = state["accumulator"].cpu().clone(), state["owed"].cpu().clone()
        self._rested = [int(steps) for steps in state["rested"]]
        self._behind = any(self._rested) or bool(self._owed.any())
        self._changes_at = 0
        self._work_out()
        if not torch.equal(self.counts, state["counts"].cpu()):
            raise ValueError("the state of the schedule contradicts itself: other counts follow from it than it has")


def rows_of(due: Tensor, device: torch.device) -> Rows | None:
    """Turns a mask on the host into rows: None for none, a slice where they are evenly spaced, else int64 indices.

    The replicas of one setting of a population are evenly spaced; those of several settings seldom are.

    Args:
        due: bool [R] on the CPU.
        device: where the network lies, and the indices are to lie.

    Returns:
        What indexes a tensor [R, ...].
    """
    indices = torch.where(due)[0]
    numbers = indices.tolist()
    if not numbers:
        return None
    if len(numbers) == len(due):
        return ALL
    first, last = numbers[0], numbers[-1]
    step = numbers[1] - first if len(numbers) > 1 else 1
    if numbers == list(range(first, last + 1, step)):
        return slice(first, last + 1, step)
    return indices.to(device, non_blocking=True)


def replicas_at(rows: Rows, places: Tensor) -> Tensor:
    """Finds the replicas at given places among some rows.

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
