"""Small changes of weights in half precision: right on average, whatever the company and the memory order."""

import copy
import math

import pytest
import torch
from torch import nn

import supple
from supple.lab.nn import StackedMLP
from supple.methods import adding

HALVES = [torch.bfloat16, torch.float16]
every_half = pytest.mark.parametrize("dtype", HALVES, ids=str)


def network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64)).to(dtype)


def shares(model, before):
    """What is left of each parameter: the projection on what it was."""
    pairs = {name: (p.detach().double(), before[name]) for name, p in model.named_parameters()}
    return {name: float((now * old).sum() / old.square().sum()) for name, (now, old) in pairs.items() if old.any()}


@pytest.mark.one_in(2)
@every_half
@pytest.mark.parametrize(("l2", "steps"), [(1e-4, 1000), (3e-3, 300)])
def test_l2_takes_its_share(dtype, l2, steps):
    model = network(dtype)
    before = {name: p.detach().double() for name, p in model.named_parameters()}
    method = supple.L2(model, l2=l2, seed=1)
    for _ in range(steps):
        method.step()
    lost = 1 - (1 - l2) ** steps
    left = shares(model, before)
    # Within one percent, but for the few weights of a scale, whose own random walks are not averaged out.
    assert left["0.weight"] == pytest.approx(1 - lost, rel=0.01)
    assert left["1.weight"] == pytest.approx(1 - lost, rel=0.05)


def test_small_shares_are_right_on_average_for_each_value():
    """Also of numbers that are all the same, whose errors would not cancel."""
    model = nn.Linear(1000, 1000, bias=False, dtype=torch.bfloat16)
    for value in (1.0, 0.7, -0.0123):
        for l2 in (1e-3, 1e-4, 1e-6):
            nn.init.constant_(model.weight, value)
            start = float(model.weight[0, 0].detach())
            method = supple.L2(model, l2=l2, seed=1)
            for _ in range(4):
                method.step()
            lost = 1 - float(model.weight.detach().double().mean()) / start
            steps = 4 * l2 * 2**8  # about so many steps to a neighbour has each entry taken
            assert lost == pytest.approx(4 * l2, rel=0.001 + 4 / (1e6 * steps / 2) ** 0.5)


@every_half
def test_shrink_and_perturb_is_no_random_walk(dtype):
    model = network(dtype)
    before = {name: p.detach().double() for name, p in model.named_parameters()}
    method = supple.ShrinkAndPerturb(model, l2=3e-4, variance=1e-7, seed=1)
    for _ in range(300):
        method.step()
    share = (1 - 3e-4) ** 300
    assert shares(model, before)["0.weight"] == pytest.approx(share, abs=0.01)
    moved = model[0].weight.detach().double() - share * before["0.weight"]
    variance = 1e-7 * (1 - share**2) / (1 - (1 - 3e-4) ** 2)  # of a sum of noise that shrinks
    assert float(moved.var()) == pytest.approx(variance, rel=0.1)


class Mixed(nn.Module):
    """Parameters of several types, one of them without dimensions and one without entries."""

    def __init__(self):
        super().__init__()
        self.single = nn.Parameter(torch.tensor(1.0, dtype=torch.bfloat16))
        self.none = nn.Parameter(torch.zeros(0, 3, dtype=torch.float16))
        self.layers = nn.ModuleList([nn.Linear(4, 4).bfloat16(), nn.LayerNorm(4), nn.Linear(4, 4).half()])


def test_parameters_of_several_types_and_shapes():
    model = Mixed()
    before = [p.detach().clone() for p in model.parameters()]
    method = supple.ShrinkAndPerturb(model, l2=0.5, variance=1e-2, seed=0)
    method.step()
    again = copy.deepcopy(method)
    for one in (method, again):
        one.step()
    for old, p, q in zip(before, model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.dtype == old.dtype
        assert bool((p != old).all())


def stepped(name, model, steps=3, **seed):
    kinds = {
        "L2": lambda: supple.L2(model, l2=0.01, **seed),
        "S&P": lambda: supple.ShrinkAndPerturb(model, l2=0.01, variance=1e-4, **seed),
    }
    method = kinds[name]()
    for _ in range(steps):
        method.step()
    return [p.detach().clone() for p in model.parameters()]


@every_half
@pytest.mark.parametrize("name", ["L2", "S&P"])
def test_neither_pieces_nor_memory_order_matter(name, dtype, monkeypatch):
    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.Linear(7, 11)).to(dtype)

    expected = stepped(name, model(), seed=4)
    found = stepped(name, model().to(memory_format=torch.channels_last), seed=4)
    assert all(map(torch.equal, found, expected))
    monkeypatch.setattr(adding, "_CPU", 9)
    assert all(map(torch.equal, stepped(name, model(), seed=4), expected))


@every_half
@pytest.mark.parametrize("chosen", [[0.0, 0.01, 0.02], [0.01, 0.0, 0.0, 0.02]], ids=["neighbours", "scattered"])
def test_a_population_does_what_each_does_alone(dtype, chosen):
    seeds = list(range(len(chosen)))
    stack = StackedMLP(seeds, 5, 6, 3, 2).to(dtype)
    supple.ShrinkAndPerturb(stack, l2=chosen, variance=[c / 100 for c in chosen]).step()
    for replica, l2 in enumerate(chosen):
        alone = StackedMLP([seeds[replica]], 5, 6, 3, 2).to(dtype)
        supple.ShrinkAndPerturb(alone, l2=l2, variance=l2 / 100).step()
        for together, one in zip(stack.parameters(), alone.parameters(), strict=True):
            assert torch.equal(together[replica].detach(), one[0].detach())


def test_saved_in_the_middle():
    model, again = network(torch.bfloat16), network(torch.bfloat16)
    method = supple.ShrinkAndPerturb(model, seed=3)
    for _ in range(3):
        method.step()
    again.load_state_dict(model.state_dict())
    other = supple.ShrinkAndPerturb(again, seed=3)
    other.load_state_dict(method.state_dict())
    for one in (method, other):
        one.step()
        one.step()
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_what_a_bias_absorbs_is_right_on_average():
    """One unit in 2,000 networks gives a thousandth, far less than the distance between neighbours of the bias."""
    stack = StackedMLP(list(range(2000)), 2, 2, 1, 1).to(torch.bfloat16)
    names = dict(stack.named_parameters())
    (reading,) = [name for name, p in names.items() if p.shape == (2000, 1, 2)]
    bias = reading.replace("weight", "bias")
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.fill_({reading: 0.001, bias: 1.0}.get(name, 0.5))
    settings = {"maturity": 0, "replacement_rate": 0.5, "utility": "magnitude"}
    method = supple.CBP(stack, absorb_mean=True, **settings, initial={"*": supple.Normal(0, 1)})
    inputs = torch.ones(2000, 3, 2, dtype=torch.bfloat16)
    stack(inputs)
    unit = 1.5  # relu(0.5 * 1 + 0.5 * 1 + 0.5)
    method.step()
    assert int(method.reinitialized.total.sum()) == 2000
    added = names[bias].detach().double() - 1
    assert set(added.flatten().tolist()) == {0.0, 2.0**-7}
    mean = float(torch.tensor(0.001, dtype=torch.bfloat16)) * unit
    chance = mean / 2**-7
    assert float(added.mean()) == pytest.approx(mean, rel=4 * ((1 - chance) / chance / 2000) ** 0.5)


@every_half
def test_redrawn_values_follow_the_distribution(dtype):
    torch.manual_seed(0)
    model = nn.Linear(300, 300).to(dtype)
    initial = {"weight": supple.Normal(0.5, 0.1), "bias": supple.Constant(0)}
    method = supple.SWR(model, frequency=1, factor=1, utility="random", pruning="proportional", initial=initial, seed=5)
    method.step()
    weight = model.weight.detach().double()
    assert float(weight.mean()) == pytest.approx(0.5, abs=4 * 0.1 / 300)
    assert float(weight.std()) == pytest.approx(0.1, rel=4 / math.sqrt(2) / 300)


@every_half
def test_what_blends_a_little_is_right_on_average(dtype):
    """Twenty steps that take a thousandth of weights of 1, whose neighbours are further away."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 5000, bias=False)).to(dtype)
    nn.init.constant_(model[2].weight, 1.0)
    units = supple.CPR(model, frequency=1, replacement_rate=1e-3, threshold=1e9, seed=1)
    for _ in range(20):
        model.zero_grad()
        model(torch.ones(2, 3, dtype=dtype)).sum().backward()
        units.step()
    weights = nn.Linear(100, 100, bias=False, dtype=dtype)
    nn.init.constant_(weights.weight, 1.0)
    shrunk = supple.ShrinkAndRedraw(weights, shrink=0.999, perturb=0.0, toward="start", every=1, seed=1)
    for _ in range(20):
        shrunk.step()
    for weight in (model[2].weight, weights.weight):
        lost = 1 - float(weight.detach().double().mean())
        assert lost == pytest.approx(1 - 0.999**20, rel=0.05)
