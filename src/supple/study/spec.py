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

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from supple.data import NAMES
from supple.nn import ACTIVATIONS, Architecture
from supple.study.grid import Point, expand
from supple.study.kinds import KINDS, check_settings
from supple.study.mistakes import StudyError, explain, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _one_of(known: Iterable[str]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise ValueError(nearest(value, known))
        return value

    return BeforeValidator(check)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_AnyTable = TypeVar("_AnyTable", bound=_Table)


class Problem(_Table):
    """The tasks.

    Attributes:
        kind: "permuted", the only one there is: each task its own order of the pixels.
        data: the images; one of :data:`supple.data.NAMES`.
        batch_size: images a batch.
    """

    kind: Annotated[Literal["permuted"], _one_of(["permuted"])] = "permuted"
    data: Annotated[str, _one_of(NAMES)] = "mnist"
    batch_size: int = Field(default=30, ge=1)


class Network(_Table):
    """The network; see :class:`supple.nn.Architecture`. Its inputs and outputs are those that the problem needs.

    Attributes:
        hidden: outputs of each hidden layer.
        depth: number of hidden layers.
        activation: one of :data:`supple.nn.ACTIVATIONS`.
        skip: "after" or "before" the activation, or left out.
        layer_norm: "after" or "before" the activation, or left out.
        reparameterized: whether the scale of the normalization is 1 + weight.
    """

    hidden: int = Field(default=100, ge=1)
    depth: int = Field(default=3, ge=1)
    activation: Annotated[str, _one_of(ACTIVATIONS)] = "relu"
    skip: Literal["after", "before"] | None = None
    layer_norm: Literal["after", "before"] | None = None
    reparameterized: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Network:
        self.architecture(1, 1)
        return self

    def architecture(self, inputs: int, outputs: int) -> Architecture:
        """The network for a problem.

        Args:
            inputs: inputs that the problem gives.
            outputs: outputs that the problem asks for.

        Returns:
            Its architecture.
        """
        return Architecture(inputs=inputs, outputs=outputs, **self.model_dump())


class Optimizer(_Table):
    """The optimizer, :class:`supple.optim.SGDW` or :class:`supple.optim.AdamW`.

    Attributes:
        name: "sgd" or "adamw".
        step_size: the step size; may differ within a population.
        weight_decay: share of each weight taken off a step; may differ within a population.
        momentum: of sgd.
        betas: of adamw.
    """

    name: Annotated[Literal["sgd", "adamw"], _one_of(["sgd", "adamw"])] = "sgd"
    step_size: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)

    @model_validator(mode="after")
    def _fits(self) -> Optimizer:
        if self.name == "adamw" and self.momentum:
            raise ValueError("momentum is a setting of sgd; adamw has betas")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; each has to be at least 0 and below 1")
        return self


def _seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"it is {value}; give how many seeds, 1 or more, or a list of them")
        return tuple(range(value))
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("the list is empty; give how many seeds, 1 or more, or a list of them")
        if len(set(value)) < len(value):
            raise ValueError("a seed is given twice; each run has a seed of its own")
    return value


class Length(_Table):
    """How long and how often to train.

    Attributes:
        tasks: tasks of each run.
        seeds: how many (those from 0 on), or which.
    """

    tasks: int = Field(ge=1)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)]


class Measure(_Table):
    """What to measure beside accuracy and loss.

    Attributes:
        examples: number of examples at the start of each task on which dead units and ranks are measured.
        disturbances: at how many steps a task, in each run, to measure what the method's step changes at once. It
            takes two passes over all networks trained together at each step measured, so leave it at 0 in a sweep.
    """

    examples: int = Field(default=1500, ge=1)
    disturbances: int = Field(default=0, ge=0)


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
    network: Network
    optimizer: Optimizer
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


class Study(_Table):
    """A study: what is compared on what, how often and for how long.

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
    problem: Problem = Problem()
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    run: Length
    measure: Measure = Measure()
    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All that is compared: the points of the grids of all methods, in order."""
        return tuple(self._column(name, point) for name, entry in self.methods.items() for point in expand(entry))

    def _column(self, name: str, point: Point) -> Column:
        where = f"methods.{name}"
        given = dict(point.values)
        kind = given.pop("kind", name)
        if kind not in KINDS:
            remedy = "" if "kind" in point.values else f' Where {name} is your own name, add kind = "...".'
            raise StudyError(f"{where}: {nearest(kind, KINDS)}{remedy}")
        tables = {part: given.pop(part, {}) for part in ("network", "optimizer")}
        for part, table in tables.items():
            if not isinstance(table, dict):
                raise StudyError(f"{where}.{part} is {table!r}; it has to be a table, such as {part}.hidden = 10")
        network = _changed(self.network, tables["network"], f"{where}.network")
        optimizer = _changed(self.optimizer, tables["optimizer"], f"{where}.optimizer")
        try:
            check_settings(kind, given)
        except (TypeError, ValueError) as error:
            raise StudyError(f"{where}: {error}") from error
        return Column(name, kind, {**KINDS[kind].defaults, **given}, network, optimizer, point.text)


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
    try:
        study = Study(**content)
        _ = study.columns
    except StudyError as error:
        raise StudyError(f"{name}: {error}") from error
    except ValidationError as error:
        raise StudyError("\n".join(f"{name}: {line}" for line in explain(error, Study))) from error
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
    return parse(path.read_text(encoding="utf-8"), str(path))
