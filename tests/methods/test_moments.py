"""Methods that act before the optimizer's step, and at boundaries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import CoupledDecay, Restart
from torch import Tensor, nn

import supple
from supple.lab.nn import StackedMLP
from supple.methods.layer import Layer
from supple.methods.units import UnitMethod


class RestartUnits(UnitMethod):
    """Replaces the first unit of each layer at each boundary."""

    def __init__(self, model: nn.Module, optimizer: Any = None, **shared: Any) -> None:
        super().__init__(model, optimizer, utility="magnitude", **shared)
        self.listen()

    def rule_at_boundary(self, layer: Layer) -> None:
        mask = torch.zeros(self.replicas, layer.group.size, dtype=torch.bool)
        mask[:, 0] = True
        layer.replace(layer.where(mask))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, method: supple.Method | None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        if method is not None:
            method.before_step()
        optimizer.step()
        if method is not None:
            method.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_what_is_added_to_gradients_is_what_the_optimizer_would_add(kind: Any) -> None:
    one, other = network(), network()
    optimizer = kind(one.parameters(), lr=0.05)
    found = train(one, optimizer, supple.chain(CoupledDecay(one, optimizer, l2=0.1), supple.L2(one, l2=0)))
    expected = train(other, kind(other.parameters(), lr=0.05, weight_decay=0.1), None)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_what_is_added_may_differ_by_replica() -> None:
    stack = StackedMLP([0, 0], inputs=3, hidden=4, outputs=2)
    for parameter in stack.parameters():
        parameter.grad = torch.zeros_like(parameter)
    CoupledDecay(stack, l2=[0.0, 0.5]).before_step()
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any()
        assert torch.equal(parameter.grad[1], 0.5 * parameter.detach()[1])


def test_a_method_that_adds_nothing_leaves_gradients_alone() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 6, dtype=torch.float64)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    supple.SWR(model, optimizer).before_step()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True) if p.grad is not None)


def test_each_boundary_draws_other_values_alone_as_in_a_population() -> None:
    stack = StackedMLP([3, 4], inputs=5, hidden=4, outputs=2)
    alone = stack.replica(1)
    together, single = Restart(stack), Restart(alone, seed=4)
    seen = []
    for _ in range(2):
        together.boundary()
        single.boundary()
        seen.append([parameter.detach().clone() for parameter in alone.parameters()])
        for a, b in zip(stack.parameters(), alone.parameters(), strict=True):
            assert torch.equal(a.detach()[1], b.detach())
    weights = [(a, b) for a, b in zip(*seen, strict=True) if a.ndim > 1]
    assert all((a != b).all() for a, b in weights)
    assert together.steps == 0


def test_boundaries_are_saved() -> None:
    one, other = network(), network()
    first, second = Restart(one), Restart(other)
    first.boundary()
    first.boundary()
    second.boundary()
    again = Restart(network())
    again.load_state_dict(second.state_dict())
    again.boundary()
    for a, b in zip(one.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_units_at_a_boundary() -> None:
    model = network()
    method = RestartUnits(model)
    before = model[2].weight.detach().clone()
    method.boundary()
    assert not model[2].weight[:, 0].any()
    assert torch.equal(model[2].weight[:, 1:], before[:, 1:])
    assert int(method.reinitialized.total) == 1


def test_a_method_without_a_boundary_says_so_and_a_chain_asks_those_that_have_one() -> None:
    model = network()
    swr, restart = supple.SWR(model), Restart(model)
    with pytest.raises(RuntimeError, match="SWR does not act at boundaries"):
        swr.boundary()
    chain = supple.chain(swr, restart)
    assert isinstance(chain, supple.Method)
    chain.boundary()
    assert (swr.boundaries, restart.boundaries) == (0, 1)
    with pytest.raises(RuntimeError, match="SWR does not act at boundaries"):
        supple.chain(swr).boundary()
