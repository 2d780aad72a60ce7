"""A problem of one's own in a study: any modules on any stream, or a function that trains by itself."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from supple.lab.nn.stack import stack
from supple.lab.population import AnyPopulation
from supple.lab.population.any_module import usual_metric
from supple.lab.population.problem import ACCURACY, LOSS, Curve, Metric, Problem
from supple.lab.streams.tasks import SeedStream
from supple.lab.study.assembly import methods_of
from supple.lab.study.curve import CurveProblem
from supple.lab.study.errors import StudyError
from supple.lab.study.limits import ROW_IN_MEMORY
from supple.lab.study.population_trainer import PopulationTrainer
from supple.lab.study.problem import StudyProblem
from supple.lab.study.results import OWN_SCHEMA, SCHEMAS
from supple.lab.study.run_config import cached
from supple.lab.study.schema import Outcome, Settings
from supple.lab.study.spec import Column, OwnStudy
from supple.optim import ReplicatedOptimizer
from supple.structure.find import units
from supple.structure.tracing.run import arguments_of

ELEMENTWISE = {
    getattr(torch.optim, name)
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")
}
"""Optimizers of torch that act on each entry by itself, so that one steps stacked networks as one a network would."""

_COPIES = 8
"""Memory of a run, in multiples of its weights: gradients, what optimizer and methods remember, a checkpoint."""

_CHECKED = 2
"""So many tasks, and batches of each, are looked at before anything is trained."""


def open_own(
    study: OwnStudy, given: Any = None, files: Mapping[str, Any] | None = None, **runtime: Any
) -> StudyProblem:
    """The problem of a study: what was given, or what the factory makes that the study names.

    ``files``, where its data are, is told to a factory that asks for it. StudyError if it cannot be made.
    """
    kind = study.problem.kind
    if given is None:
        module, colon, name = kind.partition(":")
        if not colon:
            raise StudyError(
                "its problem was given in a call of supple.lab.compare; call that again to go on, or name a factory "
                'in a file: problem = "package.module:factory"'
            )
        try:
            factory = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise StudyError(f"problem {kind!r} cannot be imported: {error}") from error
        try:
            asked = inspect.signature(factory).parameters
            more = {name: value for name, value in (files or {}).items() if name in asked}
            given = factory(**{**more, **study.problem.arguments})
        except TypeError as error:
            raise StudyError(f"problem {kind!r} cannot be made: {error}") from error
    if callable(given):
        given = Curve(given)
    if isinstance(given, Curve):
        return CurveProblem(study, given, **runtime)
    if not isinstance(given, Problem):
        raise StudyError(
            f"problem {kind!r} is {type(given).__name__}; it has to be a supple.lab.Problem, or of training that goes "
            "by itself a supple.lab.Curve"
        )
    return OwnProblem(study, given, **runtime)


class OwnProblem(StudyProblem):
    """Networks, optimizer, stream and loss of one's own; a stage is a task."""

    schemas = SCHEMAS["own"]
    study: OwnStudy

    def __init__(self, study: OwnStudy, problem: Problem, **runtime: Any) -> None:
        super().__init__(study, **runtime)
        self.problem = problem
        self._samples: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def stream(self, seed: int) -> SeedStream:
        """The stream of a seed."""
        with _explained(f"stream of seed {seed}"):
            return SeedStream(self.problem.stream, seed, self.problem.batch_size)

    def first(self, seed: int) -> list[list[tuple[Any, Tensor]]]:
        """The first batches of the first tasks of a seed; those of one task where the stream has only one."""
        stream, found = self.stream(seed), []
        for task in range(_CHECKED):
            with _explained(f"stream of seed {seed}, task {task}"):
                try:
                    found.append(list(itertools.islice(stream.task(task), _CHECKED)))
                except ValueError:
                    if not task:
                        raise
        if not found[0]:
            raise StudyError(f"task 0 of seed {seed} has no batches")
        return found

    @cached_property
    def _example(self) -> tuple[Any, Tensor]:
        """The first batch of the first seed."""
        inputs, targets = self.first(self.study.run.seeds[0])[0][0]
        return tree_map(self._here, inputs), targets.to(self.device)

    def _here(self, leaf: Any) -> Any:
        return leaf.to(self.device) if isinstance(leaf, Tensor) else leaf

    @cached_property
    def metric(self) -> Metric:
        """What runs are compared by."""
        if self.problem.metric is not None:
            return self.problem.metric
        network, _ = self._sample(self.study.columns[0])
        (arguments, keywords), targets = arguments_of(self._example[0]), self._example[1]
        with _undisturbed(), torch.no_grad():
            return usual_metric(network(*arguments, **keywords), targets)

    @property
    def outcome(self) -> Outcome:
        """What runs are compared by."""
        tested = self.stream(self.study.run.seeds[0]).task(0).test is not None
        column = "accuracy" if self.metric is ACCURACY else "loss" if self.metric is LOSS and not tested else "metric"
        name = "test loss" if self.metric is LOSS and tested else self.metric.name
        return Outcome(name=name, column=column, lower=self.metric.lower, share=self.metric.share)  # type: ignore[arg-type]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """A digest of the first batches, of the shapes of the network, and of what optimizer, loss and metric are."""
        network, optimizer = self._sample(self.study.columns[0])
        shapes = [(name, str(p.dtype), tuple(p.shape)) for name, p in network.named_parameters()]
        named = [_name(self.problem.loss), self.metric.name, _name(type(optimizer)), sorted(optimizer.defaults.items())]
        digest = hashlib.sha256(repr((shapes, named)).encode())
        for batch in itertools.chain(*self.first(0)):
            for leaf in tree_leaves(batch):
                content = leaf.detach().cpu().contiguous().numpy().tobytes() if isinstance(leaf, Tensor) else repr(leaf)
                digest.update(content if isinstance(content, bytes) else content.encode())
        return {"count": 0, "digest": digest.hexdigest()}

    def check(self, tasks: int, columns: Sequence[Column], seeds: Sequence[int]) -> None:
        """Looks at the stream, the networks, the loss and the methods; StudyError names what is wrong."""
        for seed in seeds[:2]:
            self._check_stream(seed)
        self._check_lengths(tasks, seeds)
        for column in {_section_text(column): column for column in columns}.values():
            self._check_network(column, seeds)
        for column in {column.method: column for column in reversed(columns)}.values():
            with _explained(f"methods.{column.method}"):
                population = self._population([column], seeds[:1])
                if population.method is not None:
                    population.method.close()

    def _check_stream(self, seed: int) -> None:
        """Asks for the first batches of a seed twice."""
        for task, (once, again) in enumerate(zip(self.first(seed), self.first(seed), strict=True)):
            same = len(once) == len(again)
            for step, pair in enumerate(zip(once, again, strict=False)):
                leaves = [tree_leaves(batch) for batch in pair]
                if not (same and len(leaves[0]) == len(leaves[1]) and all(map(_equal, *leaves))):
                    raise StudyError(
                        f"task {task}, batch {step} of seed {seed} is another when the stream is asked for it again; "
                        "everything random in it has to come from the seed (torch's own generator does, Python's and "
                        "numpy's do not)"
                    )
            if not same:
                raise StudyError(f"task {task} of seed {seed} has other batches when the stream is asked for it again")

    def _check_lengths(self, tasks: int, seeds: Sequence[int]) -> None:
        expected = self.steps(tasks, seeds[:1])
        for seed in seeds[1:]:
            stream = self.stream(seed)
            for task in range(tasks if stream.indexed and seed == seeds[1] else 1):
                length = _length(stream, task)
                if length != expected[task]:
                    raise StudyError(
                        f"task {task} has {expected[task]} batches with seed {seeds[0]} and {length} with seed {seed}; "
                        "networks of several seeds are trained together, so all seeds need as many"
                    )

    def _check_network(self, column: Column, seeds: Sequence[int]) -> None:
        """Makes networks of two seeds, the first one twice, and computes the loss of one on the first batches."""
        seed = seeds[0]
        with _explained("network"):
            first, again = (stack(self._make(column), [seed]).state_dict() for _ in range(2))
            for name, value in first.items():
                if value.shape != again[name].shape:
                    raise StudyError(
                        f"network: {name} of seed {seed} has shape {tuple(value.shape[1:])}, and "
                        f"{tuple(again[name].shape[1:])} when it is made again"
                    )
                if not _equal(value, again[name]):
                    raise StudyError(f"network: {name} of seed {seed} has other values when it is made again")
            stack(self._make(column), seeds[:2])
        network, _ = self._sample(column)
        for task, batches in enumerate(self.first(seed)):
            for step, (inputs, targets) in enumerate(batches):
                self._check_loss(network, inputs, targets, f"task {task}, batch {step} of seed {seed}")

    def _check_loss(self, network: nn.Module, inputs: Any, targets: Tensor, place: str) -> None:
        inputs, targets = tree_map(self._here, inputs), targets.to(self.device)
        shapes = ", ".join(_shown(leaf) for leaf in tree_leaves(inputs))
        arguments, keywords = arguments_of(inputs)
        with _undisturbed():
            try:
                output = network(*arguments, **keywords)
            except Exception as error:
                raise StudyError(f"{place}: the network does not take inputs {shapes}: {error}") from error
            what = f"of outputs {', '.join(_shown(leaf) for leaf in tree_leaves(output))} and targets {_shown(targets)}"
            try:
                loss = self.problem.loss(output, targets)
            except Exception as error:
                raise StudyError(f"{place}: the loss {what} cannot be computed: {error}") from error
            if not isinstance(loss, Tensor) or loss.shape != ():
                raise StudyError(f"{place}: the loss {what} is {_shown(loss)}; it has to be a scalar")
            if not loss.requires_grad:
                raise StudyError(f"{place}: the loss {what} does not depend on the network's parameters")
            if self.metric.function is not None:
                value = self.metric.function(*[output] * (1 + self.metric.after), targets)
                if not isinstance(value, Tensor) or value.shape != ():
                    raise StudyError(
                        f"{place}: the metric {self.metric.name} is {_shown(value)}; it has to be a scalar"
                    )

    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """Batches of each task of the first seed; StudyError if it has fewer tasks."""
        stream = self.stream(seeds[0])
        with _explained(f"stream of seed {seeds[0]}"):
            if stream.indexed and hasattr(stream._tasks, "__len__") and len(stream) < tasks:
                raise StudyError(f"run.tasks is {tasks}, but the stream of seed {seeds[0]} has {len(stream)} tasks")
            found = [_length(stream, task) for task in range(tasks)]
        if 0 in found:
            raise StudyError(f"task {found.index(0)} of seed {seeds[0]} has no batches")
        return found

    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """Bytes of weights and their copies, of batches, and of what the networks keep for the backward pass."""
        network, _ = self._sample(column)
        kept = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        (arguments, keywords), targets = arguments_of(self._example[0]), self._example[1]
        with _undisturbed(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            self.problem.loss(network(*arguments, **keywords), targets)
        batch = sum(_bytes(leaf) for leaf in tree_leaves(self._example))
        ahead = max(1, -(-self.study.measure.examples // max(1, len(targets)))) * batch
        run = _COPIES * self._weights(column) + 2 * kept + batch + ROW_IN_MEMORY * self.study.run.tasks
        return seeds * (columns * run + 2 * ahead)

    def most(self, column: Column) -> int | None:
        """As many as train fastest together on a core; one where the optimizer looks at whole parameters."""
        if not self._together(column):
            return 1
        return cached(self._weights(column)) if self.device == "cpu" else None

    def multiply_adds(self, column: Column) -> int:
        """Multiply-adds of a training step, as torch counts them."""
        network, _ = self._sample(column)
        (arguments, keywords), targets = arguments_of(self._example[0]), self._example[1]
        with _undisturbed(), FlopCounterMode(display=False) as counter:
            self.problem.loss(network(*arguments, **keywords), targets).backward()
        network.zero_grad()
        return int(counter.get_total_flops()) // 2

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
        if self._together(first):
            network: nn.Module = stack(self._make(first), replicas, example)
        else:
            network = self._one(first, replicas[0])
            more["seed"] = replicas[0]
            if any("units" in getattr(column, "kind", "") for column in columns):
                more["units"] = units(network, example)
        network = network.to(self.device)
        optimizer = self._optimizer(first, network)
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

    def _sample(self, column: Column) -> tuple[nn.Module, torch.optim.Optimizer]:
        """A network of the first seed, with its optimizer, to try things with."""
        key = _section_text(column)
        if key not in self._samples:
            with _explained("network"):
                network = self._one(column, self.study.run.seeds[0]).to(self.device)
            with _explained("optimizer"):
                self._samples[key] = network, self._optimizer(column, network)
        return self._samples[key]

    def _one(self, column: Column, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._make(column)(seed)
        if not isinstance(network, nn.Module):
            raise StudyError(f"network: it is {type(network).__name__}; it has to be a torch.nn.Module")
        return network

    def _make(self, column: Column) -> Callable[[int], nn.Module]:
        settings = _settings(column.network)
        return lambda seed: self.problem.network(seed, **settings)

    def _optimizer(self, column: Column, network: nn.Module) -> torch.optim.Optimizer:
        return self.problem.optimizer(network.parameters(), **_settings(column.optimizer))

    def _together(self, column: Column) -> bool:
        """Whether the optimizer acts on each entry by itself."""
        _, optimizer = self._sample(column)
        return isinstance(optimizer, ReplicatedOptimizer) or type(optimizer) in ELEMENTWISE

    def _weights(self, column: Column) -> int:
        """Bytes of the weights of a run."""
        network, _ = self._sample(column)
        return sum(_bytes(p) for p in network.parameters())


class _Enough(Exception):
    """Measured for long enough."""


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Makes a StudyError with its place of what goes wrong in a program of somebody's own."""
    try:
        yield
    except StudyError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise StudyError(f"{place}: {error}") from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _length(stream: SeedStream, index: int) -> int:
    """The number of batches of a task, which are counted where it does not say."""
    task = stream.task(index)
    return sum(1 for _ in task) if task.length is None else task.length


def _settings(section: Any) -> dict[str, Any]:
    assert isinstance(section, Settings)
    return section.values


def _section_text(column: Column) -> str:
    return f"{column.network!r} {column.optimizer!r}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one.nan_to_num(), other.nan_to_num()))
    return bool(one == other)


def _bytes(leaf: Any) -> int:
    return leaf.numel() * leaf.element_size() if isinstance(leaf, Tensor) else 0


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _shown(value: Any) -> str:
    """A tensor in words, such as "int64 [30] from 0 to 9"."""
    if not isinstance(value, Tensor):
        return f"{value!r:.80}"
    kind = str(value.dtype).removeprefix("torch.")
    whole = not value.is_floating_point() and not value.is_complex() and value.numel() and value.dtype != torch.bool
    ends = f" from {value.min()} to {value.max()}" if whole else ""
    return f"{kind} {list(value.shape)}{ends}"
