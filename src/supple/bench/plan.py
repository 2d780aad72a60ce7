"""What a run of the benchmark measures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import pairwise

from supple.bench.settings import METHODS, STEP_SIZES

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Plan:
    """What to measure, and for how long.

    Args:
        widths: units of each hidden layer.
        optimizers: of the engine; first "sgd", which the other contenders use.
        methods: of the engine; first "base", with which the others are compared.
        repeats: how often everything is measured, in turns.
        seconds: length of one measurement.
        device: "cpu" or "cuda".
        replicas: networks of a population, R; fewer where they do not fit into ``memory``.
        settings: replicas a seed, C, which divides ``replicas``.
        memory: GB that all populations of a width may take together.
        images: images a task.
        jax: whether JAX is among the contenders; None: where it is installed.
        footprint: width at which memory is measured; None: it is not.
        scaling: numbers of replicas for which time and memory are measured; none by default.

    Raises:
        ValueError: if something is out of range; the message names it.
    """

    widths: tuple[int, ...] = (10, 100, 1000)
    optimizers: tuple[str, ...] = ("sgd", "adamw")
    methods: tuple[str, ...] = ("base", "swr", "cbp", "redo")
    repeats: int = 3
    seconds: float = 1.0
    device: str = "cpu"
    replicas: int = 64
    settings: int = 8
    memory: float = 4.0
    images: int = 60_000
    jax: bool | None = None
    footprint: int | None = 100
    scaling: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("repeats", "seconds", "replicas", "settings", "memory"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be above 0")
        for width in self.widths:
            if width < 1:
                raise ValueError(f"width is {width}; it has to be 1 or more")
        if not self.widths:
            raise ValueError("there are no widths; give at least one, such as 100")
        for replicas in (self.replicas, *self.scaling):
            if replicas % self.settings:
                raise ValueError(
                    f"replicas is {replicas}; it has to be a multiple of settings, which is {self.settings}"
                )
        self._check("optimizers", self.optimizers, tuple(STEP_SIZES), "sgd")
        self._check("methods", self.methods, METHODS, "base")
        if self.device not in DEVICES:
            raise ValueError(f"device is {self.device!r}; it has to be one of {', '.join(DEVICES)}")

    def _check(self, name: str, given: tuple[str, ...], known: tuple[str, ...], needed: str) -> None:
        for one in given:
            if one not in known:
                raise ValueError(f"{name} has {one!r}; there are {', '.join(known)}")
        if not given or given[0] != needed:
            raise ValueError(f"{name} is {', '.join(given) or 'empty'}; {needed} has to be the first")

    @property
    def contenders(self) -> tuple[str, ...]:
        """The contenders beside the engine."""
        if self.device != "cpu":
            return ("plain",)
        jax = importlib.util.find_spec("jax") is not None if self.jax is None else self.jax
        return ("plain", "careful", "jax") if jax else ("plain", "careful")


def seeds_and_settings(plan: Plan, hidden: int, workers: int) -> tuple[int, int]:
    """How the replicas of a population are made up, where memory may not be enough for all.

    A population needs up to about 9 times the memory of its parameters: themselves, gradients, two averages of AdamW,
    and room to work while SWR acts.

    Args:
        plan: what to measure.
        hidden: units of each hidden layer.
        workers: populations at the same time.

    Returns:
        (seeds S, replicas a seed C); both as planned, else fewer replicas a seed, else fewer seeds of one.

    Raises:
        ValueError: if not even one replica fits.
    """
    sizes = [784, hidden, hidden, hidden, 10]
    parameters = sum((i + 1) * o for i, o in pairwise(sizes))
    fitting = int(plan.memory * 1e9 / workers / (9 * 4 * parameters))
    seeds = plan.replicas // plan.settings
    if fitting < 1:
        raise ValueError(
            f"memory is {plan.memory:g} GB, too little for one network of width {hidden} in each of {workers} "
            "processes; give more, or a smaller width"
        )
    if fitting < seeds:
        return fitting, 1
    return seeds, min(plan.settings, fitting // seeds)
