"""A problem that trains by itself, such as reinforcement learning: a function from a seed to a curve."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import nn

from supple.lab.population.problem import Curve
from supple.lab.study.methods import method_class
from supple.lab.study.problem import StageResult, StudyProblem, Trainer
from supple.lab.study.results import OWN_SCHEMA, SCHEMAS, TASKS
from supple.lab.study.schema import Outcome, Settings
from supple.lab.study.spec import Column, OwnStudy
from supple.methods import Method
from supple.structure.find import units

_RUN = 2**30
"""Bytes that a run is taken to need, since nobody knows before."""


class Maker:
    """Makes the method of a run for a network with its optimizer; see :class:`supple.lab.Curve`."""

    def __init__(self, column: Column, seed: int) -> None:
        self._column, self._seed = column, seed
        self.network, self.optimizer = (
            section.values if isinstance(section, Settings) else {} for section in (column.network, column.optimizer)
        )
        self.made: list[Method] = []

    def __call__(self, model: nn.Module, optimizer: torch.optim.Optimizer, example: Any = None) -> Acting:
        """Makes it, attached to the optimizer."""
        make: Any = method_class(self._column.kind)
        if make is None:
            return Acting(None)
        found = (
            {"units": units(model, example)} if example is not None and "units" in make.__signature__.parameters else {}
        )
        method = make(model, optimizer, **self._column.settings, **found, seed=self._seed).attach()
        self.made.append(method)
        return Acting(method)


class Acting:
    """A method that acts by itself after each step of its optimizer; ``method`` is None in plain training."""

    def __init__(self, method: Method | None) -> None:
        self.method = method

    def boundary(self) -> None:
        """Says that the data changes, to a method that acts then."""
        if self.method is not None and self.method.acts_at_boundary:
            self.method.boundary()


class CurveTrainer(Trainer):
    """Reads one curve; a stage is one of its numbers.

    Training that goes by itself cannot be saved, so a run that is taken up again starts anew and leaves out what is
    known.
    """

    def __init__(self, curve: Curve, column: Column, seed: int, run: int, tasks: int) -> None:
        self._curve, self._column, self._seed, self._run, self._tasks = curve, column, seed, run, tasks
        self._points: Iterator[float] | None = None
        self._read, self._reinitialized = 0, 0

    def learn(self, on_step: Callable[[int], object]) -> StageResult:
        """Reads the next number, and all before it where the run starts anew."""
        if self._points is None:
            torch.manual_seed(self._seed)
            self._maker = Maker(self._column, self._seed)
            self._points = iter(self._curve.learn(self._seed, self._maker))
        for task in range(self._read, self.stage + 1):
            try:
                point = next(self._points)
            except StopIteration:
                raise ValueError(
                    f"the curve of seed {self._seed} ends after {task} numbers; run.tasks is more"
                ) from None
            try:
                value = float(point)
            except (TypeError, ValueError):
                raise ValueError(f"task {task} of the curve of seed {self._seed} is {point!r}, no number") from None
            before, self._reinitialized = self._reinitialized, self._count()
            on_step(0)
        self._read = self.stage + 1
        # It may be made late, after training without it, but not never.
        if self._read == self._tasks and method_class(self._column.kind) is not None and not self._maker.made:
            raise ValueError(
                f"the run of seed {self._seed} was trained without its method, {self._column.kind}; the function has "
                "to make it: make(model, optimizer)"
            )
        row = {
            **dict.fromkeys(OWN_SCHEMA),
            "run": self._run,
            "task": self.stage,
            "metric": value,
            # Curves have no loss; one that is not finite tells that a run has diverged.
            "loss": 0.0 if torch.isfinite(torch.tensor(value)) else float("nan"),
            "reinitialized": self._reinitialized - before,
        }
        self.stage += 1
        on_step(1)
        return StageResult({TASKS: pl.DataFrame([row], schema=dict(OWN_SCHEMA))}, [value])

    def state_dict(self) -> dict[str, Any]:
        """How many numbers were read."""
        return {"tasks": self.stage}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self.stage = int(state["tasks"])

    def _count(self) -> int:
        return sum(int(method.reinitialized.total.sum()) for method in self._maker.made)


class CurveProblem(StudyProblem):
    """A function from a seed and a maker of methods to a curve."""

    schemas = SCHEMAS["own"]
    study: OwnStudy

    def __init__(self, study: OwnStudy, curve: Curve, **runtime: Any) -> None:
        super().__init__(study, **runtime)
        self.curve = curve

    @property
    def outcome(self) -> Outcome:
        """What the numbers of the curve are."""
        metric = self.curve.metric
        return Outcome(name=metric.name, column="metric", lower=metric.lower, share=metric.share)

    def identity(self, column: Column | None = None, seed: int | None = None) -> dict[str, Any]:
        """A digest of the function's name: nothing else is known before it is called."""
        name = f"{self.curve.learn.__module__}.{self.curve.learn.__qualname__} {self.curve.metric.name}"
        return {"count": 0, "digest": hashlib.sha256(name.encode()).hexdigest()}

    def steps(self, tasks: int, seeds: Sequence[int]) -> list[int]:
        """One a number of the curve."""
        return [1] * tasks

    def part_memory(self, column: Column, seeds: int, columns: int) -> int:
        """What a run is taken to need."""
        return seeds * columns * _RUN

    def most(self, column: Column) -> int | None:
        """One."""
        return 1

    def multiply_adds(self, column: Column) -> int:
        """None that are known of."""
        return 0

    def trainer(self, columns: Sequence[Column], seeds: Sequence[int], runs: Sequence[int]) -> CurveTrainer:
        """What trains a run; there is one column, and one seed."""
        (column,), (seed,), (run,) = columns, seeds, runs
        return CurveTrainer(self.curve, column, seed, run, self.study.run.tasks)

    def rate(self, columns: Sequence[Column], seeds: Sequence[int], seconds: float) -> float:
        """Numbers a second, from the first of a run, however long it takes."""
        began = time.perf_counter()
        self.trainer(columns[:1], seeds[:1], [0]).learn(lambda steps: None)
        return len(columns) * len(seeds) / (time.perf_counter() - began)
