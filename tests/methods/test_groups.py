"""What finds a parameter's group in an optimizer notices every way in which groups change."""

from typing import Any

import torch
from torch import nn

from supple.methods.optimizer_parts import GroupsByParameter


def parameters(number: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(2)) for _ in range(number)]


def slow(optimizers: list[Any], parameter: nn.Parameter) -> list[tuple[int, dict[str, Any]]]:
    """Looks through everything."""
    return [
        (place, group)
        for place, one in enumerate(optimizers)
        for group in one.param_groups
        if any(parameter is held for held in group["params"])
    ]


class Renewing:
    """A wrapper that makes the list of its groups anew each time it is asked."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return list(self.inner.param_groups)


def test_groups_are_found_whatever_becomes_of_the_optimizers():
    a, b, c, d, e, f = everything = parameters(6)
    first = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.2}], lr=0.1)
    renewing = Renewing(torch.optim.SGD([c], lr=0.3))
    optimizers, groups = [first, renewing], GroupsByParameter()

    def check() -> None:
        for parameter in everything:
            found, expected = groups.of(optimizers, parameter), slow(optimizers, parameter)
            assert len(found) == len(expected)
            assert all(p == q and g is h for (p, g), (q, h) in zip(found, expected, strict=True))

    check()
    check()
    first.add_param_group({"params": [d]})
    check()
    first.param_groups[0]["params"].append(e)
    check()
    first.load_state_dict(first.state_dict())
    check()
    renewing.param_groups[0]["params"].append(f)
    check()
    renewing.inner.load_state_dict(renewing.inner.state_dict())
    check()


def test_a_parameter_that_no_optimizer_holds_costs_no_new_table():
    held, strange = parameters(2)
    optimizers, groups = [torch.optim.SGD([held], lr=0.1)], GroupsByParameter()
    assert groups.of(optimizers, held)
    table = groups._found
    assert not groups.of(optimizers, strange)
    assert groups._found is table
