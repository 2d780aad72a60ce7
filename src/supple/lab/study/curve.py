"""A problem that trains by itself, such as reinforcement learning: a function from a seed to a curve."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import torch
from torch import nn

from supple.lab.limits import out_of_memory
from supple.lab.population.problem import Curve
from supple.lab.study.errors import StudyError
from supple.lab.study.methods import method_class
from supple.lab.study.own_checks import full_name, seed_all
from supple.lab.study.problem import StageResult, StudyProblem, Trainer
from supple.lab.study.results import OWN_SCHEMA, SCHEMAS, TASKS
from supple.lab.study.schema import Outcome, Settings
from supple.lab.study.spec import Column, OwnStudy
from supple.methods import Method
from supple.structure.find import units

_RUN = 2**30
"""Bytes that a run is taken to need, since nobody knows before."""


class Given(UserDict[str, Any]):
    """Settings that remember in ``read`` which of them were read."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.read: set[str] = set()
        super().__init__(settings)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def __or__(self, other: Any) -> Any:
        return dict(self) | dict(other)

    def __ror__(self, other: Any) -> Any:
        return dict(other) | dict(self)


class Maker:
    """Makes the method of a run for a network with its optimizer; see :class:`supple.lab.Curve`."""

    def __init__(self, column: Column, seed: int) -> None:
        self._column, self._seed = column, seed
        self.network, self.optimizer = (
            Given(section.values if isinstance(section, Settings) else {})
            for section in (column.network, column.optimizer)
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

    Training that goes by itself cannot be saved, so a run that is taken up again starts anew. What is known has to come
    again, and is left out.
    """

    def __init__(self, curve: Curve, column: Column, seed: int, run: int, tasks: int) -> None:
        self._curve, self._column, self._seed, self._run, self._tasks = curve, column, seed, run, tasks
        self._place = f"methods.{column.method}, seed {seed}"
        self._points: Iterator[Any] | None = None
        self._numbers: list[float | None] = []
        self._read, self._reinitialized = 0, 0

    def learn(self, on_step: Callable[[int], object]) -> StageResult:
        """Reads the next number, and all before it where the run starts anew."""
        if self._points is None:
            seed_all(self._seed)
            self._maker = Maker(self._column, self._seed)
            self._points = self._curve_of_the_run()
        for task in range(self._read, self.stage + 1):
            value = self._number(task, self._points)
            known = self._numbers[task] if task < self.stage else None
            if known is not None and repr(value) != repr(known):  # nan is itself
                raise StudyError(
                    f"{self._place}: number {task} of the curve is {value!r}, but was {known!r} before; "
                    "a run that is taken up again starts anew, so all that is random in it has to come from its seed "
                    "(the generators of torch, numpy and Python do); give another folder"
                )
            self._numbers[task : task + 1] = [value]
            before, self._reinitialized = self._reinitialized, self._count()
            on_step(0)
        self._read = self.stage + 1
        if self._read == self._tasks:
            self._check_used()
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
        """The numbers that were read, and how many they are."""
        return {"tasks": self.stage, "numbers": self._numbers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self.stage = int(state["tasks"])
        # Folders of earlier versions hold none, so that there is nothing to compare with.
        self._numbers = list(state.get("numbers", [None] * self.stage))

    def _curve_of_the_run(self) -> Iterator[Any]:
        points: Any = self._curve.learn(self._seed, self._maker)
        if not isinstance(points, Iterable):
            raise StudyError(f"{self._place}: the curve is {points!r}; it has to be numbers, one a task")
        yield from points

    def _number(self, task: int, points: Iterator[Any]) -> float:
        """The next number of the curve, which is that of a task."""
        try:
            point = next(points)
        except StopIteration:
            raise StudyError(f"{self._place}: the curve ends after {task} numbers; run.tasks is more") from None
        except StudyError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            # A worker hands on the message alone; what failed in a package was called from a line outside of it.
            frames = traceback.extract_tb(error.__traceback__)
            last = next((one for one in reversed(frames) if "site-packages" not in one.filename), frames[-1])
            raise StudyError(
                f"{self._place}: {type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
            ) from error
        try:
            return float(point)
        except (OverflowError, TypeError, ValueError):
            raise StudyError(f"{self._place}: number {task} of the curve is {point!r}, no number") from None

    def _check_used(self) -> None:
        """Refuses a whole run without its method, or without one of its settings, each of which may be used late."""
        if method_class(self._column.kind) is not None and not self._maker.made:
            raise StudyError(
                f"{self._place}: it was trained without its method, {self._column.kind}; the function has to make it: "
                "make(model, optimizer)"
            )
        for section in ("network", "optimizer"):
            given: Given = getattr(self._maker, section)
            for name in sorted(given.keys() - given.read):
                raise StudyError(
                    f"{self._place}: nothing has read its setting {section}.{name}; leave it out, or let the function "
                    f"read make.{section}[{name!r}]"
                )

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
        name = f"{full_name(self.curve.learn)} {self.curve.metric.name}"
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
