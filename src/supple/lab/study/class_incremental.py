"""Added classes as a problem of studies: a network is trained alone, and a stage is an epoch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import polars as pl
import torch
from torch import nn

from supple.lab.data import DATA_SETS, LabelledImages
from supple.lab.limits import ROW_IN_MEMORY
from supple.lab.population import ClassIncrementalTraining
from supple.lab.population.class_incremental_metrics import EpochMetrics, evaluate
from supple.lab.streams import ClassIncrementalStream
from supple.lab.study.assembly import methods_of
from supple.lab.study.errors import StudyError
from supple.lab.study.methods import RESET
from supple.lab.study.problem import StageResult, StudyProblem, Trainer, step_cost, timed
from supple.lab.study.results import ADDITIONS_SCHEMA, EPOCHS, EPOCHS_SCHEMA, SCHEMAS, TASKS
from supple.lab.study.schema import ImageNetwork, ScheduledSGD
from supple.lab.study.spec import ClassIncrementalStudy, Column
from supple.structure.find import units

_COPIES = 9
"""Memory of a run, in multiples of its weights: with gradients, momentum, the best network, and a checkpoint that is
being written; measured."""

_LAYER = 200_000
"""Bytes of the objects of a layer of the network and of its best copy; measured."""

_CYCLE_MOMENTUM = (0.85, 0.95)
"""Bounds of the momentum in ``torch.optim.lr_scheduler.OneCycleLR``."""


class ClassIncrementalTrainer(Trainer):
    """Trains the run of a number."""

    def __init__(self, training: ClassIncrementalTraining, run: int) -> None:
        self.training, self._run = training, run
        self._start: dict[str, Any] = {}
        self._reinitialized = 0

    def learn(self, on_step: Callable[[int], object]) -> StageResult:
        """Learns the next epoch."""
        stream, epoch = self.training.stream, self.stage
        task, place = divmod(epoch, stream.epochs_each)
        before = place * stream.steps(epoch)
        metrics = self.training.train_epoch(epoch, lambda steps: on_step(before + steps))
        self.stage += 1
        if place == 0:
            self._start, self._reinitialized = {} if metrics.start is None else asdict(metrics.start), 0
        self._reinitialized += metrics.reinitialized
        rows = {EPOCHS: self._epoch_row(task, metrics)}
        if place + 1 == stream.epochs_each:
            rows[TASKS] = self._task_row(task, metrics)
        return StageResult(rows, [metrics.test_accuracy])

    def state_dict(self) -> dict[str, Any]:
        """The state of the training, and what was measured of a task that is not over."""
        whole = self.stage // self.training.stream.epochs_each
        measured = {"start": self._start, "reinitialized": self._reinitialized}
        return {"tasks": whole, **measured, **self.training.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self.training.load_state_dict(state)
        self.stage = self.training.epoch
        self._start, self._reinitialized = dict(state["start"]), int(state["reinitialized"])

    def _epoch_row(self, task: int, metrics: EpochMetrics) -> pl.DataFrame:
        row = {"run": self._run, "task": task, **{name: getattr(metrics, name) for name in list(EPOCHS_SCHEMA)[2:]}}
        return pl.DataFrame([row], schema=dict(EPOCHS_SCHEMA))

    def _task_row(self, task: int, last: EpochMetrics) -> pl.DataFrame:
        """What was measured of a task at its start and in its last epoch; nothing at the start of a diverged run."""
        start, end = self._start, last.end
        row = {
            "run": self._run,
            "task": task,
            "accuracy": end.test_accuracy if end else 0.0,
            "loss": end.test_loss if end else float("nan"),
            "dead": start.get("dormant_new"),
            "rank": start.get("rank_new"),
            "weight_magnitude": start.get("weight_magnitude"),
            "scale_magnitude": start.get("scale_magnitude"),
            "gradient_magnitude": None,
            "reinitialized": self._reinitialized,
            "classes": last.classes,
            "dead_before": start.get("dormant_before"),
            "rank_before": start.get("rank_before"),
            "best_epoch": end.best_epoch if end else None,
            "validation_accuracy": end.validation_accuracy if end else 0.0,
            "class_accuracy": list(end.class_accuracy) if end else [],
        }
        return pl.DataFrame([row], schema=dict(ADDITIONS_SCHEMA))


class ClassIncrementalProblem(StudyProblem):
    """Classes that come a few at a time."""

    sets = ("train", "test")
    schemas = SCHEMAS["class_incremental"]
    study: ClassIncrementalStudy

    def __init__(self, study: ClassIncrementalStudy, *images: LabelledImages, **runtime: Any) -> None:
        counts = study.problem.train_images, study.problem.test_images
        chosen = zip(images, counts, strict=True)
        used = (some if count is None else some.first_of_each_class(count) for some, count in chosen)
        super().__init__(study, *used, **runtime)

    def stream(self, seed: int, device: str | None = None) -> ClassIncrementalStream:
        """The stream of a seed, on the device that trains where no other is said."""
        problem, (train, test) = self.study.problem, self.images
        try:
            stream = ClassIncrementalStream(
                train,
                test,
                seed,
                first=problem.first,
                step=problem.step,
                epochs=problem.epochs,
                validation=problem.validation,
                batch_size=problem.batch_size,
                device=device or self.device,
            )
        except ValueError as error:
            raise StudyError(f"problem: {error}") from error
        stream.augmentation = replace(
            stream.augmentation, flip=problem.flip, padding=problem.padding, degrees=(0.0, problem.rotation)
        )
        return stream

    @property
    def images_memory(self) -> int:
        """Bytes that the images take: as they were read, and sorted by the arrival of their classes."""
        return 2 * super().images_memory

    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """Optimizer steps of each task, in the order of classes that the first seed draws."""
        stream = self.stream(seeds[0], "cpu")
        if len(set(self.images[0].labels.bincount().tolist())) > 1:
            # Seeds whose first classes are smaller may not have enough for a batch.
            for seed in seeds[1:]:
                self.stream(seed, "cpu")
        return [stream.epochs_each * stream.steps(task * stream.epochs_each) for task in range(tasks)]

    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Bytes of a run's weights and their copies, and of what the network makes of a batch."""
        network = _network(column)
        _, kept = self._cost(column)
        run = 4 * _COPIES * network.parameter_count(self.study.problem) + kept
        rows = ROW_IN_MEMORY * self.study.run.tasks * self.study.problem.epochs
        return seeds * columns * (run + rows + _LAYER * network.depth)

    def most(self, column: Column) -> int | None:
        """One: runs of one seed see other classes than those of another, and one network fills a core or more."""
        return 1

    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of a training step: forward, gradients of weights, and gradients of inputs."""
        return self._cost(column)[0]

    def _cost(self, column: Column) -> list[int]:
        problem = self.study.problem

        def measure(network: nn.Module) -> tuple[int, int]:
            images = torch.empty(problem.batch_size, *DATA_SETS[problem.data].shape)
            labels = torch.empty(problem.batch_size, dtype=torch.int64)
            return step_cost(network, nn.functional.cross_entropy, images, labels)

        return _network(column).measured(problem, measure)

    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int]) -> ClassIncrementalTrainer:
        """What trains a run; there is one column, and one seed."""
        (column,), (seed,), (run,) = columns, seeds, runs
        return ClassIncrementalTrainer(self.training(column, seed), run)

    def training(self, column: Column, seed: int) -> ClassIncrementalTraining:
        """The training of a column with a seed of network, stream and method, before the first epoch."""
        section, settings = _network(column), column.optimizer
        assert isinstance(settings, ScheduledSGD)
        network = section.network(self.study.problem, seed).to(self.device)
        optimizer = torch.optim.SGD(network.parameters(), lr=settings.step_size, momentum=settings.momentum)
        stream = self.stream(seed)
        found = units(network, stream.examples(0, 2, new=True))
        methods = methods_of(network, optimizer, [column], 1, seed=seed, units=found)
        return ClassIncrementalTraining(
            network,
            optimizer,
            stream,
            # The column has one method, whose state stands in checkpoints as it is.
            None if methods is None else methods.parts[0],
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            cycle_momentum=_CYCLE_MOMENTUM if settings.cycle_momentum else None,
            restore=self.study.problem.restore,
            reset=column.settings["parts"].split("+") if column.kind == RESET else (),
            precision=section.precision,
            compiled=section.compiled,
            measured_on=self.study.measure.examples,
        )

    def rate(self, columns: Sequence[Column], seeds: Sequence[int], seconds: float) -> float:
        """Network steps a second, with the evaluation after each epoch.

        Methods cost next to nothing beside such a network, so that one run stands for all.
        """
        training = self.training(columns[0], seeds[0])
        step = _seconds_a_step(training, self.device, seconds)
        stream, size = training.stream, training.evaluation_batch
        part = replace(stream.test, images=stream.test.images[:size], labels=stream.test.labels[:size])
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            evaluation = timed(
                lambda: evaluate(training.network, training.network, part, stream.augmentation, size), self.device
            )
        # After each epoch all validation and test images are evaluated; in all epochs they are as many for each step.
        images = (len(stream.validation) + len(stream.test)) / stream.steps(stream.epochs - 1)
        return 1 / (step + images * evaluation / len(part))


class _Enough(Exception):
    """Measured for long enough."""


def _seconds_a_step(training: ClassIncrementalTraining, device: str, seconds: float) -> float:
    """Seconds that a step takes, without the first of an epoch, which comes after evaluations and measurements."""
    first: list[float] = []
    others: list[float] = []
    began = last = time.perf_counter()

    def note(steps: int) -> None:
        nonlocal last
        if device != "cpu":
            torch.cuda.synchronize()
        now = time.perf_counter()
        (others if steps > 1 else first).append(now - last)
        last = now
        if others and now - began >= seconds:
            raise _Enough

    try:
        for epoch in range(training.stream.epochs):
            last = time.perf_counter()
            training.train_epoch(epoch, note)
            if time.perf_counter() - began >= seconds:
                break
    except _Enough:
        pass
    return statistics.fmean(others or first)


def _network(column: Column) -> Any:
    assert isinstance(column.network, ImageNetwork)
    return column.network
