"""The population engine as a contender: many replicas at once, with any of the optimizers and methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from supple.lab.bench.settings import action_share, make_method, make_optimizer, method_settings
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.population.products import Precision
from supple.lab.streams import PermutedStream


class Engine:
    """Networks 784-h-h-h-10 that all optimizers and methods take turns to train, so that memory holds them once.

    Args:
        hidden: units of each hidden layer.
        settings: replicas a seed of the stream, C.
        stream: tasks of S seeds, on the device where to train.
        optimizers: some of :data:`supple.lab.bench.settings.STEP_SIZES`.
        methods: some of :data:`supple.lab.bench.settings.METHODS`. The first optimizer and method are in use at first.
        precision: of matrix products.
        graphs: whether steps with SGD are replayed as CUDA graphs.

    Attributes:
        replicas: R = S * C.
        steps_left: steps of the current task that are still to be taken.
        action_share: share of the steps at which the method in use acts.
        loss: [R], sum over the steps of the current task.
        hits: int64 [R], examples of the current task classified rightly before they were learned from.
    """

    def __init__(
        self,
        hidden: int,
        settings: int,
        stream: PermutedStream,
        optimizers: Sequence[str],
        methods: Sequence[str],
        precision: Precision = "float32",
        graphs: bool = False,
    ) -> None:
        self.hidden, self.stream = hidden, stream
        seeds = [seed for seed in stream.seeds.tolist() for _ in range(settings)]
        network = StackedMLP(seeds, stream.features, hidden, stream.classes)
        self.network = network.to(stream.seeds.device)
        self.replicas = network.replicas
        self._populations: dict[tuple[str, str], Population] = {}
        for name in optimizers:
            optimizer = make_optimizer(name, self.network)
            for method in methods:
                acting = make_method(method, self.network, optimizer, method_settings(method, hidden, name))
                self._populations[name, method] = Population(
                    self.network, optimizer, stream, acting, precision=precision, graphs=graphs
                )
        self.tasks = 0
        self.steps_left = 0
        self.use(optimizers[0], methods[0])

    def use(self, optimizer: str, method: str) -> None:
        """Trains with this optimizer and method, of those it was made with, from now on."""
        self.action_share = action_share(method, method_settings(method, self.hidden, optimizer), self.hidden)
        self.population = self._populations[optimizer, method]

    def start_task(self) -> None:
        """Goes on to the next task; what a study measures there (dead units, ranks) is no part of the comparison."""
        self._task = self.stream.task(self.tasks)
        self.tasks += 1
        self.steps_left = self._task.steps
        self.loss = torch.zeros(self.replicas, dtype=torch.float64, device=self.network.seeds.device)
        self.hits = torch.zeros(self.replicas, dtype=torch.int64, device=self.network.seeds.device)

    def acts_next(self) -> bool:
        """Whether the method may reinitialize something at the next step."""
        method = self.population.method
        return method is not None and bool(method.due_next().any())

    def skip_to_action(self) -> None:
        """Lets the method count steps that are not taken until the next is one at which it acts."""
        method = self.population.method
        assert method is not None
        while not self.acts_next():
            method.step()

    def step(self) -> int:
        """Takes one step of every replica. Returns: 1."""
        loss, hits = self.population.step(*self._task.batch(self._task.steps - self.steps_left))
        self.loss += loss
        self.hits += hits
        self.steps_left -= 1
        return 1
