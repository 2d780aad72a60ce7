"""What hooks read for which step, and how often a compiled network is compiled for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import numbers, train
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import supple
from supple.lab.nn import StackedMLP
from supple.methods import when
from supple.methods.layer import Layer

pytestmark = pytest.mark.usefixtures("compile_anew")

SIZES = [16, 40, 28, 64, 24]  # so that another layer is due at nearly every step
Make = Callable[[nn.Module], supple.Method]


def unequal() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for n, m in zip([8, *SIZES], SIZES, strict=False) for layer in (nn.Linear(n, m), nn.LeakyReLU(0.1))]
    return nn.Sequential(*layers, nn.Linear(SIZES[-1], 3))


def stacked() -> StackedMLP:
    return StackedMLP([0, 0, 0, 1, 1, 1], inputs=8, hidden=12, outputs=3)


def cbp(counting: Any = "accumulate", **more: Any) -> Make:
    return lambda model: supple.CBP(model, maturity=2, replacement_rate=0.01, counting=counting, **more)


def cbp_of_settings(**more: Any) -> Make:
    rates, maturity = [0, 0.02, 0.1, 0.03, 0.05, 0.1], [3, 2, 5, 1, 4, 2]
    return lambda model: supple.CBP(model, replacement_rate=rates, maturity=maturity, **more)


def redo_of_settings(**more: Any) -> Make:
    return lambda model: supple.ReDo(model, frequency=[2, 3, 5, 2, 7, 4], threshold=0.6, **more)


CASES: dict[str, tuple[Callable[[], nn.Module], Make]] = {
    "CBP accumulate": (unequal, cbp()),
    "CBP draw": (unequal, cbp("draw")),
    "CBP absorbing means": (unequal, cbp(absorb_mean=True)),
    "stacked CBP": (stacked, cbp_of_settings()),
    "stacked ReDo": (stacked, redo_of_settings()),
}


def counts_of(model: nn.Module, method: supple.Method, forward: Callable[[Tensor], Tensor], steps: int = 30) -> Any:
    """How much was reinitialized at each step of training, in which ``forward`` computes the outputs."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = numbers(1, steps, 2, 6, 8)
    batches = [(each,) for each in (x if isinstance(model, StackedMLP) else x[:, 0])]
    return torch.stack(train(model, optimizer, method, batches, lambda model, x: forward(x).square().mean()))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_network_is_compiled_once_with_reading_and_once_without(case: str) -> None:
    build, make = CASES[case]
    model, twin = build(), build()
    method, counter = make(model), CompileCounter()
    # In one piece: nothing that hooks do breaks the network up.
    found = counts_of(model, method, torch.compile(model, backend=counter, fullgraph=True))
    assert 1 <= counter.frame_count <= 2
    assert torch.equal(found, counts_of(twin, make(twin), twin))
    assert found.sum() > 3


LOOKING: dict[str, tuple[Callable[[], nn.Module], Make]] = {
    "CBP": (unequal, cbp(utility="activation")),
    "CBP draw": (unequal, cbp("draw", utility="activation")),
    "stacked CBP": (stacked, cbp_of_settings(utility="activation")),
    "stacked ReDo": (stacked, redo_of_settings(utility="activation")),
}


@pytest.mark.parametrize("case", LOOKING)
def test_a_step_knows_the_features_of_its_own_batch_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever layers and replicas were due before, and however hooks read the others meanwhile."""
    build, make = LOOKING[case]
    model = build()
    method: Any = make(model)
    last: dict[str, Tensor] = {}
    for group in method.units:
        module, place = model.get_submodule(group.feature.module), group.feature.where

        def keep(module: nn.Module, inputs: Any, output: Tensor, name: str = group.name, place: str = place) -> None:
            last[name] = (inputs[0] if place == "input" else output).detach()

        module.register_forward_hook(keep)
    utility_of, seen = Layer.utility, []

    def checked(layer: Layer) -> Tensor:
        found = utility_of(layer)
        features = last[layer.group.name]
        expected = features if isinstance(model, StackedMLP) else features.unsqueeze(0)
        torch.testing.assert_close(found, expected[layer.read].abs().mean(dim=1))
        seen.append(layer.number)
        return found

    monkeypatch.setattr(Layer, "utility", checked)
    counts_of(model, method, model)
    assert {*seen} == {*range(len(method.units))}
    assert len(seen) > 8


def test_rows_are_worked_out_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = stacked()
    method = redo_of_settings()(model)
    calls, rows_of = [], when.rows_of

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return rows_of(*arguments)

    monkeypatch.setattr(when, "rows_of", counted)
    counts_of(model, method, model, steps=10)
    assert 0 < len(calls) <= 10


@pytest.mark.parametrize("make", [supple.CBP, supple.ReDo])
def test_gradients_of_each_example_by_vmap_are_named(make):
    model = unequal()
    parameters = dict(model.named_parameters())
    method = make(model, maturity=0, replacement_rate=0.5) if make is supple.CBP else make(model, frequency=1)
    x = torch.randn(5, 8)

    def loss(parameters: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (one,)).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))
    with pytest.raises(RuntimeError, match=r"module '\d+' runs inside torch\.func\.vmap.*evaluation mode"):
        each(parameters, x)
    model(x)  # as the message says
    gradients = each(parameters, x) if not model.eval().training else {}
    model.train()
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].mean(0)
    method.step()
    grad = torch.func.grad(loss)(parameters, x)
    assert all(value.isfinite().all() for value in grad.values())
    method.step()


def test_features_in_what_torch_jit_compiled_are_named():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inside = torch.jit.script(nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30)))
    model = nn.Sequential(nn.Linear(30, 30), nn.ReLU(), inside)
    by_hand = supple.units(nn.Sequential(nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30)))
    group = replace(by_hand[0], feature=supple.Feature("2", "input", supple.Slice("", -1)))
    group = replace(group, consumers=(supple.Consumer(supple.Slice("2.0.weight", 1)),))
    with pytest.raises(
        ValueError, match=r"input of module '2', which torch\.jit compiled.*train the module that it was"
    ):
        supple.CBP(model, units=supple.Units([group]))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    settings: dict[str, Any] = {"frequency": 1, "factor": 0.1, "initial": {"*": supple.Normal(0.0, 0.1)}}
    for method in (supple.SWR(model, optimizer, **settings), supple.SWR(inside, **settings)):
        model(torch.randn(4, 30)).square().mean().backward()
        optimizer.step()
        method.step()
        assert int(method.reinitialized.total) > 0
