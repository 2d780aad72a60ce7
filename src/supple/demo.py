"""The demo: loss of plasticity and its cures on permuted MNIST, all methods and seeds in one population.

Network and settings are those of the small network of Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights
vs units for maintaining plasticity in neural networks", arXiv 2508.00212.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from supple.bench.settings import BATCH, STEP_SIZES, method_settings
from supple.data import LabelledImages
from supple.methods import CBP, L2, SWR, Method, ReDo, ShrinkAndPerturb, chain
from supple.nn import StackedMLP
from supple.optim import SGDW
from supple.population import Population, TaskMetrics
from supple.report.comparison import Comparison
from supple.streams import PermutedStream

HIDDEN = 10
STEP_SIZE = STEP_SIZES["sgd"]
BATCH_SIZE = BATCH


@dataclass(frozen=True)
class Recipe:
    """A method with its settings.

    Args:
        kind: the class of the method.
        settings: by name, for the networks that use it.
        strength: the settings that switch the method off where they are 0.
    """

    kind: Callable[..., Method]
    settings: Mapping[str, float]
    strength: tuple[str, ...]

    def make(self, network: StackedMLP, optimizer: torch.optim.Optimizer, used: Tensor) -> Method:
        """The method for a stacked network, of which only some replicas use it.

        Args:
            network: the networks.
            optimizer: their optimizer.
            used: bool [R].

        Returns:
            The method, with a strength of 0 for the replicas that do not use it.
        """
        on = used.double()
        settings = {name: value * on if name in self.strength else value for name, value in self.settings.items()}
        return self.kind(network, optimizer, **settings)


RECIPES: dict[str, Recipe | None] = {
    "base": None,
    "l2": Recipe(L2, method_settings("l2", HIDDEN, "sgd"), ("l2",)),
    "shrink_and_perturb": Recipe(
        ShrinkAndPerturb, method_settings("shrink_and_perturb", HIDDEN, "sgd"), ("l2", "variance")
    ),
    "cbp": Recipe(CBP, method_settings("cbp", HIDDEN, "sgd"), ("replacement_rate",)),
    "redo": Recipe(ReDo, method_settings("redo", HIDDEN, "sgd"), ("threshold",)),
    "swr": Recipe(SWR, method_settings("swr", HIDDEN, "sgd"), ("factor",)),
}
"""The methods that are compared, by name; base is plain training."""


def assemble(
    images: LabelledImages,
    recipes: Mapping[str, Recipe | None],
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> Population:
    """One population of a network for each seed and method.

    Networks of one seed start alike and see the same batches. Replica s * C + c has seed s and method c.

    Args:
        images: what the tasks are made of.
        recipes: C methods by name; None: plain training.
        seeds: S seeds, all different.
        device: where to train.

    Returns:
        The population, S * C networks.

    Raises:
        ValueError: if there are no methods or no seeds, or fewer images than a batch has.
    """
    if not recipes:
        raise ValueError("there are no methods to compare; give at least one")
    stream = PermutedStream(images, seeds, BATCH_SIZE, device)
    replicas = [seed for seed in seeds for _ in recipes]
    network = StackedMLP(replicas, stream.features, HIDDEN, images.classes).to(device)
    optimizer = SGDW(network.parameters(), lr=STEP_SIZE)
    methods = []
    for c, recipe in enumerate(recipes.values()):
        if recipe is not None:
            used = torch.arange(network.replicas) % len(recipes) == c
            methods.append(recipe.make(network, optimizer, used))
    return Population(network, optimizer, stream, chain(*methods) if methods else None)


class Stopped(Exception):
    """The run was asked to stop."""


def train(
    population: Population,
    methods: Sequence[str],
    seeds: Sequence[int],
    tasks: int,
    *,
    on_step: Callable[[], object] = lambda: None,
    on_task: Callable[[Comparison], object] = lambda so_far: None,
) -> tuple[Comparison | None, bool]:
    """Trains a population of :func:`assemble` on the first tasks of its stream.

    Args:
        population: the networks.
        methods: names of the methods.
        seeds: the seeds.
        tasks: how many tasks.
        on_step: called after each step; what stops the run raises :class:`Stopped` here.
        on_task: called after each task with what was measured so far.

    Returns:
        (what was measured of the complete tasks, None if there are none; whether all tasks were learned).
    """
    measured: list[TaskMetrics] = []
    try:
        for task in range(tasks):
            measured.append(population.train_task(task, lambda steps: on_step()))
            on_task(_comparison(methods, seeds, measured))
    except Stopped:
        pass
    return (_comparison(methods, seeds, measured) if measured else None), len(measured) == tasks


def _comparison(methods: Sequence[str], seeds: Sequence[int], measured: Sequence[TaskMetrics]) -> Comparison:
    """The measurements of replicas, each [S * C], as arrays [tasks, S, C]."""

    def stacked(name: str) -> np.ndarray:
        values = torch.stack([getattr(metrics, name) for metrics in measured])
        return values.view(len(measured), len(seeds), len(methods)).cpu().numpy()

    shares = {name: stacked(name).astype(np.float64) for name in ("accuracy", "loss", "dead")}
    return Comparison(tuple(methods), tuple(seeds), **shares, reinitialized=stacked("reinitialized"))


@contextmanager
def stops_on_interrupt() -> Iterator[Callable[[], None]]:
    """Makes Ctrl-C a request to stop at the end of the current step; a second Ctrl-C interrupts at once.

    Yields:
        What is to be called after each step; raises :class:`Stopped` if a stop was asked for.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    def check() -> None:
        if asked.is_set():
            raise Stopped

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread on the CPU.

    The products of so small a network take microseconds, less than handing a part to another thread; where another
    program keeps a core busy, waiting for that part makes a step ten to twenty times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
