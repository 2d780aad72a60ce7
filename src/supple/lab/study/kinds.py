"""The methods that a study can compare, by name, with what a study has to know of them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import torch

from supple.lab.incremental import RESETS
from supple.lab.nn import StackedMLP
from supple.lab.study.mistakes import nearest
from supple.methods import CBP, L2, SWR, Method, ReDo, ShrinkAndPerturb


@dataclass(frozen=True)
class Kind:
    """A method that a study can compare.

    Args:
        make: the class of the method; None where nothing acts between steps.
        strength: the settings that switch the method off where they are 0.
        only: the kind of problem that it is for; None: any.
        own: settings of what has no class, with their defaults.
    """

    make: type[Method] | None
    strength: tuple[str, ...] = ()
    only: str | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings that a study may give, with their defaults."""
        if self.make is None:
            return dict(self.own)
        parameters = inspect.signature(self.make.__init__).parameters.values()
        return {
            parameter.name: parameter.default
            for parameter in parameters
            if isinstance(parameter.default, bool | int | float | str)
        }


KINDS: dict[str, Kind] = {
    "base": Kind(None),
    "l2": Kind(L2, ("l2",)),
    "shrink_and_perturb": Kind(ShrinkAndPerturb, ("l2", "variance")),
    "cbp": Kind(CBP, ("replacement_rate",)),
    "redo": Kind(ReDo, ("threshold",)),
    "swr": Kind(SWR, ("factor",)),
    "reset": Kind(None, only="class_incremental", own={"parts": "network"}),
}
"""The methods by name; base is plain training, and reset draws parts of the network again at each addition of classes.

The setting ``parts`` of reset names them, such as "network" or "head+momentum".
"""


def settings_in_full(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of those that are not given; equal settings are equal values, 1 and 1.0 among them.

    Args:
        kind: one of :data:`KINDS`.
        given: settings that :func:`check_settings` found right.

    Returns:
        All settings.
    """
    found = {}
    for name, default in KINDS[kind].defaults.items():
        value = given.get(name, default)
        number = isinstance(default, int | float) and not isinstance(default, bool)
        found[name] = type(default)(value) if number else value
    if "parts" in found:
        found["parts"] = "+".join(part for part in RESETS if part in found["parts"].split("+"))
    return found


def varies(kind: str, setting: str) -> bool:
    """Whether a setting may differ by replica within one method object: numbers may, words and switches may not.

    A decay may not either, because moving averages would then be kept for all.

    Args:
        kind: one of :data:`KINDS`.
        setting: one of its settings.

    Returns:
        The answer.
    """
    default = KINDS[kind].defaults[setting]
    return setting != "decay" and isinstance(default, int | float) and not isinstance(default, bool)


@cache
def _specimen() -> StackedMLP:
    return StackedMLP([0], inputs=2, hidden=2, outputs=2, depth=2, layer_norm="after")


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """Checks settings by making the method for a very small network.

    Args:
        kind: one of :data:`KINDS`.
        settings: by name.

    Raises:
        TypeError: if one is of another type.
        ValueError: if one is unknown or out of range; the message suggests the nearest name.
    """
    defaults = KINDS[kind].defaults
    for name in settings:
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]}?" if near else ""
            has = f"{kind} has {', '.join(defaults)}" if defaults else f"{kind} has no settings"
            raise ValueError(f"there is no setting {name!r}.{hint} {has}.")
    for part in str(settings.get("parts", "network")).split("+"):
        if part not in RESETS:
            raise ValueError(f"parts: {nearest(part, RESETS)} Several are joined by +.")
    if KINDS[kind].make is not None:
        for name, value in settings.items():
            if not isinstance(value, bool | int | float | str):
                raise TypeError(f"{name} is {value!r}; it has to be like {defaults[name]!r}, its default")
        _made(kind, tuple(settings.items()))


@lru_cache(maxsize=4096)
def _made(kind: str, settings: tuple[tuple[str, Any], ...]) -> None:
    make: Any = KINDS[kind].make
    network = _specimen()
    make(network, torch.optim.SGD(network.parameters(), lr=0.1), **dict(settings)).close()
