"""What a run of the benchmark measures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from supple.lab.bench.flops import weights
from supple.lab.bench.settings import METHODS, STEP_SIZES
from supple.lab.population.parts import cached, cut
from supple.lab.population.products import PRECISIONS, Precision
from supple.methods.arguments import choice

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
        replicas: networks of a population, R; see :func:`part` for how many are trained together.
        settings: replicas a seed, C, which divides ``replicas``.
        images: images a task.
        jax: whether JAX is among the contenders; None: where it is installed.
        footprint: width at which memory is measured; None: it is not.
        scaling: numbers of replicas for which time and memory are measured; none by default.
        precision: of the engine's matrix products where rates are measured, "float32", "tf32" or "bfloat16".
        graphs: whether the engine's steps with SGD are replayed as CUDA graphs where rates are measured.

    Raises:
        ValueError: if something is out of range; the message names it.
    """

    widths: tuple[int, ...] = (10, 100, 1000)
    optimizers: tuple[str, ...] = ("sgd", "adamw")
    methods: tuple[str, ...] = ("base", "swr", "cbp", "redo")
    repeats: int = 3
    seconds: float = 1.0
    device: str = "cpu"
    replicas: int = 256
    settings: int = 32
    images: int = 60_000
    jax: bool | None = None
    footprint: int | None = 100
    scaling: tuple[int, ...] = ()
    precision: Precision = "float32"
    graphs: bool = False

    def __post_init__(self) -> None:
        for name in ("repeats", "seconds", "replicas", "settings"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be above 0")
        for width in self.widths:
            if width < 1:
                raise ValueError(f"width is {width}; it has to be 1 or more")
        if not self.widths:
            raise ValueError("there are no widths; give at least one, such as 100")
        for replicas in (self.replicas, *self.scaling):
            if replicas % self.settings:
                name = "replicas" if replicas == self.replicas else "in scaling, replicas"
                raise ValueError(f"{name} is {replicas}; it has to be a multiple of settings, which is {self.settings}")
        self._check("optimizers", self.optimizers, tuple(STEP_SIZES), "sgd")
        self._check("methods", self.methods, METHODS, "base")
        if self.device not in DEVICES:
            raise ValueError(f"device is {self.device!r}; it has to be one of {', '.join(DEVICES)}")
        if choice("precision", self.precision, PRECISIONS) == "tf32" and self.device != "cuda":
            raise ValueError("precision is 'tf32', which GPUs have; choose 'float32' or 'bfloat16', or device 'cuda'")
        if self.graphs and self.device != "cuda":
            raise ValueError("graphs is on, which are replayed on GPUs; leave it out, or choose device 'cuda'")

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


def part(plan: Plan, hidden: int) -> tuple[int, int]:
    """How the replicas that are trained together are made up.

    On a CPU a population is trained in parts whose weights stay in a core's share of the cache, one after another; the
    parts are alike, so one of them is measured.

    Args:
        plan: what to measure.
        hidden: units of each hidden layer.

    Returns:
        (seeds S, replicas a seed C).
    """
    seeds = plan.replicas // plan.settings
    if plan.device != "cpu":
        return seeds, plan.settings
    first = cut(seeds, plan.settings, cached(weights(hidden)))[0]
    length = first.stop - first.start
    return max(1, length // plan.settings), min(length, plan.settings)
