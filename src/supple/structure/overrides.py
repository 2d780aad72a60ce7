"""Initial distributions that the user states: by parameter name, by pattern over names, or by class of module."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import cast, get_args

from torch import nn

from supple.functional.initial import Distribution, Drawn

Overrides = Mapping[str | type[nn.Module], Distribution | Mapping[str, Distribution]]


def nearest(name: str, names: Iterable[str]) -> str:
    """A question that names the nearest of some names.

    Args:
        name: a name that is not among them.
        names: the names there are.

    Returns:
        ``"; did you mean 'fc.weight'?"``, or the first few names where none is near, or nothing where there are none.
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(map(repr, names[:5]))}{' and others' if len(names) > 5 else ''}" if names else ""


def checked(value: object, what: str) -> Distribution:
    """The value, if it is one of the distributions of this package.

    Another class is refused, a subclass too: only these can be saved and loaded with the state of a method.

    Args:
        value: what was given.
        what: what it was given for, for the error.

    Returns:
        The value.

    Raises:
        TypeError: if it is none.
    """
    if type(value) not in get_args(Drawn):
        raise TypeError(
            f"{what} is {value!r}, none of the distributions there are; use supple.Constant, supple.Normal, "
            "supple.Uniform or supple.TruncatedNormal, as in supple.Normal(0.0, 0.02)"
        )
    return cast(Distribution, value)


def resolve(model: nn.Module, overrides: Overrides) -> dict[str, Distribution]:
    """Finds the parameters that overrides speak of.

    Args:
        model: the model.
        overrides: by parameter name; by glob pattern over names, such as ``"encoder.*.weight"``; or by class of module,
            which means the direct parameters of every module of that class or a subclass, with one distribution for all
            or a mapping from names relative to the module. A name counts more than a pattern and a pattern more than a
            class; among equals the later counts.

    Returns:
        Distribution by parameter name, as in ``model.named_parameters()``. A shared parameter may be spoken of by any
        of its names.

    Raises:
        ValueError: if a key matches no parameter.
        TypeError: if a key is neither a string nor a class of module, or a value no distribution.
    """
    if not isinstance(overrides, Mapping):
        raise TypeError(
            f"initial distributions are given as {overrides!r:.60}; give a dict by parameter name, pattern or class of "
            "module, such as {'fc.weight': supple.Normal(0.0, 0.02)}"
        )
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    ranked: list[dict[str, Distribution]] = [{}, {}, {}]  # by class, by pattern, by name
    for key, value in overrides.items():
        names = names_matching(model, key)
        if isinstance(key, str):
            distribution = checked(value, f"the override of {key!r}")
            ranked[2 if key in every else 1].update(dict.fromkeys(names, distribution))
        else:
            ranked[0].update(_by_class(model, first, key, value))
    return {**ranked[0], **ranked[1], **ranked[2]}


def names_matching(model: nn.Module, key: str | type[nn.Module], what: str = "override key") -> list[str]:
    """The parameters that a key speaks of.

    Args:
        model: the model.
        key: a parameter name; a glob pattern over names; or a class of module, which means the direct parameters of
            every module of that class or a subclass.
        what: what the key was given for, for the error.

    Returns:
        Names as in ``model.named_parameters()``, each once. A shared parameter may be spoken of by any of its names.

    Raises:
        ValueError: if the key matches no parameter.
        TypeError: if the key is neither a string nor a class of module.
    """
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    if isinstance(key, type) and issubclass(key, nn.Module):
        modules = [module for module in model.modules() if isinstance(module, key)]
        found = dict.fromkeys(first[id(p)] for module in modules for p in module.parameters(recurse=False))
        if not found:
            classes = {type(m).__name__ for m in model.modules() if next(m.parameters(recurse=False), None) is not None}
            near = nearest(key.__name__, sorted(classes))
            raise ValueError(f"{what} {key.__name__} matches no module with parameters of its own{near}")
        return list(found)
    if not isinstance(key, str):
        raise TypeError(f"{what} {key!r} is neither a parameter name, a pattern, nor a class of module")
    every = {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}
    if key in every:
        return [every[key]]
    matches = [name for name in every if fnmatchcase(name, key)] if any(c in key for c in "*?[") else []
    if not matches:
        raise ValueError(f"{what} {key!r} matches no parameter of the model{nearest(key, every)}")
    return list(dict.fromkeys(every[name] for name in matches))


def _by_class(
    model: nn.Module,
    first: Mapping[int, str],
    key: type[nn.Module],
    value: Distribution | Mapping[str, Distribution],
) -> Iterator[tuple[str, Distribution]]:
    modules = [module for module in model.modules() if isinstance(module, key)]
    direct = [dict(module.named_parameters(recurse=False)) for module in modules]
    relative = list(dict.fromkeys(name for parameters in direct for name in parameters))
    given = value if isinstance(value, Mapping) else dict.fromkeys(relative, value)
    for name, distribution in given.items():
        if not isinstance(name, str):
            raise TypeError(f"{name!r:.60} is no name of a parameter of {key.__name__}")
        if name not in relative:
            raise ValueError(f"no {key.__name__} of the model has a parameter {name!r}{nearest(name, relative)}")
        checked(distribution, f"the override of {name!r} of {key.__name__}")
        yield from ((first[id(parameters[name])], distribution) for parameters in direct if name in parameters)
