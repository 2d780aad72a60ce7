"""Streams of one's own: any iterable of tasks of batches, read for one seed.

While a stream makes tasks and batches, torch's generator is one of the seed and the task. A ``DataLoader`` that
shuffles then gives the same batches each time, whatever else draws numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from supple.functional import random

Stream = Callable[[int], Any] | Iterable[Any]
"""A function from a seed to tasks, or tasks that are the same for all seeds but for the order that their loaders draw.
"""

_STREAM, _TASK = random.purpose("stream"), random.purpose("stream", "task")


@dataclass(frozen=True)
class Task:
    """A task that is measured on other examples than those that are learned, or on a part of them.

    Args:
        batches: what is learned: pairs (inputs, targets), or a ``Dataset`` or ``DataLoader`` of such.
        test: what the metric is measured on when the task has been learned, given likewise, of a ``Dataset`` all
            examples in their order; None: on each batch before it is learned.
        later: what is learned after that and before the next task, given as ``batches`` are. Nothing is measured of it.
            The data change there, so methods that act at boundaries act before it too.
    """

    batches: Any
    test: Any = None
    later: Any = None


class SeedStream:
    """The tasks of a stream for one seed.

    A sequence of tasks, with ``[index]``, is asked for each task by its number. Any other iterable is read from its
    start, task after task and batch after batch, since what comes may follow from what came before. A ``Dataset`` or
    ``DataLoader`` in the place of a stream is one pass a task.

    Args:
        stream: the stream.
        seed: the seed.
        batch_size: examples a batch of a task that is a ``Dataset``, in a new random order each time; a last
            incomplete batch is left out.

    Raises:
        ValueError: if the stream is an iterator, which can be read only once, or some of its tasks have a test and
            others have none.
    """

    _latest: TaskBatches

    def __init__(self, stream: Stream, seed: int, batch_size: int = 32) -> None:
        self.seed, self.batch_size, self._stream = seed, batch_size, stream
        self._tested: bool | None = None
        self._restart()

    @property
    def length(self) -> int | None:
        """The number of tasks; None where only reading them tells."""
        return len(self._tasks) if self.indexed and hasattr(self._tasks, "__len__") else None

    @property
    def indexed(self) -> bool:
        """Whether tasks are asked for by their numbers."""
        return hasattr(self._tasks, "__getitem__")

    def task(self, index: int) -> TaskBatches:
        """The batches of a task, to be read once; ValueError where the stream has no such task."""
        try:
            if self.indexed:
                generator = Generator(self.seed, _TASK, index)
                with generator.used():
                    return self._batches(index, self._tasks[index], generator)
            if index < self._next:
                self._restart()
            while self._next <= index:
                deque(chain(self._latest, self._latest.later or ()), maxlen=0)
                generator = Generator(self.seed, _TASK, self._next)
                with generator.used():
                    self._latest = self._batches(self._next, next(self._iterator), generator)
                self._next += 1
            return self._latest
        except (IndexError, StopIteration):
            ended = index if self.indexed else self._next
            raise ValueError(
                f"the stream of seed {self.seed} ends after {ended} tasks; give more, or learn fewer"
            ) from None

    def _restart(self) -> None:
        generator = Generator(self.seed, _STREAM, 0)
        with generator.used():
            made = self._stream(self.seed) if callable(self._stream) else self._stream
        self._tasks: Any = _Passes(made) if isinstance(made, Dataset | DataLoader) else made
        if not callable(self._stream) and hasattr(self._stream, "__next__"):
            raise ValueError("the stream is an iterator, which can be read once; give a function of the seed")
        self._iterator: Iterator[Any] = iter(()) if self.indexed else iter(self._tasks)
        self._next, self._latest = 0, TaskBatches((), generator)

    def _batches(self, index: int, task: Any, generator: Generator) -> TaskBatches:
        task = task if isinstance(task, Task) else Task(task)
        tested, self._tested = self._tested, task.test is not None
        if tested not in (None, self._tested):
            has = "a test, but another has none" if self._tested else "no test, but another has one"
            raise ValueError(f"task {index} of seed {self.seed} has {has}; give one to each task, or to none")
        return TaskBatches(
            _in_batches(task.batches, self.batch_size),
            generator,
            test=None if task.test is None else _whole(task.test, self.batch_size),
            later=None if task.later is None else _in_batches(task.later, self.batch_size),
        )


class TaskBatches:
    """The batches of one task of one seed, which are read once.

    ``test`` are those that it is tested on, and ``later`` those that are learned after it; see :class:`Task`.
    ``length`` is their number, None where only reading them tells.
    """

    length: int | None

    def __init__(self, batches: Any, generator: Generator, test: Any = None, later: Any = None) -> None:
        self._generator = generator
        with generator.used():
            self._iterator = iter(batches)
        try:
            self.length = len(batches)
        except TypeError:
            self.length = None
        self.test = None if test is None else _Reading(test, generator)
        self.later = None if later is None else TaskBatches(later, generator)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return self

    def __next__(self) -> tuple[Any, Tensor]:
        with self._generator.used():
            batch = next(self._iterator)
        if not isinstance(batch, Sequence) or isinstance(batch, str) or len(batch) != 2:
            raise ValueError(f"a batch is {type(batch).__name__}; it has to be a pair (inputs, targets)")
        inputs, targets = batch
        if not isinstance(targets, Tensor):
            raise ValueError(f"the targets of a batch are {type(targets).__name__}; they have to be a tensor")
        if not targets.ndim:
            raise ValueError("the targets of a batch have no dimensions; they have to have one that counts examples")
        return inputs, targets


def check_tested(index: int, streams: Sequence[SeedStream], tasks: Sequence[TaskBatches]) -> None:
    """ValueError unless a task has a test with each seed or with none."""
    seeds: dict[bool, int] = {task.test is not None: stream.seed for stream, task in zip(streams, tasks, strict=True)}
    if len(seeds) > 1:
        raise ValueError(
            f"task {index} has a test with seed {seeds[True]} and none with seed {seeds[False]}; give one to each, or "
            "to none"
        )


class _Passes:
    """A stream whose every task is one pass over the same data."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getitem__(self, index: int) -> Any:
        return self._data


class _Reading:
    """Batches that are read when they are asked for, with the generator of their task."""

    def __init__(self, batches: Any, generator: Generator) -> None:
        self._batches, self._generator = batches, generator

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return TaskBatches(self._batches, self._generator)


class Generator:
    """torch's generator as a stream has it: in place while the stream makes something, and kept between."""

    def __init__(self, seed: int, purpose: int, index: int) -> None:
        self._state = torch.Generator().manual_seed(number(seed, purpose, index)).get_state()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Puts it in the place of torch's, which is as before afterwards."""
        before = torch.get_rng_state()
        torch.set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = torch.get_rng_state()
            torch.set_rng_state(before)


def number(seed: int, purpose: int, index: int) -> int:
    """A 63-bit number of a seed for a purpose, to seed a generator with."""
    high, low = random.words(torch.tensor([seed]), purpose, index, 2)[0].tolist()
    return (high << 32 | low) >> 1


def _in_batches(data: Any, size: int) -> Any:
    """What has batches as it is, and of a data set batches in a random order."""
    if isinstance(data, TensorDataset):
        return Shuffled(data.tensors, size)
    if isinstance(data, IterableDataset):
        return DataLoader(data, size, drop_last=True)
    return DataLoader(data, size, shuffle=True, drop_last=True) if isinstance(data, Dataset) else data


def _whole(data: Any, size: int) -> Any:
    """What has batches as it is, and of a data set all examples in batches, in their order."""
    if isinstance(data, TensorDataset):
        return list(zip(*(tensor.split(size) for tensor in data.tensors), strict=True))
    return DataLoader(data, size) if isinstance(data, Dataset) else data


class Made:
    """Batches that are made one by one, when they are asked for.

    Args:
        count: how many there are.
        make: makes the batch of a number.
    """

    def __init__(self, count: int, make: Callable[[int], tuple[Any, Tensor]]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return map(self._make, range(self._count))


class Shuffled:
    """Batches of tensors in a random order, another in each pass over them; a last incomplete batch is left out.

    Args:
        tensors: inputs and targets, each with the examples along its first dimension.
        batch_size: examples a batch.
        passes: how often all examples come.
        batches: how many batches there are in all, whatever ``passes`` says; None: those of the passes.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, passes: int = 1, batches: int | None = None) -> None:
        self._tensors, self._size = tensors, batch_size
        self._each = len(tensors[0]) // batch_size
        self._count = (self._each * passes if batches is None else batches) if self._each else 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for start in range(0, self._count, max(1, self._each)):
            order = torch.randperm(len(self._tensors[0]))
            for some in order.split(self._size)[: min(self._each, self._count - start)]:
                yield tuple(each[some] for each in self._tensors)
