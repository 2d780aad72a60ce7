"""Populations as contenders, at the settings of the study; and what a worker process of the benchmark does.

Settings are those of permuted MNIST in Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for
maintaining plasticity in neural networks", arXiv 2508.00212: of the small network for widths below 50, of the large one
below 500, and of the extra large one above. The study sweeps the methods of the extra large network and names no best
point, so a point of the middle of each sweep stands for it. AdamW is in the study for the large network only; elsewhere
the methods have the same settings as with SGD. A method that the study does not have runs at its defaults.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from loops import STEP_SIZE, CarefulLoop, Contender, JaxLoop, PlainLoop
from timing import timer

from supple.lab.data import LabelledImages, mnist10k
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.population.graphs import WARM_UP
from supple.lab.streams import PermutedStream
from supple.lab.study.shipped import find
from supple.lab.study.spec import read
from supple.methods.registry import METHODS, defaults
from supple.optim import SGDW, AdamW

BATCH = 30
OPTIMIZERS: dict[str, Any] = {"sgd": (SGDW, STEP_SIZE), "adamw": (AdamW, 5e-4)}
"""Class and step size."""
EXTRA_LARGE: dict[str, dict[str, float]] = {
    "l2": {"l2": 1e-4},
    "shrink_and_perturb": {"l2": 1e-4, "variance": 1e-7},
    "swr": {"frequency": 16384, "factor": 1e-7},
    "cbp": {"maturity": 1000, "replacement_rate": 1e-4},
    "redo": {"frequency": 8192, "threshold": 1e-3},
}


@cache
def method_settings(method: str, hidden: int, optimizer: str) -> Mapping[str, Any]:
    """Settings of a method for networks of some width."""
    if hidden >= 500:
        return EXTRA_LARGE.get(method, {})
    size = "small" if hidden < 50 else "large_adam" if optimizer == "adamw" else "large"
    return read(find(f"permuted_mnist/{size}")[0]).methods.get(method, {})


def action_share(method: str, hidden: int, optimizer: str) -> float:
    """Share of the steps at which a method does more than count, in the long run.

    SWR, ReDo and others act every ``frequency`` or ``interval`` steps. CBP replaces
    k = rate * (eligible units) units of a layer a step; in
    the long run k * maturity units are not yet eligible, so k = rate * (hidden - k * maturity), that is
    k = rate * hidden / (1 + rate * maturity); and it acts at every step or, where k is below 1, every 1 / k steps.
    What does the same at every step (base, L2, shrink and perturb) has a share of 0, and so has what acts at the start
    of a task, which is timed apart.
    """
    if method == "base" or not METHODS[method].replaces:
        return 0.0
    settings = {**defaults(METHODS[method]), **method_settings(method, hidden, optimizer)}
    for name in ("frequency", "interval"):
        if name in settings:
            return 1 / settings[name]
    if "replacement_rate" in settings:
        rate = settings["replacement_rate"]
        return min(1.0, rate * hidden / (1 + rate * settings["maturity"]))
    return 0.0


@cache
def images(count: int = 60_000) -> LabelledImages:
    """As many images as the study's tasks have, which are the 10,000 that are part of supple, again and again.

    What a step costs does not depend on what is on an image, and so the benchmark downloads nothing.
    """
    some = mnist10k()
    chosen = torch.arange(count) % len(some)
    return LabelledImages(some.images[chosen], some.labels[chosen], some.classes, some.name)


class Engine(Contender):
    """Networks 784-h-h-h-10 that all optimizers and methods take turns to train, so that memory holds them once.

    Args:
        hidden: units of each hidden layer.
        settings: replicas a seed of the stream, C.
        stream: tasks of S seeds, on the device where to train.
        optimizers: names of :data:`OPTIMIZERS`.
        methods: "base", and names of methods. The first optimizer and method are in use at first.
        steps: how steps are taken, (precision of matrix products, whether steps are replayed as CUDA graphs), the
            first at first.
    """

    def __init__(
        self,
        hidden: int,
        settings: int,
        stream: PermutedStream,
        optimizers: Sequence[str],
        methods: Sequence[str],
        steps: Sequence[tuple[Any, bool]] = (("float32", False),),
    ) -> None:
        super().__init__(stream)
        seeds = [seed for seed in stream.seeds.tolist() for _ in range(settings)]
        self.hidden, self.device = hidden, stream.seeds.device
        self.network = StackedMLP(seeds, stream.features, hidden, stream.classes).to(self.device)
        self.replicas = len(seeds)
        self._populations = {}
        for name, method, how in itertools.product(optimizers, methods, steps):
            kind, step_size = OPTIMIZERS[name]
            # A step size a replica, as in a comparison of settings.
            step_sizes = torch.full((self.replicas,), step_size, device=self.device)
            optimizer = kind(self.network.parameters(), lr=step_sizes)
            own: Any = method_settings(method, hidden, name)
            acting = None if method == "base" else METHODS[method](self.network, optimizer, **own)
            precision, graphs = how
            self._populations[(name, method, *how)] = Population(
                self.network, optimizer, stream, acting, precision=precision, graphs=graphs
            )
        self.use(optimizers[0], methods[0], *steps[0])

    def use(self, optimizer: str, method: str, precision: str = "float32", graphs: bool = False) -> None:
        """Trains so from now on, of what it was made with."""
        self.action_share = action_share(method, self.hidden, optimizer)
        self.population = self._populations[optimizer, method, precision, graphs]

    def begin(self) -> None:
        """Starts the task; what a study measures there (dead units, ranks) is no part of the comparison."""
        self.loss = torch.zeros(self.replicas, dtype=torch.float64, device=self.device)
        self.hits = torch.zeros(self.replicas, dtype=torch.int64, device=self.device)
        method = self.population.method
        if method is not None and not method.loops_only:  # DASH wants the data so far
            self.population.enter(self.tasks - 1)

    def train(self) -> None:
        """Takes one step of every replica."""
        loss, hits = self.population.step(*self.task.batch(self.task.steps - self.calls_left))
        self.loss += loss
        self.hits += hits

    def acts_next(self) -> bool:
        """Whether the method may reinitialize something at the next step."""
        method = self.population.method
        return method is not None and bool(method.due_next().any())

    def skip_to_action(self) -> None:
        """Lets the method count steps that are not taken until the next is one at which it acts."""
        if not self.calls_left:
            self.start_task()
        while not self.acts_next():
            assert self.population.method is not None
            self.population.method.step()


def measure(contender: Contender, seconds: float) -> dict[str, float]:
    """Trains for a time and says how long things take.

    What happens seldom (SWR acts every 2,048 steps, a task starts every 2,000) falls into a window of a second or
    misses it. So actions and starts of tasks are also timed apart, and count as often as they come in a long run.

    Returns:
        Seconds of a step in a long run, of one at which no method acts, of one at which one does (0 where there is
        none), and of the start of a task.
    """
    names = {"contender": contender}
    start = timer("contender.start_task()", **names).timeit(1).mean
    window = timer("contender.step()", "contender.count()", **names)
    calls = max(1, round(seconds / window.timeit(3).mean))
    mean = window.timeit(calls).mean
    acted, started = contender.acted / calls, contender.started / calls
    share, acting = contender.action_share, 0.0
    quiet = mean - started * start
    if share:
        acting = timer("contender.step()", "contender.skip_to_action()", **names).timeit(1).mean
        quiet = (quiet - acted * acting) / (1 - acted) if acted < 1 else acting
    step = (1 - share) * quiet + share * acting + start / contender.calls_a_task
    return {"step": step / contender.steps_a_call, "quiet": quiet, "acting": acting, "start": start}


# What workers do.

_held: dict[str, Contender] = {}


def make(
    names: Sequence[str],
    hidden: int,
    seeds: range,
    settings: int,
    count: int,
    device: str,
    optimizers: Sequence[str],
    methods: Sequence[str],
    steps: Sequence[tuple[str, bool]],
) -> None:
    """Makes contenders: "engine", and of "plain", "careful" and "jax" those in ``names``, which take the first seed."""
    # What was measured before goes first, so that both are never in memory together.
    _held.clear()
    gc.collect()
    stream = PermutedStream(images(count), seeds, BATCH, device)
    _held["engine"] = engine = Engine(hidden, settings, stream, optimizers, methods, steps)
    for optimizer, method, (precision, graphs) in itertools.product(optimizers, methods, steps):
        engine.use(optimizer, method, precision, graphs)
        # The last of these steps is a replay.
        for _ in range(WARM_UP + 2 if graphs else 0):
            engine.step()
    stream = PermutedStream(images(count), seeds[:1], BATCH)
    kinds: dict[str, Any] = {"plain": PlainLoop, "careful": CarefulLoop, "jax": JaxLoop}
    _held.update({name: kinds[name](hidden, stream, device) for name in names})


def measure_held(name: str, seconds: float, *configuration: Any) -> dict[str, float]:
    """Measures a contender that was made; the engine as it is to be used."""
    contender = _held[name]
    if isinstance(contender, Engine):
        contender.use(*configuration)
    return measure(contender, seconds)
