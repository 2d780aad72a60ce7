"""reinit="initial": back to the values at the start, whatever they were drawn from."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from helpers import train
from torch import nn

import supple
from supple.lab.nn import StackedMLP


def pretrained(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A network whose values tell nothing of an initial distribution."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter**3 + 0.1 * torch.randn_like(parameter) ** 3 + 0.01)
    return model.to(dtype)


def learn(model: nn.Module, method: supple.Method, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    generators = [torch.Generator().manual_seed(step) for step in range(first, last)]
    batches = [(torch.randint(0, 9, (5, 3), generator=generator),) for generator in generators]
    train(model, optimizer, method, batches, lambda model, x: model(x).square().sum())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pruning", ["threshold", "proportional"])
def test_chosen_entries_go_back_and_others_do_not(pruning: str, dtype: torch.dtype) -> None:
    model = pretrained(dtype)
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    method = supple.SWR(model, optimizer, frequency=4, factor=0.2, pruning=pruning, reinit="initial")  # type: ignore[arg-type]
    twin = copy.deepcopy(model)
    same = supple.SWR(
        twin,
        frequency=4,
        factor=0.2,
        pruning=pruning,  # type: ignore[arg-type]
        reinit="mean",
        initial={"*": supple.Constant(77.0)},
    )
    learn(model, method, optimizer, 0, 3)
    twin.load_state_dict(model.state_dict())
    learn(twin, same, torch.optim.SGD(twin.parameters(), lr=0.0), 3, 3)
    optimizer.zero_grad()
    x = torch.randint(0, 9, (5, 3))
    for one in (model, twin):
        one(x).square().sum().backward()
    same.steps = 3
    before = copy.deepcopy(model.state_dict())
    method.step()
    same.step()
    total = 0
    for name, value in model.state_dict().items():
        chosen = twin.state_dict()[name] == 77.0  # where a constant went in the same step
        total += int(chosen.sum())
        assert torch.equal(value, torch.where(chosen, start[name], before[name])), name
    assert int(method.reinitialized.last) == total > 5
    assert torch.equal(model[0].weight[0], before["0.weight"][0])  # padding


def test_going_on_needs_no_pretrained_values() -> None:
    """The state carries them, so the network that goes on may be made anew."""
    model = pretrained()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = supple.SWR(model, optimizer, frequency=2, factor=0.3, reinit="initial", decay=0.5)
    learn(model, method, optimizer, 0, 3)
    saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), method.state_dict()])
    other = nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()
    its_optimizer = torch.optim.Adam(other.parameters(), lr=0.01)
    again = supple.SWR(other, its_optimizer, frequency=2, factor=0.3, reinit="initial", decay=0.5)
    other.load_state_dict(saved[0])
    its_optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    learn(model, method, optimizer, 3, 9)
    learn(other, again, its_optimizer, 3, 9)
    assert int(method.reinitialized.total) == int(again.reinitialized.total) > 0
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_values_are_kept_for_what_is_acted_on_only() -> None:
    model = pretrained(torch.bfloat16)
    start = supple.SWR(model, reinit="initial", include=nn.Linear).state_dict()["start"]
    assert {name: (value.dtype, value.shape[1:]) for name, value in start.items()} == {
        name: (torch.bfloat16, model.get_parameter(name).shape) for name in ("1.weight", "1.bias", "3.weight", "3.bias")
    }
    assert not supple.SWR(nn.Linear(2, 2)).state_dict()["start"]


def test_a_stack_goes_back_replica_by_replica() -> None:
    model = StackedMLP([0, 1], 5, 8, 3, 1)
    start = model.output.weight.detach().clone()
    method = supple.SWR(model, frequency=[1, 2], factor=9.0, utility="magnitude", reinit="initial")
    with torch.no_grad():
        model.output.weight += 1
    method.step()
    assert torch.equal(model.output.weight[0], start[0])
    assert torch.equal(model.output.weight[1], start[1] + 1)


def test_an_initial_distribution_means_nothing_then() -> None:
    with pytest.raises(ValueError, match=r'^initial=.* means nothing with reinit="initial"'):
        supple.SWR(pretrained(), reinit="initial", initial={"1.weight": supple.Normal(0, 1)})


@pytest.mark.filterwarnings("ignore:The model looks trained already")
def test_means_are_known_of_pretrained_parameters_too() -> None:
    model = pretrained()
    with pytest.raises(ValueError, match=r"unknown:(?s:.*)2\.weight: unknown"):
        supple.SWR(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = supple.SWR(model, frequency=1, factor=1.0, utility="magnitude", pruning="proportional", reinit="mean")
    method.step()
    expected = {"2.weight": 1.0, **dict.fromkeys(("1.weight", "1.bias", "2.bias", "3.weight", "3.bias"), 0.0)}
    for name, mean in expected.items():
        assert (model.get_parameter(name) == mean).all(), name
    assert not model[0].weight[1:].any()


def test_a_stated_mean_counts_more_and_an_unknown_one_is_named() -> None:
    model = pretrained()
    method = supple.SWR(model, reinit="mean", initial={"1.bias": supple.Constant(0.25)})
    assert method.distributions["1.bias"].mean == 0.25
    model.register_parameter("own", nn.Parameter(torch.arange(40.0, dtype=torch.float64).exp()))
    with pytest.raises(ValueError, match="own: unknown"):
        supple.SWR(model, reinit="mean")
