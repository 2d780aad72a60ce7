"""The methods that a study can name: those of the registry, one of your own, plain training, and resets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import torch

from supple.lab.nn import StackedMLP
from supple.lab.population.class_incremental import RESETS
from supple.lab.study.errors import did_you_mean, nearest
from supple.methods import Method, registry

BASE, RESET = "base", "reset"
"""Plain training, and drawing parts of the network again at each addition of classes, which its setting ``parts``
names, such as "network" or "head+momentum"."""


def method_class(kind: Any) -> type[Method] | None:
    """The class of a method; None where nothing acts between steps. ValueError if there is no such method."""
    if kind in (BASE, RESET):
        return None
    if not isinstance(kind, str) or (":" not in kind and kind not in registry.METHODS):
        known = [BASE, *registry.METHODS, RESET]
        raise ValueError(f"{nearest(kind, known)} One of your own is named package.module:Class.")
    found = registry.find(kind)
    if found.loops_only:
        raise ValueError(
            f"{kind} needs {found.loops_only}, which a study does not give it; use it in a loop of your own."
        )
    return found


def defaults(kind: str) -> dict[str, Any]:
    """The settings of a method that a study can give, with their defaults."""
    found = method_class(kind)
    if found is None:
        return {"parts": "network"} if kind == RESET else {}
    return registry.defaults(found)


def settings_in_full(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the defaults of those that are not given; equal settings are equal values, 1 and 1.0 among them."""
    found = {name: _as(default, given.get(name, default)) for name, default in defaults(kind).items()}
    if kind == RESET:
        found["parts"] = "+".join(part for part in RESETS if part in found["parts"].split("+"))
    return found


def _as(default: Any, value: Any) -> Any:
    """A value in the type of a setting's default, where it is the same number in that type."""
    if isinstance(value, float) and isinstance(default, int) and value.is_integer():
        return int(value)
    return float(value) if isinstance(value, int) and isinstance(default, float) else value


def check_settings(kind: str, settings: Mapping[str, Any], parts: Sequence[str] = RESETS) -> None:
    """Checks settings by making the method for a very small network; ``parts`` are what can be reset.

    Raises TypeError if one is of another type, and ValueError if one is unknown or out of range.
    """
    known = defaults(kind)
    for name, value in settings.items():
        if name not in known:
            has = f"{kind} has {', '.join(known)}" if known else f"{kind} has no settings"
            raise ValueError(f"there is no setting {name!r}.{did_you_mean(name, known)} {has}.")
        _check_type(name, value, known[name])
    if kind == RESET:
        for part in str(settings.get("parts", "network")).split("+"):
            if part not in parts:
                raise ValueError(f"parts: {nearest(part, parts)} Several are joined by +.")
    _check_by_making(kind, tuple(settings.items()))


def _check_type(name: str, value: Any, default: Any) -> None:
    """Checks that a setting is a switch, a number or a word where its default is one."""
    if isinstance(default, bool):
        fits, what = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        fits, what = isinstance(value, str), "a word"
    else:
        fits, what = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    if not fits:
        raise TypeError(f"{name} is {value!r}; it has to be {what}, such as {default!r}, its default")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is {value}, which does not fit into 64 bits")


@lru_cache(maxsize=4096)
def _check_by_making(kind: str, settings: tuple[tuple[str, Any], ...]) -> None:
    make: Any = method_class(kind)
    if make is not None:
        network = _small_network()
        make(network, torch.optim.SGD(network.parameters(), lr=0.1), **dict(settings)).close()


@cache
def _small_network() -> StackedMLP:
    return StackedMLP([0], inputs=2, hidden=2, outputs=2, depth=2, layer_norm="after")
