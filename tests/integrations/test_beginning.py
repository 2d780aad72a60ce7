"""The values before training, put back for a moment while a method is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import numbers, train, unchanged, values
from torch import nn

from supple.integrations.beginning import Beginning


def normalized() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def one_step(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    train(model, optimizer, None, [(numbers(0, 5, 3),)], lambda model, x: model(x).sum())
    return optimizer


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("before", [lambda m: m, compiled])
@pytest.mark.parametrize("after", [lambda m: m, compiled])
def test_first_values_are_there_for_a_moment_however_it_is_wrapped(before: Any, after: Any) -> None:
    model = normalized()
    first = values(model)
    beginning = Beginning(before(model))
    optimizer = one_step(model)
    trained = values(model)
    state = optimizer.state
    assert not unchanged(model, first)
    with beginning.again(after(model), optimizer):
        assert unchanged(model, first)
        assert not optimizer.state
    assert unchanged(model, trained)
    assert optimizer.state is state


def test_parameters_shared_since_then_have_both_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    beginning = Beginning(model)
    model[1].weight = model[0].weight
    with beginning.again(model, one_step(model)):
        pass


def test_a_name_that_is_gone_is_an_error() -> None:
    model = normalized()
    beginning = Beginning(model)
    del model[2]
    with pytest.raises(ValueError, match=r"no longer has 2\.weight, 2\.bias"), beginning.again(model, one_step(model)):
        pass


def test_a_shape_that_changed_leaves_the_trained_values() -> None:
    model = normalized()
    beginning = Beginning(model)
    model[2] = nn.Linear(4, 7)
    optimizer = one_step(model)
    trained = values(model)
    state = optimizer.state
    with pytest.raises(RuntimeError), beginning.again(model, optimizer):
        pass
    assert unchanged(model, trained)
    assert optimizer.state is state
