"""What a run of the benchmark found."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from supple.lab.bench.plan import Plan


@dataclass(frozen=True)
class Spread:
    """A median and its range over repeats.

    Args:
        median: the median.
        low: the smallest value.
        high: the largest value.
        values: one a repeat.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of values, one a repeat.

        Raises:
            ValueError: if there are none.
        """
        if not values:
            raise ValueError("there are no values; a spread needs at least one")
        return cls(statistics.median(values), min(values), max(values), tuple(values))

    @classmethod
    def ratio(cls, above: Sequence[float], below: Sequence[float]) -> Spread:
        """The spread of the ratios within each repeat."""
        return cls.of([a / b for a, b in zip(above, below, strict=True)])


@dataclass(frozen=True)
class EngineResult:
    """The engine with one optimizer and method.

    Args:
        hidden: units of each hidden layer.
        optimizer: its name.
        method: its name.
        settings: the method's settings.
        workers: populations at the same time.
        replicas: networks of each population.
        steps_per_second: replica steps a second of all populations together.
        gflops: the same in 1e9 operations a second; see :func:`supple.lab.bench.flops.step_flops`.
        of_peak: share of the machine's peak.
        overhead: share by which a step takes longer than one of base with the same optimizer; 0 for base.
        action_share: share of the steps at which the method acts.
        quiet_seconds: time of a step of a population at which the method does not act.
        acting_seconds: time of one at which it does; 0 where there is none.
        start_seconds: time of the start of a task.
    """

    hidden: int
    optimizer: str
    method: str
    settings: Mapping[str, float]
    workers: int
    replicas: int
    steps_per_second: Spread
    gflops: Spread
    of_peak: Spread
    overhead: Spread
    action_share: float
    quiet_seconds: Spread
    acting_seconds: Spread
    start_seconds: Spread


@dataclass(frozen=True)
class ContenderResult:
    """A contender that trains one network a process, plainly and with SGD.

    Args:
        hidden: units of each hidden layer.
        name: "plain", "careful" or "jax".
        workers: processes at the same time.
        steps_per_second: steps a second of all processes together.
        gflops: the same in 1e9 operations a second.
        of_peak: share of the machine's peak.
        engine_over: the engine's rate, with SGD and no method, over this one.
    """

    hidden: int
    name: str
    workers: int
    steps_per_second: Spread
    gflops: Spread
    of_peak: Spread
    engine_over: Spread


@dataclass(frozen=True)
class FootprintResult:
    """Memory and time of a population alone in its process; see :class:`supple.lab.bench.memory.Footprint`.

    Args:
        hidden: units of each hidden layer.
        optimizer: its name.
        method: its name.
        replicas: networks.
        parameters: bytes of the parameters.
        data: bytes of images and labels.
        extra: bytes of the peak, with the data; None where the system does not say.
        times_the_parameters: (extra - data) / parameters.
        seconds: [tasks], how long each task took.
    """

    hidden: int
    optimizer: str
    method: str
    replicas: int
    parameters: int
    data: int
    extra: int | None
    times_the_parameters: float | None
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Results:
    """Everything that a run found.

    Args:
        plan: what was to be measured.
        machine: what it was measured on.
        peak: 1e9 operations a second of large matrix products in float32.
        engine: the engine's results.
        contenders: those of the others.
        footprints: memory.
        scaling: memory and time for several numbers of replicas.
        notes: what a reader has to know.
    """

    plan: Plan
    machine: dict[str, Any]
    peak: Spread
    engine: list[EngineResult]
    contenders: list[ContenderResult]
    footprints: list[FootprintResult] = field(default_factory=list)
    scaling: list[FootprintResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All of it as JSON; ``format`` is the number of its form."""
        return json.dumps({"format": 1, **asdict(self)}, indent=2)


def machine(device: str, cores: int) -> dict[str, Any]:
    """What a run is measured on.

    Args:
        device: "cpu" or "cuda".
        cores: cores used.

    Returns:
        Names and versions.
    """
    import supple

    found = {
        "cpu": _cpu_model(),
        "cores": cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "supple": supple.__version__,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    return found | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
