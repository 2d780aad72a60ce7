"""Study files: what is to be compared, in TOML, checked before anything is trained.

::

    title = "Permuted MNIST, small network"

    [problem]
    kind = "permuted"
    data = "mnist"

    [network]
    hidden = 10

    [optimizer]
    step_size = 0.05

    [run]
    tasks = 1000
    seeds = 30

    [methods.base]

    [methods.swr]
    frequency = [1024, 2048]            # a list is a grid: each value with each of the other lists
    factor = 1e-6

    [methods.swr_mean]
    kind = "swr"                        # where the name is not that of the method
    reinit = "mean"

    [methods.tanh]
    kind = "base"
    network.activation = "tanh"         # what differs from the network and the optimizer of the study
    optimizer.step_size = [0.05, 0.01]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from supple.lab.study.grid import Point, expand
from supple.lab.study.kinds import KINDS, check_settings, settings_in_full
from supple.lab.study.mistakes import StudyError, explain, nearest
from supple.lab.study.tables import (
    ClassIncremental,
    CycledSGD,
    Length,
    Measure,
    MeasureAdditions,
    Network,
    Optimizer,
    Permuted,
    Table,
    Transformer,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_AnyTable = TypeVar("_AnyTable", bound=Table)


@dataclass(frozen=True)
class Column:
    """One thing that is compared: a method with its settings, and the network and optimizer it is used with.

    Args:
        method: the name that the study gives it.
        kind: the method's own name.
        settings: the method's settings, those that are given.
        network: the network.
        optimizer: the optimizer.
        point: the values that a grid has here, as text; empty where there is no grid.
    """

    method: str
    kind: str
    settings: Mapping[str, Any]
    network: Network | Transformer
    optimizer: Optimizer | CycledSGD
    point: str

    def key(self) -> dict[str, Any]:
        """All that its results depend on beside the problem and the seed, as plain values."""
        return {
            "method": self.method,
            "kind": self.kind,
            "settings": dict(self.settings),
            "network": self.network.model_dump(mode="json"),
            "optimizer": self.optimizer.model_dump(mode="json"),
        }

    @property
    def text(self) -> str:
        """:meth:`key` as text, which is equal for equal columns."""
        return json.dumps(self.key(), sort_keys=True)


class Study(Table):
    """A study: what is compared on what, how often and for how long. Made by :func:`parse` or :func:`from_dict`.

    Attributes:
        title: what it is called.
        source: where its settings are from.
        problem: the tasks.
        network: the network, where a method says nothing else.
        optimizer: the optimizer, where a method says nothing else.
        run: how long and how often.
        measure: what is measured.
        methods: what is compared, by name.
    """

    title: str
    source: str = ""
    problem: Permuted | ClassIncremental
    network: Network | Transformer
    optimizer: Optimizer | CycledSGD
    run: Length
    measure: Measure | MeasureAdditions
    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All that is compared: the points of the grids of all methods, in order."""
        found: dict[str, Column] = {}
        for name, entry in self.methods.items():
            try:
                points = expand(entry)
            except ValueError as error:
                raise StudyError(f"methods.{name}.{error}") from error
            for point in points:
                column = self._column(name, point)
                if column.text in found:
                    raise StudyError(f"methods.{name}: {point.text} is there twice; leave one of them out")
                found[column.text] = column
        return tuple(found.values())

    def _column(self, name: str, point: Point) -> Column:
        where = f"methods.{name}"
        given = dict(point.values)
        kind = given.pop("kind", name)
        if not isinstance(kind, str) or kind not in KINDS:
            remedy = "" if "kind" in point.values else f' Where {name} is your own name, add kind = "...".'
            raise StudyError(f"{where}: {nearest(kind, KINDS)}{remedy}")
        tables = {part: given.pop(part, {}) for part in ("network", "optimizer")}
        for part, table in tables.items():
            if not isinstance(table, dict):
                raise StudyError(f"{where}.{part} is {table!r}; it has to be a table, such as {part}.hidden = 10")
        network = _changed(self.network, tables["network"], f"{where}.network")
        optimizer = _changed(self.optimizer, tables["optimizer"], f"{where}.optimizer")
        only = KINDS[kind].only
        if only not in (None, self.problem.kind):
            raise StudyError(f"{where}: {kind} is for problems of kind {only!r}, but this one is {self.problem.kind!r}")
        try:
            check_settings(kind, given)
        except (TypeError, ValueError) as error:
            raise StudyError(f"{where}: {error}") from error
        if isinstance(self.problem, ClassIncremental) and isinstance(network, Transformer):
            try:
                network.parameter_count(self.problem)
            except ValueError as error:
                place = f"{where}.network" if tables["network"] else "network"
                raise StudyError(f"{place}: {error}") from error
        return Column(name, kind, settings_in_full(kind, given), network, optimizer, point.text)


class PermutedStudy(Study):
    """A study of tasks that are permuted images, learned by multilayer perceptrons."""

    problem: Permuted = Permuted()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    measure: Measure = Measure()


class IncrementalStudy(Study):
    """A study of classes that come a few at a time, learned by vision transformers."""

    problem: ClassIncremental
    network: Transformer = Transformer()
    optimizer: CycledSGD = CycledSGD()
    measure: MeasureAdditions = MeasureAdditions()

    @model_validator(mode="after")
    def _as_many_tasks(self) -> IncrementalStudy:
        problem = self.problem
        if self.run.tasks > problem.tasks:
            raise ValueError(
                f"run.tasks is {self.run.tasks}, but {problem.first} classes of {problem.data} at first and "
                f"{problem.step} more each time make {problem.tasks} tasks"
            )
        return self


STUDIES: Mapping[str, type[Study]] = {"permuted": PermutedStudy, "class_incremental": IncrementalStudy}
"""The kinds of studies, by the kind of their problem."""


def _changed(table: _AnyTable, changes: Mapping[str, Any], where: str) -> _AnyTable:
    """A table in which some settings are others."""
    try:
        return type(table)(**{**table.model_dump(), **changes})
    except ValidationError as error:
        raise StudyError("; ".join(explain(error, type(table), where))) from error


def parse(text: str, name: str) -> Study:
    """Reads the text of a study file.

    Args:
        text: TOML.
        name: the file's name, for messages.

    Returns:
        The study.

    Raises:
        StudyError: if it is no TOML, or something in it is unknown or out of range.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{name}: {error}") from error
    return from_dict(content, name)


def from_dict(content: Mapping[str, Any], name: str) -> Study:
    """A study from what a study file holds.

    Args:
        content: tables and settings by name.
        name: the file's name, for messages.

    Returns:
        The study.

    Raises:
        StudyError: if something in it is unknown or out of range.
    """
    problem = content.get("problem")
    kind = problem.get("kind", "permuted") if isinstance(problem, Mapping) else "permuted"
    if not isinstance(kind, str) or kind not in STUDIES:
        raise StudyError(f"{name}: problem.kind: {nearest(kind, STUDIES)}")
    try:
        study = STUDIES[kind](**content)
        _ = study.columns
    except StudyError as error:
        raise StudyError(f"{name}: {error}") from error
    except ValidationError as error:
        raise StudyError("\n".join(f"{name}: {line}" for line in explain(error, STUDIES[kind]))) from error
    return study


def read(path: Path) -> Study:
    """Reads a study file.

    Args:
        path: the file.

    Returns:
        The study.

    Raises:
        StudyError: as :func:`parse`.
        OSError: if it cannot be read.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: it is not in UTF-8 ({error})") from error
