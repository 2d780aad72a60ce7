"""What can go wrong with a problem of one's own, found out before anything is trained and named with its place."""

from __future__ import annotations

import inspect
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from supple.functional.generators import generators_kept
from supple.lab.limits import out_of_memory
from supple.lab.nn.stack import applied
from supple.lab.population.problem import ACCURACY, Metric, said
from supple.lab.streams.tasks import SeedStream, TaskBatches
from supple.lab.study.errors import StudyError

_LONG = 10.0
"""Seconds of counting batches after which a warning tells of it."""

Looked = Mapping[int, Mapping[str, Sequence[tuple[Any, Tensor]]]]
"""The first batches of some tasks by number: "batch" of what is learned, and where there are such, "test batch" of the
test and "later batch" of what is learned after it."""


def check_stream(seed: int, first: Looked, second: Looked) -> None:
    """Compares the first batches of some tasks with those that the stream gave when it was asked again."""
    for task, found in first.items():
        for part, once in found.items():
            again = second.get(task, {}).get(part, ())
            for step, pair in enumerate(zip(once, again, strict=False)):
                leaves = [tree_leaves(batch) for batch in pair]
                if not (len(leaves[0]) == len(leaves[1]) and all(map(_equal, *leaves))):
                    raise StudyError(
                        f"task {task}, {part} {step} of seed {seed} is another when the stream is asked for it again, "
                        "after other tasks and seeds; everything random in it has to come from its seed and, in a "
                        "sequence, its task (torch's own generator does; instead of Python's and numpy's: "
                        "numpy.random.default_rng([seed, task]))"
                    )
            if len(once) != len(again):
                raise StudyError(f"task {task} of seed {seed} has other batches when the stream is asked for it again")


def check_lengths(streams: Sequence[SeedStream], expected: Sequence[int]) -> None:
    """Compares the lengths of tasks with those of the first seed: all of the second, and of others the first task.

    Those of a stream that is no sequence are seen when they are trained.
    """
    first = streams[0].seed
    for stream in streams[1:]:
        for task in range(len(expected) if stream.indexed and stream is streams[1] else 1):
            found = length(stream, task)
            if found != expected[task]:
                raise StudyError(
                    f"task {task} has {expected[task]} batches with seed {first} and {found} with seed {stream.seed}; "
                    "networks of several seeds are trained together, so all seeds need as many"
                )


def check_same_network(seed: int, network: nn.Module, other: nn.Module) -> None:
    """Compares the values of a network with those of the one that the same seed made again."""
    first, again = network.state_dict(), other.state_dict()
    for name, value in first.items():
        here, there = (tuple(one.shape) if isinstance(one, Tensor) else None for one in (value, again.get(name)))
        if name not in again or here != there:
            raise StudyError(f"network: {name} of seed {seed} has shape {here}, and {there} when it is made again")
        if not _equal(value, again[name]):
            raise StudyError(f"network: {name} of seed {seed} has other values when it is made again")


@contextmanager
def apart(network: nn.Module, other: nn.Module) -> Iterator[None]:
    """Refuses two networks that share what is trained, or what is written to while another one computes meanwhile."""
    kept = {id(tensor) for tensor in chain(network.parameters(), network.buffers())}
    named = chain(other.named_parameters(), other.named_buffers())
    shared = [(name, tensor, tensor._version) for name, tensor in named if id(tensor) in kept]
    yield
    for name, tensor, version in shared:
        if tensor.requires_grad or tensor._version != version:
            raise StudyError(
                f"network: {name} is the same tensor each time, so that a run would go on with what others learned; "
                "make a new one for each network"
            )


def check_loss(place: str, network: nn.Module, loss: Callable[..., Any], inputs: Any, targets: Tensor) -> Any:
    """Computes the loss of a batch, and gives the output of the network."""
    try:
        output = applied(network, inputs)
    except Exception as error:
        shapes = ", ".join(map(shown, tree_leaves(inputs)))
        raise StudyError(f"{place}: the network does not take inputs {shapes}: {error}") from error
    what = f"of outputs {', '.join(map(shown, tree_leaves(output)))} and targets {shown(targets)}"
    try:
        found = loss(output, targets)
    except Exception as error:
        raise StudyError(f"{place}: the loss {what} cannot be computed: {error}") from error
    if not isinstance(found, Tensor) or found.shape != ():
        raise StudyError(f"{place}: the loss {what} is {shown(found)}; it has to be a tensor without dimensions")
    if torch.is_grad_enabled() and not found.requires_grad:
        raise StudyError(f"{place}: the loss {what} does not depend on the network's parameters")
    return output


def check_metric(place: str, metric: Metric, output: Any, targets: Tensor) -> None:
    """Computes the metric of a batch."""
    if metric.function is None:
        return
    try:
        value = metric.function(*[output] * (1 + metric.after), targets)
    except Exception as error:
        usual = "; only targets below 0 are left out, so give a metric of your own" if metric is ACCURACY else ""
        raise StudyError(f"{place}: the metric {metric.name} cannot be computed{usual}: {error}") from error
    if not isinstance(value, Tensor) or value.shape != ():
        raise StudyError(
            f"{place}: the metric {metric.name} is {shown(value)}; it has to be a tensor without dimensions"
        )


def check_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
    """Refuses what is no optimizer, one of other parameters, one that a plain step does not move, and schedules, of
    which a checkpoint does not know.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise StudyError(
            f"optimizer: it is {type(optimizer).__name__}; it has to be a torch.optim.Optimizer, without a schedule"
        )
    own = {id(parameter) for parameter in network.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in own:
                raise StudyError(
                    f"optimizer: it holds a parameter of shape {tuple(parameter.shape)} that is not the network's; "
                    "make it one of the network"
                )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise StudyError(
            f"optimizer: {type(optimizer).__name__} computes the loss several times a step, with a closure, which is "
            "not supported; use one whose step() takes nothing"
        )
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise StudyError("optimizer: it has a schedule of the step size; schedules are not supported")


def attributes(network: nn.Module) -> dict[tuple[str, str], Any]:
    """The numbers and words that modules keep in ordinary attributes, which a checkpoint leaves out."""
    return {
        (path, name): value
        for path, module in network.named_modules()
        if type(module).get_extra_state is nn.Module.get_extra_state
        for name, value in vars(module).items()
        if isinstance(value, bool | int | float | str) and name != "training"
    }


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Makes a StudyError with its place of what goes wrong in a program of somebody's own."""
    try:
        yield
    except StudyError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise StudyError(f"{place}: {said(error)}") from error


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seeds the generators of torch, numpy and Python for a time, and leaves them as they were."""
    with torch.random.fork_rng(), generators_kept():
        seed_all(seed)
        yield


def seed_all(seed: int) -> None:
    """Seeds the generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def length(stream: SeedStream, index: int) -> int:
    """The number of batches of a task and after it, which are counted where they do not say."""
    task = stream.task(index)
    place = f"task {index} of seed {stream.seed}"
    return _length(place, task) + (0 if task.later is None else _length(f"what comes after {place}", task.later))


def _length(place: str, batches: TaskBatches) -> int:
    """The number of batches; a warning says if it takes long to count them."""
    if batches.length is not None:
        return batches.length
    began: float | None = time.monotonic()
    count = 0
    for count, _ in enumerate(batches, start=1):
        if began is not None and time.monotonic() - began > _LONG:
            began = None
            warnings.warn(
                f"{place} does not say how many batches it has (len), and has more than {count:,}; they are counted to "
                "the end",
                UserWarning,
                stacklevel=2,
            )
    return count


def full_name(thing: Any) -> str:
    """The module and the name of a function or class, or of the class of something else."""
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def shown(value: Any) -> str:
    """A tensor in words, such as "int64 [30] from 0 to 9"."""
    if not isinstance(value, Tensor):
        return f"{value!r:.80}"
    kind = str(value.dtype).removeprefix("torch.")
    whole = not value.is_floating_point() and not value.is_complex() and value.numel() and value.dtype != torch.bool
    ends = f" from {value.min()} to {value.max()}" if whole else ""
    return f"{kind} {list(value.shape)}{ends}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        first, second = one.to_dense(), other.to_dense()
        return first.shape == second.shape and bool(torch.equal(first.nan_to_num(), second.nan_to_num()))
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)
