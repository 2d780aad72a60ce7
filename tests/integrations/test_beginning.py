"""The values before training, put back for a moment while a method is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from supple.integrations.beginning import Beginning


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return optimizer


def same(model: nn.Module, values: dict[str, Any]) -> bool:
    return all(torch.equal(value, values[name]) for name, value in model.state_dict().items())


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("before", [lambda m: m, compiled])
@pytest.mark.parametrize("after", [lambda m: m, compiled])
def test_first_values_are_there_for_a_moment_however_it_is_wrapped(before: Any, after: Any) -> None:
    model = network()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    beginning = Beginning(before(model))
    optimizer = train(model)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    state = optimizer.state
    assert not same(model, first)
    with beginning.again(after(model), optimizer):
        assert same(model, first)
        assert not optimizer.state
    assert same(model, trained)
    assert optimizer.state is state


def test_parameters_shared_since_then_have_both_names() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    beginning = Beginning(model)
    model[1].weight = model[0].weight
    with beginning.again(model, train(model)):
        pass


def test_a_name_that_is_gone_is_an_error() -> None:
    model = network()
    beginning = Beginning(model)
    del model[2]
    with pytest.raises(ValueError, match=r"no longer has 2\.weight, 2\.bias"), beginning.again(model, train(model)):
        pass


def test_a_shape_that_changed_leaves_the_trained_values() -> None:
    model = network()
    beginning = Beginning(model)
    model[2] = nn.Linear(4, 7)
    optimizer = train(model)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    state = optimizer.state
    with pytest.raises(RuntimeError), beginning.again(model, optimizer):
        pass
    assert same(model, trained)
    assert optimizer.state is state
