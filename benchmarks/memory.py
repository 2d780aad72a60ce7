"""Memory and time of one population, alone in its process."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import torch
from engine import BATCH, Engine, images

from supple.lab.streams import PermutedStream


def footprint(
    hidden: int,
    seeds: int,
    settings: int,
    method: str,
    device: str,
    count: int,
    tasks: int = 1,
    steps: int | None = None,
) -> dict[str, Any]:
    """Trains a population with SGD and sees how much memory it takes; the process must not have done much before.

    It takes so many ``steps`` (None: all) of each task of ``count`` images; then the method acts once.

    Returns:
        Replicas; bytes of the parameters, of images and labels ("data"), and of the peak above what the process had
        before it read the data ("extra", None where the system does not say); (extra - data) / parameters; and the
        seconds of each task.
    """

    def population(hidden: int, seeds: int, settings: int, device: str, count: int) -> Engine:
        stream = PermutedStream(images(count), range(seeds), BATCH, device)
        return Engine(hidden, settings, stream, ("sgd",), (method,))

    # Code of libraries is read when first used; a tiny population reads it.
    _train(population(10, 1, 1, "cpu", 10 * BATCH), 1, None)
    # The images come packed; unpacking them takes more memory than they do, which is not the population's.
    data = _bytes(images(count).images) + _bytes(images(count).labels)
    gc.collect()
    before = _reset_peak(device)
    engine = population(hidden, seeds, settings, device, count)
    taken = _train(engine, tasks, steps)
    extra = None if before is None else _peak(device) - before
    if extra is not None and device == "cpu":
        # There already before the population was.
        extra += data
    parameters = sum(_bytes(parameter) for parameter in engine.network.parameters())
    return {
        "replicas": engine.replicas,
        "parameters": parameters,
        "data": data,
        "extra": extra,
        "times_the_parameters": None if extra is None else (extra - data) / parameters,
        "seconds": taken,
    }


def _train(engine: Engine, tasks: int, steps: int | None) -> list[float]:
    """Seconds of each task; then the method acts once."""
    taken = []
    for _ in range(tasks):
        start = time.perf_counter()
        engine.start_task()
        for _ in range(engine.calls_left if steps is None else steps):
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
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _peak(device: str) -> int:
    return _status("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()


def _status(field: str) -> int:
    """Bytes of a field of the process's status, as Linux gives it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024
