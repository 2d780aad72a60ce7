"""Timing of contenders: ordinary steps, steps at which a method acts, and starts of tasks, each apart.

What happens seldom (SWR acts every 2,048 steps, a task starts every 2,000) falls into a window of a second or misses
it. So each kind of work has its own mean time, and a step's time is their average with the weights of a long run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


class Contender(Protocol):
    """What trains one network, or many at once.

    Attributes:
        replicas: networks trained at once.
        action_share: share of the steps at which a method acts, in the long run.
        steps_left: steps of the current task that are still to be taken.
    """

    replicas: int
    action_share: float
    steps_left: int

    def start_task(self) -> None:
        """Goes on to the next task."""

    def acts_next(self) -> bool:
        """Whether a method acts at the next step."""

    def skip_to_action(self) -> None:
        """Goes on, without training, until a method acts at the next step."""

    def step(self) -> int:
        """Trains every network by one step or more; returns how many."""


@dataclass
class Clock:
    """Time spent on one kind of work.

    Attributes:
        count: how often it was done.
        seconds: how long that took in all.
    """

    count: int = 0
    seconds: float = 0.0

    def add(self, work: Callable[[], int], synchronize: Callable[[], object]) -> None:
        """Times some work, which returns how often it was done."""
        start = time.perf_counter()
        count = work()
        synchronize()
        self.seconds += time.perf_counter() - start
        self.count += count

    @property
    def mean(self) -> float:
        """Seconds each time; 0 where it was never done."""
        return self.seconds / self.count if self.count else 0.0


@dataclass(frozen=True)
class Sample:
    """What one measurement found, in seconds.

    Args:
        quiet: a step at which no method acts; 0 where there is none.
        acting: a step at which one does; 0 where there is none.
        start: the start of a task.
    """

    quiet: float
    acting: float
    start: float

    def step(self, action_share: float, steps_a_task: int) -> float:
        """Seconds a step in the long run.

        Args:
            action_share: share of the steps at which a method acts.
            steps_a_task: steps a task.

        Returns:
            (1 - share) quiet + share acting + start / steps.
        """
        return (1 - action_share) * self.quiet + action_share * self.acting + self.start / steps_a_task


def measure(contender: Contender, seconds: float, synchronize: Callable[[], object] = lambda: None) -> Sample:
    """Trains for a time and says how long each kind of work takes.

    Where no step at which a method acts falls into the window, the method is taken to the next one, which is timed
    after the window.

    Args:
        contender: what to measure.
        seconds: how long to train.
        synchronize: waits until the device has done all it was given.

    Returns:
        The mean times.
    """
    quiet, acting, starts = Clock(), Clock(), Clock()

    def start() -> int:
        contender.start_task()
        return 1

    starts.add(start, synchronize)
    contender.step()
    synchronize()
    end = time.perf_counter() + seconds

    def steps_of_a_kind(acts: bool) -> int:
        taken = contender.step()
        while contender.steps_left and time.perf_counter() < end and contender.acts_next() == acts:
            taken += contender.step()
        return taken

    while time.perf_counter() < end or not (quiet.count or contender.action_share == 1):
        if not contender.steps_left:
            starts.add(start, synchronize)
        acts = contender.acts_next()
        (acting if acts else quiet).add(lambda acts=acts: steps_of_a_kind(acts), synchronize)  # type: ignore[misc]
    if contender.action_share and not acting.count:
        if not contender.steps_left:
            contender.start_task()
        contender.skip_to_action()
        synchronize()
        acting.add(contender.step, synchronize)
    return Sample(quiet.mean, acting.mean, starts.mean)


def warm_up(contender: Contender, steps: int = 2) -> None:
    """Lets a contender do once whatever it does later, so that what is done only once is not measured.

    Args:
        contender: what is measured later.
        steps: how many steps it takes before one at which a method acts.
    """
    contender.start_task()
    for action in (*(False,) * steps, True):
        if not contender.steps_left:
            contender.start_task()
        if action and not contender.action_share:
            return
        if action:
            contender.skip_to_action()
        contender.step()


def peak(device: str = "cpu", sizes: tuple[int, ...] = (1024, 2048), times: int = 4) -> float:
    """The rate of large matrix products in float32, the best of several.

    Args:
        device: where.
        sizes: rows and columns of the square matrices.
        times: products a size.

    Returns:
        Operations a second.
    """
    best = 0.0
    for size in sizes:
        a, b = torch.rand(2, size, size, device=device)
        out = torch.mm(a, b)
        for _ in range(times):
            clock = Clock()
            synchronizer(device)()
            clock.add(lambda a=a, b=b, out=out: len(torch.mm(a, b, out=out)) and 1, synchronizer(device))  # type: ignore[misc]
            best = max(best, 2 * size**3 / clock.seconds)
    return best


def synchronizer(device: str) -> Callable[[], object]:
    """What waits until the device has done all it was given."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
