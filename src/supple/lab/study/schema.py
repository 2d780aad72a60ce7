"""The sections of a study file, and what may stand in them; docs/studies.md describes the settings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from supple.lab import limits
from supple.lab.data import DATA_SETS, NAMES
from supple.lab.nn import ACTIVATIONS, Architecture, ResNet, ViT
from supple.lab.population.class_incremental import Schedule
from supple.lab.population.layers import PRECISIONS, Precision
from supple.lab.study.errors import nearest


def _one_of(known: Iterable[str]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in known:
            raise ValueError(nearest(value, known))
        return value

    return BeforeValidator(check)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number."""


class Section(BaseModel):
    """A section of a study file; nothing but its settings may stand in it, each of its own type.

    A word is no number and no switch, and neither is the other; a number that has to be whole may be written as 1e3.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, value in self:
            if isinstance(value, int) and value > limits.LARGEST:
                raise ValueError(f"{name} is {value:,}; no machine holds more than {limits.LARGEST:,}")
        return self


class Permuted(Section):
    """Tasks that are images with their pixels in another order each; see :class:`supple.lab.streams.PermutedStream`."""

    kind: Literal["permuted"] = "permuted"
    data: Annotated[str, _one_of(NAMES)] = "mnist"
    batch_size: Whole = Field(default=30, ge=1)

    @property
    def stages(self) -> int:
        """Stages a task: between two of them training can be taken up."""
        return 1


class ClassIncremental(Section):
    """Classes that come a few at a time; a task is the training between two additions.

    Training images of each class that are used count those for validation; rotation is in degrees. See
    :class:`supple.lab.streams.ClassIncrementalStream`.
    """

    kind: Literal["class_incremental"]
    data: Annotated[str, _one_of(DATA_SETS)] = "cifar100"
    first: Whole = Field(default=5, ge=1)
    step: Whole = Field(default=5, ge=1)
    epochs: Whole = Field(default=100, ge=1)
    batch_size: Whole = Field(default=90, ge=1)
    validation: Whole = Field(default=50, ge=1)
    train_images: Whole | None = Field(default=None, ge=2)
    test_images: Whole | None = Field(default=None, ge=1)
    restore: bool = True
    flip: float = Field(default=0.5, ge=0, le=1)
    padding: Whole = Field(default=4, ge=0)
    rotation: float = Field(default=15.0, ge=0, le=180)

    @model_validator(mode="after")
    def _fits(self) -> ClassIncremental:
        known = DATA_SETS[self.data]
        if self.first > known.classes:
            raise ValueError(f"first is {self.first}, but {self.data} has {known.classes} classes")
        if self.train_images is not None and self.train_images <= self.validation:
            raise ValueError(
                f"train_images is {self.train_images} and validation {self.validation}, which leaves nothing to learn "
                "from; train_images has to be larger"
            )
        if self.padding >= min(known.shape[1:]):
            raise ValueError(f"padding is {self.padding}; it has to be less than the {known.shape[1]} pixels of a side")
        return self

    @property
    def stages(self) -> int:
        """Stages a task: between two of them training can be taken up."""
        return self.epochs

    @property
    def tasks(self) -> int:
        """How many tasks there are: the different numbers of classes."""
        return 1 + -(-(DATA_SETS[self.data].classes - self.first) // self.step)


class Outcome(BaseModel):
    """What runs are compared by.

    Its name, its column in the table of tasks, whether lower is better, and whether it is a share.
    """

    model_config = ConfigDict(frozen=True, strict=True)
    name: str = "accuracy"
    column: Literal["accuracy", "loss", "metric"] = "accuracy"
    lower: bool = False
    share: bool = True


class Own(Section):
    """A problem of one's own, "package.module:factory"; all else are arguments of the factory.

    Of what was given in a call of :func:`supple.lab.compare` the kind is "own".
    """

    model_config = ConfigDict(extra="allow")
    kind: str

    @model_validator(mode="after")
    def _plain(self) -> Own:
        _check_plain(self.arguments, "the factory of the problem")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """What the factory is called with."""
        return dict(self.model_extra or {})

    @property
    def stages(self) -> int:
        """Stages a task: between two of them training can be taken up."""
        return 1


class Settings(Section):
    """What the network or the optimizer of a problem of one's own is made with, by name."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _plain(self) -> Settings:
        _check_plain(self.values, "a network or an optimizer")
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.model_extra or {})


def _check_plain(values: Mapping[str, Any], of: str) -> None:
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"{name} is {value!r}; a setting of {of} is a number, a word or a switch")


class Network(Section):
    """The network; see :class:`supple.lab.nn.Architecture`. Its inputs and outputs are those that the problem needs."""

    hidden: Whole = Field(default=100, ge=1)
    depth: Whole = Field(default=3, ge=1)
    activation: Annotated[str, _one_of(ACTIVATIONS)] = "relu"
    skip: Literal["after", "before"] | None = None
    layer_norm: Literal["after", "before"] | None = None
    reparameterized: bool = False
    inject: Whole | None = None
    precision: Annotated[Precision, _one_of(PRECISIONS)] = "float32"

    @model_validator(mode="after")
    def _fits(self) -> Network:
        self.architecture(1, 1)
        if self.inject is not None and self.precision != "float32":
            raise ValueError(f"precision is {self.precision!r}, but networks with inject compute in float32")
        return self

    def architecture(self, inputs: int, outputs: int) -> Architecture:
        """The network for a problem with so many inputs and outputs."""
        return Architecture(inputs=inputs, outputs=outputs, **self.sizes)

    @property
    def sizes(self) -> dict[str, Any]:
        """What makes the network, without how its products are computed."""
        return self.model_dump(exclude={"precision"})


class ImageNetwork(Section):
    """A network for classes of images that come a few at a time; its images and outputs are those of the problem.

    ``parts`` are those of it that can be reset.
    """

    parts: ClassVar[tuple[str, ...]]

    @abstractmethod
    def network(self, problem: ClassIncremental, seed: int) -> ViT | ResNet:
        """The network for the images and classes of a problem; ValueError where its sizes do not fit."""

    def parameter_count(self, problem: ClassIncremental) -> int:
        """Number of parameters of :meth:`network`, counted without giving them values."""
        return _parameter_count(self, problem)

    def measured(self, problem: ClassIncremental, measure: Callable[[ViT | ResNet], Sequence[int]]) -> list[int]:
        """Numbers of the network that grow with its layers; ``measure`` finds them of one that has no values.

        Layers are alike, so that one and two tell of any number.
        """

        def found(depth: int) -> Sequence[int]:
            with torch.device("meta"):
                return measure(self.model_copy(update={"depth": depth}).network(problem, seed=0))

        depth: int = self.depth  # type: ignore[attr-defined]
        if depth <= 2:
            return list(found(depth))
        return [one + (depth - 1) * (two - one) for one, two in zip(found(1), found(2), strict=True)]


class Transformer(ImageNetwork):
    """The vision transformer; see :class:`supple.lab.nn.ViT`."""

    parts: ClassVar = ViT.parts

    patch_size: Whole = 4
    depth: Whole = 8
    heads: Whole = 12
    width: Whole = 384
    hidden: Whole = 1536
    dropout: float = 0.1
    reparameterized: bool = False
    precision: Annotated[Literal["float32", "bfloat16"], _one_of(["float32", "bfloat16"])] = "float32"
    compiled: bool = False

    def network(self, problem: ClassIncremental, seed: int) -> ViT:
        """The network for the images and classes of a problem; ValueError where its sizes do not fit."""
        source = DATA_SETS[problem.data]
        sizes = self.model_dump(exclude={"precision", "compiled"})
        return ViT(source.classes, image_size=source.shape[1], channels=source.shape[0], seed=seed, **sizes)


def _resnet(value: Any) -> Any:
    if value != "resnet":
        raise ValueError("it has to be 'resnet'; leave it out for a vision transformer")
    return value


class ResidualNetwork(ImageNetwork):
    """The residual network; see :class:`supple.lab.nn.ResNet`."""

    parts: ClassVar = ResNet.parts

    kind: Annotated[Literal["resnet"], BeforeValidator(_resnet)]
    width: Whole = 64
    depth: Whole = 2
    precision: Annotated[Literal["float32", "bfloat16"], _one_of(["float32", "bfloat16"])] = "float32"
    compiled: bool = False

    def network(self, problem: ClassIncremental, seed: int) -> ResNet:
        """The network for the images and classes of a problem; ValueError where its sizes do not fit."""
        source = DATA_SETS[problem.data]
        sizes = self.model_dump(exclude={"kind", "precision", "compiled"})
        return ResNet(source.classes, channels=source.shape[0], seed=seed, **sizes)


@cache
def _parameter_count(section: ImageNetwork, problem: ClassIncremental) -> int:
    try:
        return section.measured(problem, lambda network: [sum(p.numel() for p in network.parameters())])[0]
    except RuntimeError as error:
        raise ValueError(f"it is larger than any memory ({error})") from error


class Optimizer(Section):
    """The optimizer, :class:`supple.optim.SGDW` or :class:`supple.optim.AdamW`.

    Step size and weight decay, the share of each weight taken off a step, may differ within a population.
    """

    name: Annotated[Literal["sgd", "adamw"], _one_of(["sgd", "adamw"])] = "sgd"
    step_size: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.999)

    @model_validator(mode="after")
    def _fits(self) -> Optimizer:
        if self.name == "adamw" and self.momentum:
            raise ValueError("momentum is a setting of sgd; adamw has betas")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; each has to be at least 0 and below 1")
        return self


class ScheduledSGD(Section):
    """``torch.optim.SGD`` under a schedule of the step size, which starts anew with each task.

    With "one_cycle" the weight decay is the share of each weight taken off a step, whatever the step size of the
    moment; with "steps" it is that of the first steps, and falls with the step size. With ``cycle_momentum`` the
    momentum goes from 0.95 down to 0.85 and back, as in ``OneCycleLR`` by default.
    """

    name: Annotated[Literal["sgd"], _one_of(["sgd"])] = "sgd"
    step_size: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=2e-6, ge=0, le=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: Annotated[Schedule, _one_of(get_args(Schedule))] = "one_cycle"
    cycle_momentum: bool = False

    @model_validator(mode="after")
    def _fits(self) -> ScheduledSGD:
        if self.cycle_momentum and self.schedule != "one_cycle":
            raise ValueError(f"cycle_momentum is for the schedule 'one_cycle', but schedule is {self.schedule!r}")
        return self


AnyNetwork = Network | Transformer | ResidualNetwork | Settings
AnyOptimizer = Optimizer | ScheduledSGD | Settings
"""What a study says of its network and its optimizer, by the kind of its problem."""


def _seeds(value: Any) -> Any:
    value = _whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"it is {value}; give how many seeds, 1 or more, or a list of them")
        limits.check_runs(value)
        return tuple(range(value))
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("the list is empty; give how many seeds, 1 or more, or a list of them")
        for seed in value:
            if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**63:
                raise ValueError(f"{seed!r} is no seed; a seed is a whole number of 64 bits")
        if len(set(value)) < len(value):
            raise ValueError("a seed is given twice; each run has a seed of its own")
    return tuple(value) if isinstance(value, list) else value


class Length(Section):
    """How long and how often to train; so many seeds are those from 0 on."""

    tasks: Whole = Field(ge=1)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)]

    @field_validator("tasks")
    @classmethod
    def _room(cls, tasks: int) -> int:
        limits.check_tasks(tasks)
        return tasks


class Measure(Section):
    """What to measure beside accuracy and loss.

    Measuring disturbances takes two passes over all networks trained together at each step measured, so leave it at 0
    in a sweep.
    """

    examples: Whole = Field(default=1500, ge=1)
    disturbances: Whole = Field(default=0, ge=0)


class MeasureOwn(Section):
    """On how many examples of a task, about, dead units and ranks are measured at its start; 0: not at all."""

    examples: Whole = Field(default=1500, ge=0)


class MeasureAdditions(Section):
    """What to measure beside accuracy and loss where classes are added, on how many images of old and of new ones."""

    examples: Whole = Field(default=1000, ge=1)
