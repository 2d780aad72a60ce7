"""What a method says of itself, and its settings: how they are given, checked and shown."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

from torch import Tensor

from supple.methods.arguments import Selectors, choice, in_range, one_a_replica
from supple.methods.optimizer_state import OptimizerState
from supple.optim.replicated import Setting
from supple.structure.overrides import Overrides


@dataclass(frozen=True)
class About:
    """What studies, reports and the documentation need to know of a method; stated in its class as ``about``.

    Args:
        name: as study files name it, such as "swr".
        label: as figures and tables name it, such as "SWR".
        title: its name in full.
        colour: of its lines on a light background, as "#rrggbb".
        dark: the same on a dark background.
        strength: the settings that switch it off where they are all 0.
        source: where it is from: paper and section.
        needs: what its step needs besides :meth:`Method.step`: gradients, features, a call of its own.
        keeps: the memory that it keeps beside the network.
        cost: what it adds to training steps on average, as shares of a plain step: of a ResNet-18 and of a transformer,
            as ``benchmarks/training_step.py`` measures them on a CPU; empty: not measured.
        since: the version of supple that has it first.
        common: settings that are numbers and yet the same for all replicas of one population.
        ranges: where settings are looked for: the lowest and the highest number, or more than two values.
    """

    name: str
    label: str
    title: str
    colour: str
    dark: str
    strength: tuple[str, ...]
    source: str
    needs: str = "nothing"
    keeps: str = "nothing"
    cost: tuple[float, ...] = ()
    since: str = "0.2"
    common: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, ...] | tuple[str, ...]] = field(default_factory=dict)

    @property
    def cost_text(self) -> str:
        """The cost in words, such as "0.4% / 1.2%"."""
        return " / ".join(f"{share:.1%}" for share in self.cost) or "not measured"


class Shared(TypedDict, total=False):
    """The keyword arguments that methods share; :class:`Method` describes them."""

    include: Selectors | None
    exclude: Selectors | None
    seed: int | Sequence[int] | Tensor | None


class SharedInitial(Shared, total=False):
    """Those that methods share that have to know initial distributions."""

    initial: Overrides | None


class SharedReplacing(SharedInitial, total=False):
    """Those that methods share that replace values."""

    optimizer_state: OptimizerState | None


class Settings(ABC):
    """The part of every method that takes its settings.

    Attributes:
        settings: them by name, as they were given.
    """

    __signature__: ClassVar[inspect.Signature]
    replaces: ClassVar[bool]
    knows_initial: ClassVar[bool]
    settings: dict[str, Any]
    replicas: int
    stacked: bool

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Shows the arguments that a method shares with others in its signature, with its own."""
        super().__init_subclass__(**arguments)
        own = [*inspect.signature(cls.__init__).parameters.values()][1:]
        if own and own[-1].kind is inspect.Parameter.VAR_KEYWORD:
            names = {one.name for one in own} | (set() if cls.replaces else {"optimizer_state"})
            names |= set() if cls.replaces or cls.knows_initial else {"initial"}
            # A method made from another has that one's settings only where it says so.
            base = next(one for one in cls.__mro__[1:] if "about" not in vars(one))
            inherited = inspect.signature(base).parameters.values()
            shared = [one for one in inherited if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name not in names]
            own[-1:] = [] if own[-1].name == "unknown" else shared
        cls.__signature__ = inspect.Signature(own)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={_show(value)}' for name, value in self.settings.items())})"

    def setting(self, name: str, value: Setting, low: float, high: float = float("inf"), whole: bool = False) -> Tensor:
        """Checks a numeric setting and keeps it for ``repr``.

        Args:
            name: name of the setting, for the message.
            value: a number, or one a replica.
            low: the smallest value allowed.
            high: the largest value allowed.
            whole: whether it has to be a whole number.

        Returns:
            float64 [R] on the CPU (int64 where ``whole``).

        Raises:
            TypeError: if it is no number.
            ValueError: if it is out of range.
        """
        self.settings[name] = value
        numbers = one_a_replica(name, value, self.replicas if self.stacked else None, "number")
        return in_range(name, numbers, low, high, whole).expand(self.replicas)

    def option(self, name: str, value: str, allowed: Iterable[str]) -> str:
        """Checks a setting that is one of several words and keeps it for ``repr``.

        Args:
            name: name of the setting, for the message.
            value: the word.
            allowed: the words allowed.

        Returns:
            The word.

        Raises:
            ValueError: if it is none of them.
        """
        self.settings[name] = choice(name, value, tuple(allowed))
        return value

    def switch(self, name: str, value: bool) -> bool:
        """Checks a setting that is on or off and keeps it for ``repr``.

        Args:
            name: name of the setting, for the message.
            value: True or False.

        Returns:
            The value.

        Raises:
            TypeError: if it is neither.
        """
        # "false" and 0 are neither.
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; it has to be True or False")
        self.settings[name] = value
        return value


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_show, value))}]"
    return value.__name__ if isinstance(value, type) else repr(value)
