"""Permuted images as a problem of studies: a population of perceptrons is trained together, and a stage is a task."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from supple.lab.limits import ROW_IN_MEMORY
from supple.lab.nn import Architecture
from supple.lab.population import Population
from supple.lab.population.graphs import WARM_UP
from supple.lab.study.assembly import assemble
from supple.lab.study.errors import StudyError
from supple.lab.study.population_trainer import PopulationTrainer
from supple.lab.study.problem import StudyProblem, timed
from supple.lab.study.results import SCHEMAS
from supple.lab.study.run_config import cached
from supple.lab.study.schema import Network
from supple.lab.study.spec import Column, PermutedStudy

_COPIES = {"sgd": 3, "adamw": 7}
"""Memory of a population, in multiples of its weights: with gradients, averages, and room to work; measured."""

_LAYER = 40_000
"""Bytes of the objects of a layer, however many networks it is of; measured."""

_MEASURING = 16
"""Bytes that measuring at the start of a task takes for each example and hidden unit; measured."""


class PermutedProblem(StudyProblem):
    """Tasks that are images with their pixels in another order each."""

    sets = ("train",)
    schemas = SCHEMAS["permuted"]
    study: PermutedStudy

    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """Optimizer steps of each task, which are the same for all seeds."""
        images, size = self.images[0], self.study.problem.batch_size
        if len(images) < size:
            raise StudyError(f"batch_size is {size}, but {images.name} has {len(images)} images; give a smaller one")
        return [len(images) // size] * tasks

    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Bytes of weights, gradients and averages, of the examples, and of what the networks make of them."""
        network, images = _network(column), self.images[0]
        examples = min(self.study.measure.examples, len(images))
        optimizer: Any = column.optimizer
        run = self._weights(column) * _COPIES[optimizer.name]
        made = _MEASURING * examples * network.hidden * network.depth
        rows = ROW_IN_MEMORY * self.study.run.tasks
        each = columns * (run + made + rows) + 2 * 4 * examples * images.images[0].numel()
        return seeds * each + _LAYER * network.depth

    def most(self, column: Column) -> int | None:
        """As many as train fastest together on a core; on a GPU as many as there are."""
        return cached(self._weights(column)) if self.device == "cpu" else None

    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of a training step."""
        return self.study.problem.batch_size * self._architecture(column).multiply_adds

    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int]) -> PopulationTrainer:
        """What trains a part."""
        return PopulationTrainer(self._population(columns, seeds), len(columns), runs)

    def rate(self, columns: Sequence[Column], seeds: Sequence[int], seconds: float) -> float:
        """Network steps a second, with what is measured at the start of a task.

        What comes more seldom than the measurement is long, such as SWR's action every 2,048 steps, is left out.
        """
        population = self._population(columns, seeds)
        task = population.stream.task(0)
        for index in range(min(WARM_UP if self.graphs else 3, len(task))):
            population.step(*task.batch(index))
        start = timed(lambda: population.measure(task), self.device)
        spent: list[float] = []
        for index in itertools.cycle(range(len(task))):
            spent.append(timed(lambda index=index: population.step(*task.batch(index)), self.device))  # type: ignore[misc]
            if sum(spent) >= seconds:
                break
        return len(columns) * len(seeds) / (sum(spent) / len(spent) + start / len(task))

    def _population(self, columns: Sequence[Column], seeds: Sequence[int]) -> Population:
        study = self.study
        return assemble(self.images[0], columns, seeds, study.problem, study.measure, self.device, self.graphs)

    def _weights(self, column: Column) -> int:
        """Bytes of the weights of a run."""
        return 4 * self._architecture(column).parameter_count

    def _architecture(self, column: Column) -> Architecture:
        images = self.images[0]
        return _network(column).architecture(images.images[0].numel(), images.classes)


def _network(column: Column) -> Network:
    assert isinstance(column.network, Network)
    return column.network
