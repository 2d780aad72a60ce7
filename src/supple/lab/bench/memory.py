"""Memory and time of one population, alone in its process."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from supple.lab.bench.engine import Engine
from supple.lab.bench.settings import BATCH, images
from supple.lab.streams import PermutedStream

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Footprint:
    """Memory that a population takes, and time of its tasks.

    Args:
        replicas: networks.
        parameters: bytes of the parameters.
        data: bytes of images and labels.
        extra: bytes of the peak above what the process had before it read the data; None where the system does not say.
        seconds: [tasks], how long each task took.
    """

    replicas: int
    parameters: int
    data: int
    extra: int | None
    seconds: list[float]

    @property
    def times_the_parameters(self) -> float | None:
        """(extra - data) / parameters."""
        return None if self.extra is None else (self.extra - self.data) / self.parameters


def footprint(
    hidden: int,
    seeds: int,
    settings: int,
    optimizer: str,
    method: str,
    device: str,
    count: int,
    tasks: int = 1,
    steps: int | None = None,
) -> Footprint:
    """Trains a population and sees how much memory it takes; the process must not have done much before.

    Args:
        hidden: units of each hidden layer.
        seeds: seeds.
        settings: replicas a seed.
        optimizer: one of :data:`supple.lab.bench.settings.STEP_SIZES`.
        method: one of :data:`supple.lab.bench.settings.METHODS`; it also acts once.
        device: where to train.
        count: images a task.
        tasks: tasks to learn.
        steps: steps of each task to take; None: all.

    Returns:
        What was found.
    """
    # Code of libraries is read when first used; a tiny population reads it.
    _train(_engine(10, 1, 1, optimizer, method, "cpu", 10 * BATCH), 1, None)
    # The images come packed; unpacking them takes more memory than they do, which is not the population's.
    size = _bytes(images(count).images) + _bytes(images(count).labels)
    gc.collect()
    before = _reset_peak(device)
    engine = _engine(hidden, seeds, settings, optimizer, method, device, count)
    taken = _train(engine, tasks, steps)
    extra = None if before is None else _peak(device) - before
    if extra is not None and device == "cpu":
        # There already before the population was.
        extra += size
    parameters = sum(_bytes(parameter) for parameter in engine.network.parameters())
    return Footprint(engine.replicas, parameters, size, extra, taken)


def _engine(hidden: int, seeds: int, settings: int, optimizer: str, method: str, device: str, count: int) -> Engine:
    stream = PermutedStream(images(count), range(seeds), BATCH, device)
    return Engine(hidden, settings, stream, (optimizer,), (method,))


def _train(engine: Engine, tasks: int, steps: int | None) -> list[float]:
    """Seconds of each task; then the method acts once."""
    taken = []
    for _ in range(tasks):
        start = time.perf_counter()
        engine.start_task()
        for _ in range(engine.steps_left if steps is None else steps):
            engine.step()
        engine.hits.sum().item()
        taken.append(time.perf_counter() - start)
    if engine.action_share:
        engine.start_task()
        engine.skip_to_action()
        engine.step()
    return taken


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _reset_peak(device: str) -> int | None:
    """Forgets earlier peaks; bytes in use now, None where the system does not say."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        _RESET.write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _peak(device: str) -> int:
    return _status("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()


def _status(field: str) -> int:
    """Bytes of a field of the process's status, as Linux gives it."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def linear(sizes: Sequence[float], values: Sequence[float]) -> float:
    """How well values are proportional to sizes: the largest of value / size over the smallest.

    Args:
        sizes: positive numbers.
        values: as many positive numbers.

    Returns:
        1 where they are proportional, more otherwise.
    """
    each = [value / size for size, value in zip(sizes, values, strict=True)]
    return max(each) / min(each)
