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
    kind = "swr"                        # where the name is not that of the method; "package.module:Class": your own
    reinit = "mean"

    [methods.tanh]
    kind = "base"
    network.activation = "tanh"         # what differs from the network and the optimizer of the study
    optimizer.step_size = [0.05, 0.01]
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from supple.lab import limits
from supple.lab.population.class_incremental import RESETS, resets
from supple.lab.study.errors import StudyError, explain, nearest
from supple.lab.study.methods import RESET, check_settings, method_class, settings_in_full
from supple.lab.study.schema import (
    AnyNetwork,
    AnyOptimizer,
    ClassIncremental,
    ImageNetwork,
    Length,
    Measure,
    MeasureAdditions,
    MeasureOwn,
    Network,
    Optimizer,
    Own,
    Permuted,
    ResidualNetwork,
    ScheduledSGD,
    Section,
    Settings,
    Transformer,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_AnySection = TypeVar("_AnySection", bound=Section)


@dataclass(frozen=True)
class Column:
    """One thing that is compared: a method with its settings, and the network and optimizer it is used with.

    ``method`` is the name that the study gives it, ``kind`` the method's own; ``settings`` are all of the method's.
    ``point`` is the values that a grid has here, as text; empty where there is no grid.
    """

    method: str
    kind: str
    settings: Mapping[str, Any]
    network: AnyNetwork
    optimizer: AnyOptimizer
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


class Study(Section):
    """A study: what is compared on what, how often and for how long. Made by :func:`parse` or :func:`from_dict`.

    The network and the optimizer are those where a method says nothing else.
    """

    title: str
    source: str = ""
    # Its sections are made of tables, not given as such.
    model_config = ConfigDict(strict=False)

    problem: Permuted | ClassIncremental | Own
    network: AnyNetwork
    optimizer: AnyOptimizer
    run: Length
    measure: Measure | MeasureAdditions | MeasureOwn
    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All that is compared: the points of the grids of all methods, in order."""
        found: dict[str, Column] = {}
        count = sum(math.prod(len(values) for _, values in _axes(entry, ())) for entry in self.methods.values())
        try:
            limits.check_runs(count * len(self.run.seeds))
        except ValueError as error:
            raise StudyError(f"methods: {error}") from error
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
        try:
            method_class(kind)
        except ValueError as error:
            remedy = "" if "kind" in point.values else f' Where {name} is your own name, add kind = "...".'
            raise StudyError(f"{where}: {error}{remedy}") from error
        sections = {part: given.pop(part, {}) for part in ("network", "optimizer")}
        for part, section in sections.items():
            if not isinstance(section, dict):
                raise StudyError(f"{where}.{part} is {section!r}; it has to be a table, such as {part}.hidden = 10")
        network = _changed(self.network, sections["network"], f"{where}.network")
        optimizer = _changed(self.optimizer, sections["optimizer"], f"{where}.optimizer")
        if kind == RESET and not isinstance(self.problem, ClassIncremental):
            raise StudyError(
                f"{where}: {kind} is for problems of kind 'class_incremental', but this one is {self.problem.kind!r}"
            )
        try:
            check_settings(kind, given, resets(network) if isinstance(network, ImageNetwork) else RESETS)
        except (TypeError, ValueError) as error:
            raise StudyError(f"{where}: {error}") from error
        if isinstance(self.problem, ClassIncremental) and isinstance(network, ImageNetwork):
            try:
                network.parameter_count(self.problem)
            except ValueError as error:
                place = f"{where}.network" if sections["network"] else "network"
                raise StudyError(f"{place}: {error}") from error
        return Column(name, kind, settings_in_full(kind, given), network, optimizer, point.text)


class PermutedStudy(Study):
    """A study of tasks that are permuted images, learned by multilayer perceptrons."""

    problem: Permuted = Permuted()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    measure: Measure = Measure()


def _network_kind(given: Any) -> str:
    named = isinstance(given, ResidualNetwork) or (isinstance(given, Mapping) and "kind" in given)
    return "resnet" if named else "transformer"


class ClassIncrementalStudy(Study):
    """A study of classes that come a few at a time, learned by vision transformers or residual networks."""

    problem: ClassIncremental
    network: Annotated[
        Annotated[Transformer, Tag("transformer")] | Annotated[ResidualNetwork, Tag("resnet")],
        Discriminator(_network_kind),
    ] = Transformer()
    optimizer: ScheduledSGD = ScheduledSGD()
    measure: MeasureAdditions = MeasureAdditions()

    @model_validator(mode="after")
    def _as_many_tasks(self) -> ClassIncrementalStudy:
        problem = self.problem
        if self.run.tasks > problem.tasks:
            raise ValueError(
                f"run.tasks is {self.run.tasks}, but {problem.first} classes of {problem.data} at first and "
                f"{problem.step} more each time make {problem.tasks} tasks"
            )
        return self


class OwnStudy(Study):
    """A study of a problem of one's own: any network, optimizer, stream and loss."""

    problem: Own
    network: Settings = Settings()
    optimizer: Settings = Settings()
    measure: MeasureOwn = MeasureOwn()

    @model_validator(mode="before")
    @classmethod
    def _named(cls, content: Any) -> Any:
        """Takes the name of a factory alone for a problem without arguments."""
        if isinstance(content, dict) and isinstance(content.get("problem"), str):
            return {**content, "problem": {"kind": content["problem"]}}
        return content


STUDIES: Mapping[str, type[Study]] = {
    "permuted": PermutedStudy,
    "class_incremental": ClassIncrementalStudy,
    "own": OwnStudy,
}
"""The kinds of studies, by the kind of their problem; one that is named package.module:factory is of one's own."""


def study_class(problem: Any) -> type[Study]:
    """The kind of study for what a study says of its problem; ValueError if there is no such kind."""
    kind = problem.get("kind", "permuted") if isinstance(problem, Mapping) else problem
    if isinstance(kind, str) and ":" in kind:
        return OwnStudy
    kind = "permuted" if problem is None or not isinstance(problem, Mapping | str) else kind
    if not isinstance(kind, str) or kind not in STUDIES:
        raise ValueError(
            f"problem.kind: {nearest(kind, [one for one in STUDIES if one != 'own'])} "
            "One of your own is named package.module:factory."
        )
    return STUDIES[kind]


def kind_of(study: Study) -> str:
    """The kind of a study, a key of :data:`STUDIES`."""
    return "own" if isinstance(study, OwnStudy) else study.problem.kind


def _changed(section: _AnySection, changes: Mapping[str, Any], where: str) -> _AnySection:
    """A section in which some settings are others."""
    known = getattr(section, "kind", None)
    if isinstance(section, ImageNetwork) and changes.get("kind", known) != known:
        raise StudyError(f"{where}.kind: all runs of a study have the kind of [network]; write a study file for each")
    try:
        return type(section)(**{**section.model_dump(), **changes})
    except ValidationError as error:
        raise StudyError("; ".join(explain(error, type(section), where))) from error


@dataclass(frozen=True)
class Point:
    """One choice of a value from each list of a grid; its text is such as "factor=1e-05, frequency=256"."""

    values: Mapping[str, Any]
    text: str


def expand(entry: Mapping[str, Any]) -> list[Point]:
    """The points of a grid: each value of each list with each value of the others; the first list changes slowest.

    A list that stands for itself, betas of an optimizer, is a grid only where it is a list of lists.
    """
    axes = list(_axes(entry, ()))
    for path, values in axes:
        if not values:
            raise ValueError(f"{'.'.join(path)}: the list is empty; give one value or more")
    points = []
    for chosen in itertools.product(*(values for _, values in axes)):
        point = copy.deepcopy(dict(entry))
        for (path, _), value in zip(axes, chosen, strict=True):
            target = point
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = value
        text = ", ".join(f"{'.'.join(path)}={_show(value)}" for (path, _), value in zip(axes, chosen, strict=True))
        points.append(Point(point, text))
    return points


def _axes(entry: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from _axes(value, (*path, name))
        elif isinstance(value, list) and (name != "betas" or any(isinstance(one, list) for one in value)):
            yield (*path, name), value


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def read(path: Path) -> Study:
    """Reads a study file. StudyError if it cannot be run, OSError if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: it is not in UTF-8 ({error})") from error


def parse(text: str, name: str) -> Study:
    """Reads the TOML text of a study file; the name is for messages."""
    try:
        # Some editors begin a file with a mark of the order of its bytes.
        content = tomllib.loads(text.removeprefix("\ufeff"))
        return from_dict(content, name)
    except StudyError:
        raise
    except ValueError as error:  # also of a number with too many digits
        raise StudyError(f"{name}: {error}") from error
    except RecursionError as error:
        raise StudyError(f"{name}: its lists or tables are nested too deeply") from error


def from_dict(content: Mapping[str, Any], name: str) -> Study:
    """Makes a study of what a study file holds; the name is for messages."""
    try:
        kind = study_class(content.get("problem"))
        study = kind(**content)
        _ = study.columns
    except ValidationError as error:
        raise StudyError("\n".join(f"{name}: {line}" for line in explain(error, kind))) from error
    except ValueError as error:
        raise StudyError(f"{name}: {error}") from error
    return study
