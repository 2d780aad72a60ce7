"""Layers that do not run in a step: left alone, as old as before, and what was due in them comes later."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import numbers, unchanged, values
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import supple
from supple.lab.nn import StackedMLP
from supple.methods.registry import METHODS as METHODS_BY_NAME
from supple.methods.units import UnitMethod
from supple.methods.when import Replacements
from supple.structure.wrapping import is_compiled

UTILITIES: Any = ["contribution", "magnitude", "activation", "gradient"]
READ: Any = ["contribution", "activation"]


class Residual(nn.Module):
    """Two blocks that a step may leave out, as layer drop and stochastic depth do."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(5, 6)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 6, bias=number == 0)) for number in range(blocks)
        )
        self.out = nn.Linear(6, 2)
        self.runs = [True] * blocks

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for block, runs in zip(self.blocks, self.runs, strict=True):
            if runs:
                x = x + block(x)
        return self.out(x)


class Experts(nn.Module):
    """Two experts, chosen by the sign of the first input; both are called, also with no example."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(len(x), 2)
        for expert, chosen in zip(self.experts, (x[:, 0] > 0, x[:, 0] <= 0), strict=True):
            y[chosen] = expert(x[chosen])
        return y


def groups(path: str, number: int = 2) -> list[supple.UnitGroup]:
    return [
        supple.UnitGroup(
            f"{path}.{i}.0",
            7,
            supple.Feature(f"{path}.{i}.2", "input", supple.Slice("", -1)),
            incoming=(supple.Slice(f"{path}.{i}.0.weight"),),
            bias=(supple.Slice(f"{path}.{i}.0.bias"),),
            consumers=(
                supple.Consumer(supple.Slice(f"{path}.{i}.2.weight", 1), f"{path}.{i}.2.bias" * (i == 0) or None),
            ),
        )
        for i in range(number)
    ]


def step_of(model: nn.Module, method: supple.Method, *inputs: Tensor, lr: float = 0.05) -> None:
    """One training step, on one batch or several that are accumulated."""
    for p in model.parameters():
        p.grad = None
    for x in inputs:
        model(x).square().mean().backward()
    with torch.no_grad():
        for p in model.parameters():
            if p.grad is not None:
                p -= lr * p.grad
    method.step()


class Ages(reference.Ages):
    """The account of a layer that does not run in each step."""

    def __init__(self, size: int, maturity: int, rate: float) -> None:
        super().__init__(size, maturity, rate)
        self.owed = self.rested = 0

    def step(self, ran: bool, utilities: Any) -> list[int]:
        eligible = [unit for unit, age in enumerate(self.age) if age + 1 > self.maturity]
        if self.rested < Replacements.LATEST or ran:
            self.accumulator += self.rate * len(eligible)
            self.owed += math.floor(self.accumulator)
            self.accumulator -= math.floor(self.accumulator)
        self.rested = 0 if ran else self.rested + 1
        if not ran:
            return []
        self.age = [age + 1 for age in self.age]
        chosen = sorted(eligible, key=lambda unit: (utilities[unit], unit))[: self.owed]
        for unit in chosen:
            self.age[unit] = 0
        self.owed -= len(chosen)
        return chosen


@pytest.mark.slow
@given(
    st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=50, max_size=50),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0.01, 0.1, 1 / 3, 1.0]),
    st.integers(0, 40),
)
def test_counts_equal_a_simulation_with_explicit_ages(ran: Any, maturity: int, rate: float, cut: int) -> None:
    def make() -> Replacements:
        return Replacements([4, 3], torch.tensor([maturity]), torch.tensor([rate], dtype=torch.float64))

    schedule, accounts = make(), [Ages(size, maturity, rate) for size in (4, 3)]
    for step, now in enumerate(ran):
        if step == cut:
            saved = copy.deepcopy(schedule.state_dict())
            schedule = make()
            schedule.load_state_dict(saved)
        for number, account in enumerate(accounts):
            chosen = account.step(now[number], list(range(account.maturity + 9)))
            if now[number]:
                assert int(schedule.counts[number]) == len(chosen)
        schedule.advance({number for number, one in enumerate(now) if not one})


@pytest.mark.slow
@given(st.lists(st.booleans(), min_size=100, max_size=100), st.sampled_from([0.0007, 0.003, 0.01]))
def test_over_time_as_many_are_replaced_as_if_the_layer_always_ran(ran: list[bool], rate: float) -> None:
    schedule = Replacements([50], torch.tensor([0]), torch.tensor([rate], dtype=torch.float64))
    total = 0
    for now in [*ran, True]:
        total += int(schedule.counts) * now
        schedule.advance(() if now else {0})
    assert total == math.floor(rate * 50 * 101)


def test_a_layer_that_rests_for_very_long_is_not_replaced_as_a_whole() -> None:
    schedule = Replacements([10], torch.tensor([0]), torch.tensor([2.001e-4], dtype=torch.float64))
    for _ in range(2000):
        schedule.advance({0})
    assert int(schedule.counts) == 2  # 10 units * 2.001e-4 * 1,000 steps


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("utility", UTILITIES)
def test_training_equals_a_loop_over_units(utility: Any, decay: float) -> None:
    model = Residual().double()
    maturity, rate = 2, 0.09
    method = supple.CBP(
        model, maturity=maturity, replacement_rate=rate, utility=utility, decay=decay, units=groups("blocks")
    )
    layers = [
        reference.Layer(f"blocks.{i}.0", 7, f"blocks.{i}.2", "input", {f"blocks.{i}.2.weight": reference.same})
        for i in range(2)
    ]
    recorder = reference.Recorder(model, layers)
    accounts = [Ages(7, maturity, rate) for _ in layers]
    averages = [reference.Averages(7, decay) for _ in layers]
    pattern = np.random.default_rng(1).random((40, 2)) < 0.6
    pattern[3] = False  # neither
    step, total = method.step, 0
    method.step = lambda: None  # type: ignore[method-assign]
    for number, runs in enumerate(pattern.tolist(), start=1):
        model.runs = runs
        step_of(model, method, numbers(number, 4, 5, dtype=torch.float64))
        expected, gradients, features = reference.arrays(model), reference.gradients(model), recorder.take()
        for i, layer in enumerate(layers):
            utilities = None
            if runs[i]:
                utilities = reference.layer_utilities(utility, layer, features[layer.name], expected, gradients)
                utilities = averages[i].add(utilities) if decay else utilities
            for unit in accounts[i].step(runs[i], utilities):
                averages[i].forget(unit)
                reference.replaced(expected, layer, unit, "CBP", method.distributions, number)
                total += 1
        step()
        for name, value in reference.arrays(model).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=f"{name} at {number}")
    assert int(method.reinitialized.total) == total > 20
    assert int(method.skipped) > 0


@pytest.mark.parametrize("utility", UTILITIES)
def test_a_turn_of_redo_that_was_missed_is_taken_at_the_next_step_in_which_the_layer_runs(utility: Any) -> None:
    model = Residual()
    method = supple.ReDo(model, frequency=4, threshold=1e9, utility=utility, units=groups("blocks"))
    found, skipped = [], []
    for number in range(1, 13):
        model.runs = [True, number not in (4, 5, 8, 9)]
        step_of(model, method, numbers(number, 4, 5))
        found.append(int(method.reinitialized.last))
        skipped.append(int(method.skipped))
    # The first block at 4, 8 and 12, the second at 6, 10 and 12.
    assert found == [0, 0, 0, 7, 0, 7, 0, 7, 0, 7, 0, 14]
    assert skipped == [0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 4]


METHODS: dict[str, Any] = {
    "CBP": lambda m, u: supple.CBP(m, maturity=3, replacement_rate=0.15, utility=u, units=groups("experts")),
    "CBP averaged": lambda m, u: supple.CBP(
        m, maturity=3, replacement_rate=0.15, utility=u, decay=0.9, absorb_mean=True, units=groups("experts")
    ),
    "ReDo": lambda m, u: supple.ReDo(m, frequency=2, threshold=1.0, utility=u, units=groups("experts")),
}


@pytest.mark.parametrize("utility", [*READ, "gradient"])
@pytest.mark.parametrize("name", METHODS)
def test_an_expert_that_is_called_with_no_example_did_not_run(name: str, utility: Any) -> None:
    model = Experts()
    method = METHODS[name](model, utility)
    other = {key: value for key, value in values(model).items() if key.startswith("experts.1")}
    for number in range(1, 9):
        x = numbers(number, 4, 5)
        x[:, 0] = 1  # for the first expert only
        step_of(model, method, x)
    assert int(method.reinitialized.total) > 0
    # Nothing is due where all units are young.
    assert int(method.skipped) == {"CBP": 0, "CBP averaged": 8, "ReDo": 7}[name]
    now = model.state_dict()
    assert all(torch.equal(now[key], value) for key, value in other.items())
    for number in range(9, 13):  # as old as if it had been made now
        before = values(model)
        x = numbers(number, 4, 5)
        x[:, 0] = -1
        step_of(model, method, x, lr=0.0)
        same = all(torch.equal(value, before[key]) for key, value in model.state_dict().items() if "experts.1" in key)
        assert same is (number in ((9, 10, 11) if name != "ReDo" else (11,)))
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_a_layer_that_runs_in_one_of_several_passes_ran() -> None:
    model, twin = Residual(1), Residual(1)
    method, same = (
        supple.CBP(m, maturity=0, replacement_rate=0.5, utility="activation", units=groups("blocks", 1))
        for m in (model, twin)
    )
    batches = [numbers(number, 4, 5) for number in range(3)]
    for p in model.parameters():
        p.grad = None
    for number, x in enumerate(batches):
        model.runs = [number == 1]
        model(x).sum().backward()
    method.step()
    twin(batches[1]).sum().backward()
    same.step()
    assert int(method.reinitialized.last) == 3
    assert int(method.skipped) == 0
    assert unchanged(model, values(twin))


@pytest.mark.parametrize("utility", UTILITIES)
def test_a_step_in_which_no_layer_runs_is_no_misuse(utility: Any) -> None:
    model = Residual()
    method = supple.CBP(model, maturity=0, replacement_rate=1.0, utility=utility, units=groups("blocks"))
    step_of(model, method, numbers(1, 4, 5))
    model.runs, before = [False, False], values(model)
    step_of(model, method, numbers(2, 4, 5), lr=0.0)
    assert unchanged(model, before)
    assert int(method.skipped) == 2


@pytest.mark.one_in(4)
@pytest.mark.parametrize("utility", READ)
@pytest.mark.parametrize("wrong", ["nothing", "eval", "no_grad", "twice"])
def test_misuse_is_told_and_torch_compile_is_not_blamed(wrong: str, utility: Any) -> None:
    model = Residual()
    method = supple.ReDo(model, frequency=1, utility=utility, units=groups("blocks"))
    if wrong in ("no_grad", "twice"):
        step_of(model, method, numbers(1, 4, 5))
    model.train(wrong != "eval")
    with torch.set_grad_enabled(wrong != "no_grad"):
        if wrong in ("eval", "no_grad"):
            model(numbers(1, 4, 5))
    with pytest.raises(RuntimeError, match=r"saw no forward pass of blocks.0.0 in training mode") as error:
        method.step()
    assert "compile" not in str(error.value)
    assert "CUDA" not in str(error.value)


@pytest.mark.usefixtures("compile_anew")
def test_where_it_was_used_torch_compile_is_named() -> None:
    model, other = Residual(1), Residual(1)
    compiled: Any = torch.compile(model, backend="eager")
    compiled(numbers(1, 4, 5)).sum().backward()
    method = supple.ReDo(model, frequency=1, units=groups("blocks", 1))
    compiled(numbers(1, 4, 5)).sum().backward()
    with pytest.raises(RuntimeError, match=r"A compiled model notices only methods that were made before"):
        method.step()
    assert not is_compiled(other)
    other.blocks[0].compile(backend="eager")
    assert is_compiled(other)


@pytest.mark.slow
@pytest.mark.usefixtures("compile_anew")
@pytest.mark.parametrize("utility", UTILITIES)
def test_compiled_networks_leave_layers_out_alike(utility: Any) -> None:
    ends = []
    for compiles in (False, True):
        model = Residual()
        method = supple.CBP(model, maturity=1, replacement_rate=0.2, utility=utility, units=groups("blocks"))
        forward: Any = torch.compile(model, backend="eager") if compiles else model
        for number in range(12):
            model.runs = [number % 3 != 1, number % 2 == 0]
            step_of(forward, method, numbers(number, 4, 5))
        ends.append(values(model) | {"total": method.reinitialized.total, "skipped": method.skipped})
    assert int(ends[0]["total"]) > 10
    assert int(ends[0]["skipped"]) > 0
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.parametrize("utility", ["contribution", "gradient"])
@pytest.mark.parametrize("kind", ["CBP", "CBP drawn", "ReDo"])
def test_a_state_knows_what_is_behind(kind: str, utility: Any) -> None:
    def make() -> tuple[Residual, supple.Method]:
        model = Residual()
        if kind == "ReDo":
            return model, supple.ReDo(model, frequency=5, threshold=1.0, utility=utility, units=groups("blocks"))
        counting: Any = "draw" if "drawn" in kind else "accumulate"
        return model, supple.CBP(
            model, maturity=2, replacement_rate=0.1, utility=utility, counting=counting, units=groups("blocks")
        )

    def go(model: Residual, method: supple.Method, first: int, last: int) -> None:
        for number in range(first, last):
            model.runs = [number % 3 == 0, number not in range(4, 9)]
            step_of(model, method, numbers(number, 4, 5))

    model, method = make()
    go(model, method, 0, 7)
    saved = copy.deepcopy((model.state_dict(), method.state_dict()))
    go(model, method, 7, 25)
    other, again = make()
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    go(other, again, 7, 25)
    assert unchanged(other, values(model))
    assert repr(again.state_dict()) == repr(method.state_dict())
    assert int(method.reinitialized.total) > 10


def test_layers_of_a_stack_always_run() -> None:
    model = StackedMLP([0, 1], 5, 8, 3, 1)
    method = supple.ReDo(model, frequency=[1, 2], threshold=0.5)
    with pytest.raises(RuntimeError, match="saw no forward pass"):
        method.step()
    step_of(model, method, numbers(1, 4, 5))
    assert method.skipped.tolist() == [0, 0]


UNFREEZING: dict[str, Any] = {
    "CBP": lambda m, u: supple.CBP(m, maturity=0, replacement_rate=1.0, utility=u, units=groups("blocks")),
    "ReDo": lambda m, u: supple.ReDo(m, frequency=1, threshold=1e9, utility=u, units=groups("blocks")),
}


@pytest.mark.parametrize(("name", "utility"), [*(("CBP", utility) for utility in UTILITIES), ("ReDo", "activation")])
def test_a_layer_is_acted_on_as_long_as_it_trains(name: str, utility: Any) -> None:
    model = Residual()
    model.blocks[1].requires_grad_(False)
    method = UNFREEZING[name](model, utility)
    assert [(one.name, "frozen" in one.reason) for one in method.units.excluded] == [("blocks.1.0", True)]
    found, skipped = [], []
    for number in range(9):
        model.blocks[1].requires_grad_(number in range(3, 6))
        model.blocks[0].requires_grad_(number < 7)
        before = values(model)
        step_of(model, method, numbers(number, 4, 5), lr=0.0)
        changed = [
            not torch.equal(model.state_dict()[f"blocks.{i}.0.weight"], before[f"blocks.{i}.0.weight"]) for i in (0, 1)
        ]
        found.append(changed)
        skipped.append(int(method.skipped))
    assert found == [[True, False]] * 3 + [[True, True]] * 3 + [[True, False]] + [[False, False]] * 2
    assert skipped[5] == 0  # what never trained is not counted
    other = Residual()
    other.blocks[1].requires_grad_(True)
    again = UNFREEZING[name](other, utility)
    again.load_state_dict(method.state_dict())
    assert repr(again.state_dict()) == repr(method.state_dict())


@pytest.mark.parametrize("decay", [0.0, 0.9])
@pytest.mark.parametrize("kind", [Residual, Experts])
def test_weights_that_did_not_run_are_left_alone_and_their_rate_is_kept(kind: Any, decay: float) -> None:
    model = kind()
    path = "blocks" if kind is Residual else "experts"
    weights = [model.get_parameter(f"{path}.{i}.0.weight") for i in (0, 1)]
    method = supple.SWR(
        model, frequency=2, factor=0.1, pruning="proportional", decay=decay, include=f"{path}.*.0.weight"
    )
    share, found = weights[0].numel() // 10, []
    for number in range(1, 17):
        x = numbers(number, 4, 5)
        x[:, 0] = 1
        x[0, 0] = -1 if number in (6, 8, 9, 16) else 1  # an example for the second expert
        model.runs = [True, bool(x[0, 0] < 0)]
        before = [weight.detach().clone() for weight in weights]
        step_of(model, method, x, lr=0.0)
        found.append([int((weight != old).sum()) for weight, old in zip(weights, before, strict=True)])
    # One that is due at 2, 4 and 6 and runs in the last of them has its three turns there.
    few = {6: 3, 8: 1, 16: 4}
    size = weights[0].numel()
    for number, (always, second) in enumerate(found, start=1):
        assert size * 0.1 - 1 < always < size * 0.1 + 1 if number % 2 == 0 else always == 0
        turns = few.get(number, 0)
        assert size * 0.1 * turns - 1 < second < size * 0.1 * turns + 1, number
    assert share > 2


def test_all_gradients_of_0_replace_a_tensor_only_where_that_is_asked_for() -> None:
    for option, changes in (("keep", False), ("replace", True)):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        method = supple.SWR(model, frequency=1, factor=1e-9, when_all_zero=option)
        with torch.no_grad():
            model[0].bias.fill_(-9.0)  # dead
        before = model[0].weight.detach().clone()
        model(torch.rand(3, 4)).sum().backward()
        method.step()
        assert bool((model[0].weight != before).all()) is changes
        assert bool((model[0].weight == before).all()) is not changes


def test_weights_that_rest_for_long_are_not_replaced_as_a_whole() -> None:
    model = nn.Sequential(nn.Linear(100, 10, bias=False))
    method = supple.SWR(model, frequency=4, factor=1e-4, pruning="proportional")
    model[0].weight.grad = torch.zeros(10, 100)
    for _ in range(4000):
        method.step()
    before = model[0].weight.detach().clone()
    for _ in range(4):
        model[0].weight.grad = torch.ones(10, 100)
        method.step()
    assert 25 <= int((model[0].weight != before).sum()) <= 26  # 1,000 weights * 1e-4 * (250 turns and the present one)


OFTEN: dict[Any, dict[str, Any]] = {
    supple.CBP: {"maturity": 2, "replacement_rate": 0.3, "decay": 0.5},
    supple.ReDo: {"frequency": 2, "threshold": 0.9},
    supple.SNR: {"threshold": 3, "minimum": 1, "maximum": 40, "update_every": 1},
    supple.ReGraMa: {"frequency": 2, "threshold": 0.9},
    supple.CPR: {"frequency": 3, "replacement_rate": 0.5, "threshold": 2.0},
}
"""Every method on hidden units, so that it acts often."""


def test_every_method_on_hidden_units_is_tried() -> None:
    assert set(OFTEN) == {kind for kind in METHODS_BY_NAME.values() if issubclass(kind, UnitMethod)}


@pytest.mark.parametrize("network", [Residual, Experts])
@pytest.mark.parametrize("kind", OFTEN, ids=lambda kind: kind.__name__)
def test_a_layer_that_does_not_run_and_what_is_kept_of_it_stay(kind: Any, network: Any) -> None:
    model = network()
    path = "blocks" if network is Residual else "experts"
    method = kind(model, **OFTEN[kind], units=groups(path))
    with torch.no_grad():
        for i in (0, 1):
            model.get_parameter(f"{path}.{i}.0.bias").sub_(1.0)  # some that seldom fire
    replaced = [0, 0]
    pattern = np.random.default_rng(3).random((40, 2)) < 0.6
    for number, (first, second) in enumerate(pattern.tolist(), start=1):
        x = numbers(number, 4, 5)
        x[:, 0] = x[:, 0].abs() + 0.1
        if second:
            x[: 2 if first else 4, 0] *= -1
        model.runs = [first, second] if network is Residual else [first or not second, second]
        before = values(model)
        kept = {kind: [one.clone() for one in tensors] for kind, tensors in method.per_unit.items()}
        step_of(model, method, x, lr=0.0)
        for i, ran in enumerate(model.runs):
            same = all(torch.equal(model.state_dict()[n], old) for n, old in before.items() if f"{path}.{i}." in n)
            assert same or ran
            replaced[i] += not same
            for name, tensors in ((name, tensors) for name, tensors in method.per_unit.items() if tensors):
                # A unit of CBP is as old as before where its birth is a step later.
                assert ran or torch.equal(tensors[i] - int(name == "born"), kept[name][i]), name
    assert min(replaced) > 1
    assert int(method.skipped) > 0 or kind is supple.CBP
