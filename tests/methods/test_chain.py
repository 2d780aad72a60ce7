"""A chain acts as its methods one after the other."""

import copy

import pytest
import torch
from helpers import backward
from torch import nn

import supple
from supple.lab.nn import MLP, StackedMLP


def parts_of(model, seed=0):
    return (
        supple.L2(model, l2=0.1),
        supple.SWR(model, frequency=2, factor=0.3, seed=seed),
        supple.CBP(model, maturity=1, replacement_rate=0.2, seed=seed),
    )


def test_a_chain_is_its_methods_in_order():
    chained, by_hand, reverse = (MLP(5, 6, 3, 2, seed=1) for _ in range(3))
    chain, parts = supple.chain(*parts_of(chained)), parts_of(by_hand)
    backwards = supple.chain(*reversed(parts_of(reverse)))
    for step in range(8):
        for model in (chained, by_hand, reverse):
            backward(model, step)
        chain.step()
        backwards.step()
        for part in parts:
            part.step()
    for one, other in zip(chained.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(reverse.output.weight, by_hand.output.weight)
    assert int(chain.reinitialized.last) == sum(int(part.reinitialized.last) for part in parts)
    assert int(chain.reinitialized.total) == sum(int(part.reinitialized.total) for part in parts) > 0


def test_counts_of_a_population_are_added_by_replica():
    stack = StackedMLP([1, 2], 5, 6, 3, 2)
    one = supple.SWR(stack, frequency=1, factor=[0.5, 0.0], utility="random", pruning="proportional")
    two = supple.CBP(stack, maturity=0, replacement_rate=[0.0, 0.5], utility="magnitude")
    chain = supple.chain(one, two)
    chain.step()
    assert chain.reinitialized.last.tolist() == [int(one.reinitialized.last[0]), 6]
    assert int(one.reinitialized.last[0]) > 6


def test_state_goes_back_where_it_came_from():
    model = MLP(5, 6, 3, 2, seed=1)
    chain = supple.chain(*parts_of(model))
    for step in range(5):
        backward(model, step)
        chain.step()
    other = MLP(5, 6, 3, 2)
    other.load_state_dict(model.state_dict())
    again = supple.chain(
        supple.L2(other, l2=0.1),
        supple.SWR(other, frequency=2, factor=0.3),
        supple.CBP(other, maturity=1, replacement_rate=0.2),
    )
    for method in again.methods:  # the state brings the distributions along
        method.distributions = dict.fromkeys(method.distributions, supple.Constant(1e9))
    again.load_state_dict(chain.state_dict())
    for step in range(5, 9):
        for one, method in ((model, chain), (other, again)):
            backward(one, step)
            method.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 20))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))

    def forward(self, x):
        return self.head(self.encoder(x))


def methods_on_parts(model, optimizer):
    return (
        supple.SWR(model.encoder, optimizer, frequency=2, factor=0.3, seed=1),
        supple.CBP(model.head, optimizer, maturity=1, replacement_rate=0.1, seed=1),
    )


def test_methods_on_parts_of_one_model():
    def train(model, act, steps, optimizer=None, start=0):
        optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-2)
        method = act(model, optimizer)
        for step in range(start, start + steps):
            optimizer.zero_grad()
            inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            optimizer.step()
            for one in method if isinstance(method, tuple) else [method]:
                one.step()
        return method, optimizer

    chained, by_hand = Parts(), Parts()
    chain, optimizer = train(chained, lambda *given: supple.chain(*methods_on_parts(*given)), 9)
    parts, _ = train(by_hand, methods_on_parts, 9)
    assert all(map(torch.equal, chained.state_dict().values(), by_hand.state_dict().values()))
    assert [int(part.reinitialized.total) > 0 for part in parts] == [True, True]
    assert int(chain.reinitialized.total) == sum(int(part.reinitialized.total) for part in parts)
    assert len(chain.needs().readers) == len(parts[1].needs().readers) > 0
    assert [*chain.model] == [chained.encoder, chained.head]

    resumed = Parts()

    def take_on(model, optimizer):
        method = supple.chain(*methods_on_parts(model, optimizer))
        method.load_state_dict(chain.state_dict())
        model.load_state_dict(chained.state_dict())
        optimizer.load_state_dict(state)
        return method

    again = torch.optim.Adam(resumed.parameters(), 1e-2)
    state = copy.deepcopy(optimizer.state_dict())
    train(resumed, take_on, 5, again, start=9)
    train(chained, lambda *_: chain, 5, optimizer, start=9)
    assert all(map(torch.equal, chained.state_dict().values(), resumed.state_dict().values()))
    exchanged = supple.chain(*reversed(methods_on_parts(fresh := Parts(), torch.optim.SGD(fresh.parameters()))))
    with pytest.raises(ValueError, match="state of SWR, not of CBP"):
        exchanged.load_state_dict(chain.state_dict())


def test_the_model_of_a_chain_is_the_one_that_holds_all_parts():
    model = Parts()
    whole = supple.L2(model, l2=0.1)
    assert supple.chain(supple.L2(model.head, l2=0.1), whole).model is model
    assert supple.chain(supple.L2(model.head, l2=0.1), supple.L2(model.head, l2=0.2)).model is model.head


def test_what_is_no_chain_is_refused():
    model = MLP(5, 6, 3, 2)
    with pytest.raises(ValueError, match="at least one method"):
        supple.chain()
    with pytest.raises(ValueError, match="L2 on a MLP of 1 and L2 on a StackedMLP of 2; make a chain for each"):
        supple.chain(supple.L2(model), supple.L2(StackedMLP([1, 2], 5, 6, 3, 2)))
    chain = supple.chain(*parts_of(model))
    with pytest.raises(ValueError, match="state of SWR, not of a chain"):
        chain.load_state_dict(supple.SWR(model).state_dict())
    with pytest.raises(ValueError, match="state has 1 methods, this chain 3"):
        chain.load_state_dict(supple.chain(supple.L2(model)).state_dict())
    with pytest.raises(ValueError, match="state of L2, not of SWR"):
        supple.chain(supple.SWR(model)).load_state_dict(supple.chain(supple.L2(model)).state_dict())


def test_closing_closes_all_and_the_text_shows_all():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with supple.chain(*parts_of(model)) as chain:
        assert repr(chain) == f"chain({', '.join(map(repr, chain.methods))})"
        assert "l2=0.1" in repr(chain)
        assert any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="L2 was closed"):
        chain.step()
