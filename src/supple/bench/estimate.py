"""What training a population will take on this machine: networks, steps, memory and time, before it is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from supple.bench.crew import cores
from supple.bench.engine import Engine
from supple.bench.flops import step_flops, weights
from supple.bench.settings import BATCH, images
from supple.bench.timing import Clock, measure, synchronizer, warm_up
from supple.population.parts import cached, cut
from supple.streams import PermutedStream

_COPIES = {"sgd": 3, "adamw": 7}
"""Memory of a population, in multiples of its weights: with gradients, averages, and room to work; measured."""
_PIXELS = 784


@dataclass(frozen=True)
class Estimate:
    """What training the networks of one method will take.

    Args:
        method: its name.
        networks: how many are trained.
        parts: in how many parts, one after another.
        part: networks of the largest part.
        steps: optimizer steps of each network.
        flops: floating-point operations of all steps of all networks.
        memory: bytes that a part takes at its peak, with the images.
        rate: network steps a second of one process (on a CPU, one core), with what is measured of the networks at the
            start of each task.
        seconds: time in one process.
    """

    method: str
    networks: int
    parts: int
    part: int
    steps: int
    flops: int
    memory: int
    rate: float
    seconds: float


def free_memory(device: str) -> int:
    """Memory that one process may take when there is one on each core, or one on the GPU.

    Args:
        device: "cpu" or "cuda".

    Returns:
        Bytes: three quarters of what is available now, over the number of processes.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0] * 3 // 4)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Elsewhere than on Linux only the whole memory is told; half of it is taken for available.
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return available * 3 // 4 // len(cores())


def estimate(
    hidden: int,
    methods: Sequence[str],
    optimizer: str,
    seeds: int,
    settings: int,
    tasks: int,
    count: int,
    device: str = "cpu",
    memory: int | None = None,
    seconds: float = 1.0,
) -> list[Estimate]:
    """Measures for a short time and says what the whole will take.

    Args:
        hidden: units of each hidden layer.
        methods: some of :data:`supple.bench.settings.METHODS`, at the settings of the study.
        optimizer: one of :data:`supple.bench.settings.STEP_SIZES`.
        seeds: seeds of each method.
        settings: networks a seed, each with settings of its own.
        tasks: tasks of each network.
        count: images a task.
        device: "cpu" or "cuda".
        memory: bytes that may be taken; None: those of :func:`free_memory`.
        seconds: how long to measure each method.

    Returns:
        An estimate a method.

    Raises:
        ValueError: if not even one network fits into the memory.
    """
    data = count * (_PIXELS + 8)
    allowed = (free_memory(device) if memory is None else memory) - data
    each = weights(hidden) * _COPIES[optimizer]
    fitting = allowed // each
    if fitting < 1:
        raise ValueError(
            f"one network of width {hidden} takes {each / 1e6:.1f} MB and the images {data / 1e6:.1f} MB, more than "
            f"the {(allowed + data) / 1e6:.1f} MB allowed; give more memory, or a smaller width"
        )
    if device == "cpu":
        fitting = min(fitting, cached(weights(hidden)))
    parts = cut(seeds, settings, fitting)
    part = max(one.stop - one.start for one in parts)
    stream = PermutedStream(images(count), list(range(max(1, part // settings))), BATCH, device)
    engine = Engine(hidden, min(part, settings), stream, [optimizer], methods)
    steps, task = tasks * stream.steps, stream.task(0)
    found = []
    for method in methods:
        engine.use(optimizer, method)
        warm_up(engine)
        sample = measure(engine, seconds, synchronizer(device))
        at_start = Clock()
        at_start.add(lambda: len(engine.population.measure(task)) and 1, synchronizer(device))
        rate = engine.replicas / (sample.step(engine.action_share, stream.steps) + at_start.mean / stream.steps)
        networks = seeds * settings
        found.append(
            Estimate(
                method=method,
                networks=networks,
                parts=len(parts),
                part=part,
                steps=steps,
                flops=networks * steps * step_flops(hidden),
                memory=part * each + data,
                rate=rate,
                seconds=networks * steps / rate,
            )
        )
    return found
