"""The methods by name, for whatever lists, compares or documents them.

A method states in its class what there is to know of it (:class:`supple.methods.base.About`); here it takes one line.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from importlib.metadata import entry_points
from typing import Any

from supple.methods.arguments import did_you_mean
from supple.methods.base import Method
from supple.methods.c_chain import CChain
from supple.methods.cbp import CBP
from supple.methods.cpr import CPR
from supple.methods.dash import DASH
from supple.methods.fire import FIRE
from supple.methods.hare_and_tortoise import HareAndTortoise
from supple.methods.infer import InFeR
from supple.methods.isometry import Isometry
from supple.methods.l2 import L2
from supple.methods.l2_init import L2Init
from supple.methods.nap import NaP
from supple.methods.parseval import Parseval
from supple.methods.redo import ReDo
from supple.methods.regrama import ReGraMa
from supple.methods.reset import Reset
from supple.methods.shrink_and_perturb import ShrinkAndPerturb
from supple.methods.shrink_and_redraw import ShrinkAndRedraw
from supple.methods.snr import SNR
from supple.methods.spectral import Spectral
from supple.methods.swr import SWR
from supple.methods.trac import TRAC
from supple.methods.upgd import UPGD
from supple.methods.wasserstein import Wasserstein
from supple.methods.weight_clipping import WeightClipping

METHODS: dict[str, type[Method]] = {
    method.about.name: method
    for method in (
        L2,
        ShrinkAndPerturb,
        CBP,
        ReDo,
        SWR,
        ReGraMa,
        SNR,
        CPR,
        L2Init,
        Wasserstein,
        WeightClipping,
        NaP,
        Isometry,
        Parseval,
        Spectral,
        FIRE,
        ShrinkAndRedraw,
        DASH,
        HareAndTortoise,
        Reset,
        UPGD,
        TRAC,
        CChain,
        InFeR,
    )
}
"""The methods by name, in the order in which they are listed: those of the package, then those of other packages."""


def _add_those_of_other_packages() -> None:
    """Adds the methods that installed packages name as entry points of the group "supple.methods"."""
    for entry in entry_points(group="supple.methods"):
        try:
            method = _checked(entry.value, entry.load())
            if method.about.name in METHODS:
                raise ValueError(f"there is a method {method.about.name!r} already")
            METHODS[method.about.name] = method
        except Exception as error:  # another package's fault is no reason to go without the methods of this one
            warnings.warn(f"the method {entry.value} of another package is left out: {error}", stacklevel=2)


def _checked(name: str, found: Any) -> type[Method]:
    if not (isinstance(found, type) and issubclass(found, Method) and hasattr(found, "about")):
        raise ValueError(f"{name!r} is no supple.Method that states what it is in a class attribute about")
    return found


def find(name: str) -> type[Method]:
    """Finds a method by its name, or a method of your own by where it is.

    Args:
        name: one of :data:`METHODS`, or "package.module:Class" of a method that is not in the package.

    Returns:
        The class.

    Raises:
        ValueError: if there is no such method; the message suggests the nearest name.

    Example:
        >>> from supple.methods.registry import find
        >>> find("swr").about.title
        'selective weight reinitialization'
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        hint = did_you_mean(name, METHODS, alike=0.4)
        raise ValueError(
            f"there is no method {name!r}.{hint} There are {', '.join(METHODS)}; one of your own is "
            "named package.module:Class"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"method {name!r} cannot be imported: {error}") from error
    return _checked(name, found)


def defaults(method: type[Method]) -> dict[str, Any]:
    """The settings of a method that a file can state: numbers, words and switches.

    Args:
        method: the class.

    Returns:
        The defaults by name.

    Example:
        >>> from supple.methods.registry import defaults
        >>> defaults(supple.L2)
        {'l2': 0.0001}
    """
    parameters = inspect.signature(method).parameters.values()
    # What is best for an optimizer may come to be another; results of a study belong to what was done.
    found = {one.name: "keep" if one.name == "optimizer_state" else one.default for one in parameters}
    return {name: default for name, default in found.items() if isinstance(default, bool | int | float | str)}


def differs_by_replica(method: type[Method], setting: str) -> bool:
    """Whether a setting may differ by replica within one method object: numbers may, words and switches may not.

    Args:
        method: the class.
        setting: one of its settings.

    Returns:
        The answer.
    """
    default = defaults(method)[setting]
    return setting not in method.about.common and isinstance(default, int | float) and not isinstance(default, bool)


_add_those_of_other_packages()
