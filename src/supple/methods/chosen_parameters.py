"""Which parameters of a network a method acts on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from supple.functional.sharding import block_of
from supple.structure.overrides import names_matching

Selector = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
"""A parameter name or glob pattern, a class of module (its direct parameters), or a function of name and parameter."""

Selectors = Selector | Sequence[Selector]


def chosen_parameters(
    model: nn.Module, include: Selectors | None = None, exclude: Selectors | None = None
) -> dict[str, nn.Parameter]:
    """The parameters that a method acts on: those that train, are included and are not excluded.

    Args:
        model: the network.
        include: which parameters; None: all. A shared parameter may be spoken of by any of its names.
        exclude: which of them not.

    Returns:
        Parameters by name as in ``model.named_parameters()``, shared ones once.

    Raises:
        ValueError: if none are left, a selector that is a name, pattern or class matches nothing, or one of them cannot
            be acted on: it is no real floating-point tensor, lies on another device than the others, or is sharded in
            another way than in blocks.
        TypeError: if a selector is of another kind.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad=True; there is nothing to act on")
    included = set(trained) if include is None else _matching(model, include, "include")
    excluded = set() if exclude is None else _matching(model, exclude, "exclude")
    chosen = {name: p for name, p in trained.items() if name in included and name not in excluded}
    if not chosen:
        raise ValueError(
            f"include and exclude leave no parameter of this {type(model).__name__} that trains; there is nothing to "
            "act on"
        )
    _check(chosen)
    return chosen


def _matching(model: nn.Module, selectors: Selectors, what: str) -> set[str]:
    single = isinstance(selectors, str) or callable(selectors)
    names: set[str] = set()
    for selector in [selectors] if single else selectors:  # type: ignore[union-attr]
        if isinstance(selector, str | type):
            names |= set(names_matching(model, selector, what))
        elif callable(selector):
            names |= {name for name, parameter in model.named_parameters() if selector(name, parameter)}
        else:
            raise TypeError(
                f"{what} {selector!r} is neither a parameter name, a pattern, a class of module, nor a function of "
                "name and parameter"
            )
    return names


def _check(parameters: dict[str, nn.Parameter]) -> None:
    """Refuses parameters that cannot be acted on."""
    first = next(iter(parameters))
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise ValueError(
                f"parameter {name} is {parameter.dtype}; only real floating-point parameters can be acted on. Leave it "
                f"out with exclude={name!r} where the method has it, or freeze it with requires_grad_(False)"
            )
        if parameter.device != parameters[first].device:
            raise ValueError(
                f"the parameters lie on several devices: {first} on {parameters[first].device}, {name} on "
                f"{parameter.device}. Make one method for the parameters of each device, with include=..., or move the "
                "network to one device first"
            )
        try:
            block_of(parameter)
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}") from error
