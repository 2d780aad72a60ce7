"""What a method refuses, and what it leaves as it is when it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers import network
from torch import nn

import supple
from supple.lab.nn import StackedMLP
from supple.methods.registry import METHODS, defaults


@pytest.mark.parametrize("value", ["1e-5", None, True, 1j, [[0.1]]])
def test_a_setting_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^factor "):
        supple.SWR(network(), factor=value)


@pytest.mark.parametrize("value", [0, 1.5, 1e19, -1, float("nan")])
def test_a_frequency_out_of_range_is_named(value: float) -> None:
    with pytest.raises(ValueError, match=r"^frequency is .* a whole number of at least 1"):
        supple.SWR(network(), frequency=value)


@pytest.mark.parametrize("seed", [2**64, 0.5, "1", None])
def test_seeds(seed: Any) -> None:
    if seed is None:
        assert supple.L2(network(), seed=seed).seed.tolist() == [0]
    else:
        with pytest.raises((TypeError, ValueError), match=r"^seed is"):
            supple.L2(network(), seed=seed)


def test_model_and_optimizer_are_what_they_have_to_be() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"^optimizer is a float"):
        supple.SWR(model, 0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^model is a SGD"):
        supple.SWR(optimizer, model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds no parameter of this Sequential"):
        supple.SWR(model, torch.optim.SGD(network().parameters(), lr=0.1))
    assert supple.SWR(torch.compile(model, backend="eager"), optimizer).model is model


def test_a_refused_state_changes_nothing() -> None:
    method = supple.SWR(network(), frequency=1, utility="magnitude", factor=0.1)
    for _ in range(3):
        method.step()
    good = copy.deepcopy(method.state_dict())
    other = supple.SWR(network(), frequency=1, utility="magnitude", factor=0.1)
    for wrong in (
        {"method": "SWR"},
        {**good, "total": torch.zeros(2)},
        {**good, "average": {"0.weight": torch.zeros(1)}},
        {**good, "initial": {}},
        {**good, "method": "L2"},
    ):
        with pytest.raises(ValueError, match="the state"):
            other.load_state_dict(wrong)
        assert other.steps == 0
        assert int(other.reinitialized.total) == 0
    other.load_state_dict(good)
    assert other.steps == 3


def test_a_distribution_that_the_user_stated_stays() -> None:
    saved = supple.SWR(network()).state_dict()
    stated = supple.Normal(0.0, 0.5)
    method = supple.SWR(network(), initial={"0.weight": stated})
    method.load_state_dict(saved)
    assert method.distributions["0.weight"] == stated
    assert method.distributions["2.weight"] != stated


def test_parameters_replaced_after_construction_are_noticed() -> None:
    model = network()
    method = supple.L2(model)
    state = method.state_dict()
    model.load_state_dict(network().state_dict(), assign=True)
    with pytest.raises(RuntimeError, match="parameters were replaced"):
        method.load_state_dict(state)


def test_parameters_frozen_after_construction_stay() -> None:
    model = network()
    methods = [
        supple.L2(model, l2=0.5),
        supple.ShrinkAndPerturb(model, l2=0.5, variance=1.0),
        supple.SWR(model, frequency=1, utility="magnitude", factor=10.0),
    ]
    model[0].requires_grad_(False)
    frozen, free = model[0].weight.clone(), model[2].weight.clone()
    for method in methods:
        method.step()
    assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(model[2].weight, free)


@pytest.mark.filterwarnings("ignore:SWR left a parameter")
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("settings", [{}, {"pruning": "proportional", "factor": 0.5}, {"decay": 0.5}], ids=str)
def test_an_overflow_reinitializes_nothing_of_its_tensor(bad: float, settings: dict[str, Any]) -> None:
    model = network()
    method = supple.SWR(model, frequency=1, **{"factor": 1.0, **settings})
    model(torch.randn(5, 6)).square().sum().backward()
    model[0].weight.grad[3, 2] = bad
    hit, other = model[0].weight.clone(), model[2].weight.clone()
    method.step()
    assert torch.equal(model[0].weight, hit)
    assert not torch.equal(model[2].weight, other)


@pytest.mark.filterwarnings("ignore:ReDo left a parameter")
def test_an_overflow_replaces_no_units() -> None:
    model = network()
    method = supple.ReDo(model, frequency=1, threshold=2.0, utility="gradient")
    model(torch.randn(5, 6)).square().sum().backward()
    model[2].weight.grad[0, 7] = float("inf")
    method.step()
    assert int(method.reinitialized.last) == 0


@pytest.mark.parametrize("l2", [1e-6, 3e-7])
def test_small_decay_has_its_size_in_single_precision(l2: float) -> None:
    model = nn.Linear(400, 400)
    start = model.weight.detach().double().norm()
    method = supple.L2(model, l2=l2)
    for _ in range(300):
        method.step()
    shrunk = 1 - float(model.weight.detach().double().norm() / start)
    assert shrunk == pytest.approx(1 - (1 - l2) ** 300, rel=0.05)


def test_chains_nest() -> None:
    model = network()
    one, two, three = supple.L2(model), supple.L2(model), supple.L2(model)
    assert supple.chain(supple.chain(one, two), three).methods == (one, two, three)


def test_a_method_that_says_nothing_gets_its_gradients() -> None:
    class Reads(supple.Method):
        def _act(self) -> None:
            pass

    assert Reads(StackedMLP([0], inputs=4, hidden=4)).needs().gradients
    assert not supple.L2(network()).needs().gradients


def test_a_state_of_other_sizes_changes_nothing() -> None:
    def made(hidden: int) -> supple.Chain:
        model = nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))
        return supple.chain(supple.L2(model), supple.CBP(model, maturity=1, replacement_rate=0.5, utility="magnitude"))

    small, large = made(1), made(8)
    for _ in range(3):
        small.step()
    before = copy.deepcopy(large.state_dict())
    with pytest.raises(ValueError, match=r"another network: the two differ in 0\.bias"):
        large.load_state_dict(small.state_dict())
    after = large.state_dict()
    assert [part["steps"] for part in after["methods"]] == [0, 0]
    assert torch.equal(after["methods"][1]["born"][0], before["methods"][1]["born"][0])


def test_a_chain_that_cannot_load_all_loads_none() -> None:
    model = network()
    one = supple.chain(supple.L2(model), supple.SWR(model, utility="magnitude"))
    other = supple.chain(supple.L2(model), supple.SWR(model, utility="magnitude"))
    one.step()
    state = one.state_dict()
    state["methods"][1]["method"] = "CBP"
    with pytest.raises(ValueError, match="state of CBP"):
        other.load_state_dict(state)
    assert [method.steps for method in other.methods] == [0, 0]


def test_units_named_by_the_second_name_of_a_shared_parameter() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode, self.read = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
            self.decode.weight = self.encode.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.read(self.decode(self.encode(x).relu()).relu())

    model = Tied()
    group = supple.UnitGroup(
        name="decode",
        size=5,
        feature=supple.Feature("read", "input", supple.Slice("", dim=-1)),
        incoming=(supple.Slice("decode.weight"),),
        consumers=(supple.Consumer(supple.Slice("read.weight", dim=1)),),
    )
    method = supple.ReDo(model, frequency=1, threshold=10.0, utility="gradient", units=[group])
    model(torch.randn(3, 5)).sum().backward()
    before = model.encode.weight.clone()
    method.step()
    assert int(method.reinitialized.last) == 5
    assert (model.encode.weight != before).all()


def test_loading_gives_up_what_was_read_before() -> None:
    model = network()
    method = supple.ReDo(model, frequency=1, threshold=0.5)
    state = method.state_dict()
    model(torch.randn(30, 6))
    method.load_state_dict(state)
    with pytest.raises(RuntimeError, match="saw no forward pass"):
        method.step()


KINDS: list[Any] = [
    3,
    2.5,
    True,
    object(),
    b"0.weight",
    torch.zeros(2),
    range(3),
    [3],
    [None],
    [["0.weight"]],
    [torch.zeros(2)],
    nn.Linear(1, 1),
    [nn.Linear(2, 2)],
    int,
    max,
    lambda: 1,
    lambda name, parameter: 1 / 0,
    lambda name, parameter: torch.zeros(2),
]


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        (supple.SWR, "include"),
        (supple.SWR, "exclude"),
        (supple.SWR, "initial"),
        (supple.CBP, "initial"),
        (supple.CBP, "units"),
    ],
)
@pytest.mark.parametrize(
    "value",
    [*KINDS, "units", {"0.weight": 3}, {nn.Linear: {1: supple.Normal(0, 1)}}],
    ids=lambda value: str(value).partition(" at ")[0],
)
def test_what_is_of_another_kind_is_told_by_name(method: Any, argument: str, value: Any) -> None:
    model = network()
    said = {"initial": "initial|override|parameter of Linear"}.get(argument, argument)
    with pytest.raises((TypeError, ValueError), match=said):
        method(model, **{argument: value})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", METHODS)
def test_a_switch_is_no_word_and_no_number_and_neither_is_the_other(name: str) -> None:

    def make(**settings: Any) -> None:
        model = network()
        kind: Any = METHODS[name]
        kind(model, torch.optim.SGD(model.parameters(), lr=0.1), **settings)

    wrong: dict[type, list[Any]] = {bool: ["false", "true", 0, 1, None], str: [True, 1]}
    for setting, default in defaults(METHODS[name]).items():
        for value in wrong.get(type(default), ["5", True, None, [True], [0.5, True], np.bool_(True)]):
            with pytest.raises((TypeError, ValueError), match=setting):
                make(**{setting: value})
        # What every method is given here is one that it takes.
        make(**{setting: default})


def test_a_boundary_counts_what_it_reinitialized_itself() -> None:
    model = network()
    method = supple.Reset(model, layers=0, every=3, seed=0)
    size = sum(p.numel() for p in model.parameters())
    counts = []
    for act in (method.boundary, method.boundary, method.step, method.step, method.step, method.boundary, method.step):
        act()
        counts.append((int(method.reinitialized.last) / size, int(method.reinitialized.total) / size))
    assert counts == [(1, 1), (1, 2), (0, 2), (0, 2), (1, 3), (1, 4), (0, 4)]
