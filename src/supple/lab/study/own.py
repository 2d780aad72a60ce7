"""A problem of one's own in a study: any modules on any stream, or a function that trains by itself."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from supple.lab.limits import ROW_IN_MEMORY
from supple.lab.nn.stack import applied, moved, stack
from supple.lab.population import AnyPopulation
from supple.lab.population.any_module import usual_metric
from supple.lab.population.problem import ACCURACY, LOSS, Metric, Problem
from supple.lab.streams.tasks import SeedStream, check_tested
from supple.lab.study.assembly import methods_of
from supple.lab.study.errors import StudyError
from supple.lab.study.own_checks import (
    Looked,
    apart,
    attributes,
    check_lengths,
    check_loss,
    check_metric,
    check_same_network,
    check_stream,
    explained,
    full_name,
    length,
    seeded,
)
from supple.lab.study.own_networks import OwnNetworks, section_text
from supple.lab.study.population_trainer import PopulationTrainer
from supple.lab.study.problem import StudyProblem, step_cost
from supple.lab.study.results import OWN_SCHEMA, SCHEMAS
from supple.lab.study.run_config import cached
from supple.lab.study.schema import Outcome
from supple.lab.study.spec import Column, OwnStudy
from supple.metrics import undisturbed
from supple.structure.find import units

_COPIES = 8
"""Memory of a run, in multiples of its weights: gradients, what optimizer and methods remember, a checkpoint."""

_CHECKED = 2
"""So many tasks, and batches of each, are looked at before anything is trained."""

_PARTS = ("batch", "test batch", "later batch")
"""What is called so of a task: what is learned, its test, and what is learned after it."""


class OwnProblem(StudyProblem):
    """Networks, optimizer, stream and loss of one's own; a stage is a task."""

    schemas = SCHEMAS["own"]
    study: OwnStudy

    def __init__(self, study: OwnStudy, problem: Problem, **runtime: Any) -> None:
        super().__init__(study, **runtime)
        self.problem = problem
        self.networks = OwnNetworks(problem, study.run.seeds, self.device, self._batches)
        self._costs: dict[str, tuple[int, int]] = {}
        self._first: dict[int, Looked] = {}
        self._lengths: dict[int, list[int]] = {}

    def stream(self, seed: int) -> SeedStream:
        """The stream of a seed."""
        with explained(f"stream of seed {seed}"):
            return SeedStream(self.problem.stream, seed, self.problem.batch_size)

    def first(self, seed: int) -> Looked:
        """The first batches of the first tasks and of the last, as the stream of a seed gave them when asked first."""
        if seed not in self._first:
            self._first[seed] = self._ask([seed])[seed]
        return self._first[seed]

    def _ask(self, seeds: Sequence[int], backwards: bool = False) -> dict[int, dict[int, Any]]:
        """Asks the streams of seeds, which take turns, for the first batches of the first tasks, and where it can be
        without those between, of the last, as labels may become more. Such tasks are asked for backwards if that is
        said; those that are not there are left out.
        """
        streams = {seed: self.stream(seed) for seed in seeds}
        found: dict[int, dict[int, Any]] = {seed: {} for seed in seeds}
        indexed = streams[seeds[0]].indexed
        last = {self.study.run.tasks - 1} if indexed else set()
        for number in sorted({*range(_CHECKED), *last}, reverse=backwards and indexed):
            reading = {}
            for seed, stream in streams.items():
                with explained(f"stream of seed {seed}, task {number}"):
                    try:
                        task = stream.task(number)
                    except ValueError:
                        if not number:
                            raise
                        continue
                    there = zip(_PARTS, (task, task.test, task.later), strict=True)
                    reading[seed] = {part: iter(some) for part, some in there if some is not None}
                    found[seed][number] = {part: [] for part in reading[seed]}
            for part, _, seed in itertools.product(_PARTS, range(_CHECKED), reading):
                with explained(f"stream of seed {seed}, task {number}"):
                    found[seed][number].get(part, []).extend(itertools.islice(reading[seed].get(part, ()), 1))
            for seed in reading:
                for part, some in found[seed][number].items():
                    if not some:
                        raise StudyError(
                            f"task {number} of seed {seed} has no {part}es; a Dataset has to have the examples of "
                            "one, and what is read once, as a generator is, belongs into a function"
                        )
        return found

    def _batches(self, seed: int) -> list[Any]:
        """The first batches of a seed, where networks are."""
        found: list[Any] = moved(self.first(seed)[0]["batch"], self.device)
        return found

    @cached_property
    def _example(self) -> tuple[Any, Tensor]:
        """The first batch of the first seed."""
        inputs, targets = self._batches(self.study.run.seeds[0])[0]
        return inputs, targets

    @cached_property
    def metric(self) -> Metric:
        """What runs are compared by."""
        if self.problem.metric is not None:
            return self.problem.metric
        network, _ = self.networks.sample(self.study.columns[0])
        inputs, targets = self._example
        with explained("metric"), seeded(), torch.no_grad():
            return usual_metric(applied(network, inputs), targets)

    @property
    def outcome(self) -> Outcome:
        """What runs are compared by."""
        tested = self.stream(self.study.run.seeds[0]).task(0).test is not None
        column = "accuracy" if self.metric is ACCURACY else "loss" if self.metric is LOSS and not tested else "metric"
        name = "test loss" if self.metric is LOSS and tested else self.metric.name
        return Outcome(name=name, column=column, lower=self.metric.lower, share=self.metric.share)  # type: ignore[arg-type]

    def identity(self, column: Column | None = None, seed: int | None = None) -> dict[str, Any]:
        """A digest of the first batches of seed 0, of network and optimizer as they are without any settings, where
        they can be without, and of what loss and metric are; and what a run begins with, None where it cannot.
        """
        parts: list[Any] = [full_name(self.problem.loss), self.metric.name]
        with suppress(Exception), seeded():
            network = self.problem.network(0)
            parts.append(_form(network))
            optimizer = self.problem.optimizer(network.parameters())
            parts += [full_name(type(optimizer)), sorted(optimizer.defaults.items())]
        batches: list[Any] = []
        with suppress(StudyError):  # of a stream that does not have this seed
            looked = self.first(0)
            batches = [batch for task in range(_CHECKED) for batch in looked.get(task, {}).get("batch", ())]
        start = None
        with suppress(StudyError):
            start = self._start(column or self.study.columns[0], self.study.run.seeds[0] if seed is None else seed)
        return {"count": 0, "digest": _digest(parts, batches), "start": start}

    def _start(self, column: Column, seed: int) -> dict[str, Any]:
        """A digest of the first batches, network and optimizer of a run, and what :meth:`_values` gives each time."""
        with explained("network"):
            network = self.networks.one(column, seed)
        optimizer = self.networks.make_optimizer(column, network, seed)
        groups = [{**group, "params": [tuple(p.shape) for p in group["params"]]} for group in optimizer.param_groups]
        first = self.first(seed)
        batches = [first[task] for task in range(_CHECKED) if task in first]
        parts = [
            _text(network),
            _form(network),
            full_name(type(optimizer)),
            [sorted(group.items()) for group in groups],
        ]
        with explained("loss"):
            once, again = (self._values(network, *first[0]["batch"][0]) for _ in range(2))
        kept = {name: value for name, value in once.items() if again.get(name) == value}
        return {"digest": _digest(parts, batches), **kept}

    def _values(self, network: nn.Module, inputs: Any, targets: Tensor) -> dict[str, float]:
        """The loss of a network on a batch, the norm of its gradient and the metric, where they tell it from others."""
        network.zero_grad()
        with seeded():
            output = applied(network, inputs)
            found = {"loss": self.problem.loss(output, targets)}
            found["loss"].backward()
            squares = [p.grad.detach().to_dense().square().sum() for p in network.parameters() if p.grad is not None]
            found["gradient"] = torch.stack([one.to("cpu", torch.float64) for one in squares]).sum().sqrt()
            output, function = tree_map_only(Tensor, Tensor.detach, output), self.metric.function
            if function is not None and self.metric is not ACCURACY:
                found["metric"] = function(*[output] * (1 + self.metric.after), targets)
        # In half precision they depend on the processor.
        exact = found["loss"].is_floating_point() and torch.finfo(found["loss"].dtype).eps < 1e-4
        return {name: float(value.detach()) for name, value in found.items() if exact and bool(value.isfinite())}

    def check(self, tasks: int, columns: Sequence[Column], seeds: Sequence[int]) -> None:
        """Looks at the stream, the networks, the loss and the methods; StudyError names what is wrong."""
        # As networks that are trained together, or go on after a stop, ask for them.
        looked = {seed: self.first(seed) for seed in seeds[:2]}
        again = self._ask(seeds[:2], backwards=True)
        for seed, first in looked.items():
            check_stream(seed, first, again[seed])
        streams = [self.stream(seed) for seed in seeds]
        with explained("stream"):
            check_tested(0, streams, [stream.task(0) for stream in streams])
        check_lengths(streams, self.steps(tasks, seeds[:1]))
        for column in {section_text(column): column for column in columns}.values():
            self._check_network(column, seeds)
        for column in {(column.method, repr(column.network)): column for column in reversed(columns)}.values():
            with explained(f"methods.{column.method}"):
                population = self._population([column], seeds[:1])
                if population.method is not None:
                    population.method.close()

    def _check_network(self, column: Column, seeds: Sequence[int]) -> None:
        """Makes networks of two seeds, the first one twice, and computes loss and metric on their first batches."""
        with explained("network"):
            two = [self.networks.one(column, seeds[0]) for _ in range(2)]
            check_same_network(seeds[0], *two)
        network, _ = self.networks.sample(column)
        before = attributes(network)
        looked = (
            (f"task {task}, {part} {step} of seed {seed}", part, *batch)
            for seed in seeds[:2]
            for task, parts in self.first(seed).items()
            for part, batches in parts.items()
            for step, batch in enumerate(batches)
        )
        with apart(*two):
            for place, part, inputs, targets in looked:
                inputs, targets = moved((inputs, targets), self.device)
                with seeded(), undisturbed(network) if part == "test batch" else nullcontext():
                    output = check_loss(place, network, self.problem.loss, inputs, targets)
                    check_metric(place, self.metric, output, targets)
        self.networks.together(column)  # warns where runs are trained alone
        for (module, name), value in attributes(network).items():
            if before.get((module, name)) != value:
                warnings.warn(
                    f"network: {name} of {module or type(network).__name__} changes while it computes, and a run that "
                    "is stopped goes on without it; make it a tensor with register_buffer",
                    UserWarning,
                    stacklevel=2,
                )

    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """Batches of each task of the first seed, with those after it; StudyError if it has fewer tasks."""
        stream = self.stream(seeds[0])
        with explained(f"stream of seed {seeds[0]}"):
            if stream.length is not None and stream.length < tasks:
                raise StudyError(f"run.tasks is {tasks}, but the stream of seed {seeds[0]} has {stream.length} tasks")
            counted = self._lengths.setdefault(seeds[0], [])
            counted += [length(stream, task) for task in range(len(counted), tasks)]
        found = counted[:tasks]
        if 0 in found:
            raise StudyError(f"task {found.index(0)} of seed {seeds[0]} has no batches")
        return found

    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Bytes of weights and their copies, of batches, and of what the networks keep for the backward pass."""
        _, kept = self._cost(column)
        batch = sum(_bytes(leaf) for leaf in tree_leaves(self._example))
        ahead = max(1, -(-self.study.measure.examples // max(1, len(self._example[1])))) * batch
        run = _COPIES * self._weights(column) + 2 * kept + batch + ROW_IN_MEMORY * self.study.run.tasks
        return seeds * (columns * run + 2 * ahead)

    def most(self, column: Column) -> int | None:
        """As many as train fastest together on a core; one where runs are trained alone."""
        if not self.networks.together(column):
            return 1
        return cached(self._weights(column)) if self.device == "cpu" else None

    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of a training step, as torch counts them."""
        return self._cost(column)[0]

    def _cost(self, column: Column) -> tuple[int, int]:
        key = section_text(column)
        if key not in self._costs:
            network, _ = self.networks.sample(column)
            with seeded():
                self._costs[key] = step_cost(network, self.problem.loss, *self._example)
        return self._costs[key]

    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int]) -> PopulationTrainer:
        """What trains a part."""
        return PopulationTrainer(self._population(columns, seeds), len(columns), runs, OWN_SCHEMA)

    def rate(self, columns: Sequence[Column], seeds: Sequence[int], seconds: float) -> float:
        """Network steps a second, with what is measured at the start of a task."""
        population = self._population(columns, seeds)
        steps = self.steps(1, seeds)[0]
        began = time.perf_counter()
        taken, first = 0, 0.0

        def note(done: int) -> None:
            nonlocal taken, first
            taken = done
            first = first or time.perf_counter() - began
            if time.perf_counter() - began >= seconds and taken > 1:
                raise _Enough

        with suppress(_Enough):
            population.train_task(0, note)
        # The first step comes after the measurements of a task.
        each = (time.perf_counter() - began - first) / max(1, taken - 1) if taken > 1 else first
        return len(columns) * len(seeds) / (each + max(0.0, first - each) / steps)

    def _population(self, columns: Sequence[Column], seeds: Sequence[int]) -> AnyPopulation:
        first, replicas = columns[0], [seed for seed in seeds for _ in columns]
        example = self._example[0]
        more: dict[str, Any] = {}
        if self.networks.together(first):
            network: nn.Module = stack(self.networks.make(first), replicas, example)
        elif len(replicas) > 1:
            raise StudyError(
                "the network cannot be trained together with others, but these runs were meant to be; give another "
                "folder with --out"
            )
        else:
            network = self.networks.one(first, replicas[0])
            more["seed"] = replicas[0]
            # A method that needs units says itself that there are none.
            with suppress(ValueError):
                more["units"] = units(network, example)
        network = network.to(self.device)
        optimizer = self.networks.optimizer(first, network)
        return AnyPopulation(
            network,
            optimizer,
            [self.stream(seed) for seed in seeds],
            methods_of(network, optimizer, columns, len(seeds), **more),
            loss=self.problem.loss,
            metric=self.metric,
            measured_on=self.study.measure.examples,
            device=self.device,
        )

    def _weights(self, column: Column) -> int:
        """Bytes of the weights of a run."""
        network, _ = self.networks.sample(column)
        return sum(_bytes(p) for p in network.parameters())


class _Enough(Exception):
    """Measured for long enough."""


def _bytes(leaf: Any) -> int:
    return leaf.numel() * leaf.element_size() if isinstance(leaf, Tensor) else 0


def _form(network: nn.Module) -> list[Any]:
    return [(name, str(p.dtype), tuple(p.shape)) for name, p in network.named_parameters()]


def _text(thing: Any) -> str:
    """What it prints as, without its place in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _digest(parts: Sequence[Any], batches: Any) -> str:
    """A SHA-256 of what is described, and of the tensors of batches."""
    digest = hashlib.sha256(_text(parts).encode())
    for leaf in tree_leaves(batches):
        if isinstance(leaf, Tensor):
            digest.update(leaf.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(_text(leaf).encode())
    return digest.hexdigest()
