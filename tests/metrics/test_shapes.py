from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import supple
from supple import Consumer, Slice
from supple.lab.nn import ACTIVATIONS
from supple.metrics import SHAPES, Shape, unit_features
from supple.metrics.shapes import UNKNOWN
from supple.metrics.unit_features import activation_shapes

MODULES = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "hardswish": nn.Hardswish(),
    "hardtanh": nn.Hardtanh(),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_the_functions(name: str) -> None:
    shape, function = SHAPES[name], MODULES[name]
    z = torch.linspace(-60, 60, 20000, dtype=torch.float64, requires_grad=True)
    out = function(z)
    (slope,) = torch.autograd.grad(out.sum(), z)
    out = out.detach()
    assert shape.zero == pytest.approx(float(function(torch.zeros((), dtype=torch.float64))))
    if shape.above is not None:
        straight = out > shape.above
        line = out[-1] + slope[-1] * (z - z[-1]).detach()
        assert straight.any()
        assert float((out - line)[straight].abs().max()) <= 0.01
    if name != "leaky_relu":
        flat = {round(value, 4) + 0.0 for value in out[slope.abs() < 1e-9].tolist()}
        assert flat == {round(value, 4) for value in shape.saturated}
    # What makes a unit positive is that its input is.
    assert torch.equal((out > shape.zero + 1e-12) | (z <= 1e-9), torch.ones_like(z, dtype=torch.bool))


@pytest.mark.parametrize("name", MODULES)
def test_the_activation_of_units_is_found(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), MODULES[name], nn.Dropout(), nn.Linear(6, 2))
    x = torch.randn(3, 4)
    (shape,) = activation_shapes(model, supple.units(model), lambda: model(x))
    assert (shape.saturated, shape.zero, shape.above) == (
        pytest.approx(SHAPES[name].saturated),
        SHAPES[name].zero,
        SHAPES[name].above,
    )


def written_out(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))  # as in GPT-2


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone().neg_().exp_().add_(1)
    return x.div_(y)


class Layer(nn.Module):
    """A hidden layer with any function."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.function = nn.Linear(4, 6), nn.Linear(6, 2), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.function(self.first(x)))

    def shape(self) -> Shape:
        x = torch.randn(3, 4)
        return activation_shapes(self, supple.units(self, x), lambda: self(x))[0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (written_out, SHAPES["gelu"]),
        (in_place, SHAPES["silu"]),
        (lambda x: x * torch.sigmoid(x), SHAPES["silu"]),
        (lambda x: torch.where(x > 0, x, 0.01 * x), SHAPES["leaky_relu"]),
        (lambda x: torch.maximum(x, torch.zeros(())), SHAPES["relu"]),
        (lambda x: torch.log(1 + torch.exp(x)), SHAPES["softplus"]),
        # Worked out by hand: from where it is within 0.01 of its limits, on inputs of steps of 1/16.
        (lambda x: x.relu().square(), Shape("other", (0.0,), zero=0.0)),
        (lambda x: 3 - 2 * x.relu(), Shape("other", (3.0,), zero=None, below=3.0)),
        (lambda x: nn.functional.leaky_relu(x, 0.3), Shape("leaky_relu", above=0.0, below=0.0)),
        (lambda x: nn.functional.elu(x, 0.5), Shape("elu", (-0.5,), 0.01, above=0.0)),
        (lambda x: nn.functional.hardtanh(x, -2, 3), Shape("hardtanh", (-2.0, 3.0))),
        (lambda x: torch.sin(x), Shape("sin", zero=None)),
        (lambda x: 2 * x + 1, UNKNOWN),
        (lambda x: x, UNKNOWN),
    ],
    ids=range(14),
)
def test_any_function_of_one_input_is_known(function: Callable[..., torch.Tensor], expected: Shape) -> None:
    found = Layer(function).shape()
    assert (found.saturated, found.tolerance, found.zero) == (expected.saturated, expected.tolerance, expected.zero)
    assert (found.above, found.below) == (pytest.approx(expected.above, abs=1e-6), expected.below)
    assert found.name in (expected.name, "other")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat([x[:, :3].sigmoid() * x[:, 3:], x[:, 3:]], dim=1),
        lambda x: x.relu() + x.roll(1, dims=1),
        lambda x: x.softmax(dim=-1),
        lambda x: x.sigmoid() * x.mean(dim=0),
    ],
    ids=["gate", "sum", "softmax", "mean"],
)
def test_of_several_inputs_nothing_is_known(function: Callable[..., torch.Tensor]) -> None:
    network, x = Layer(function), torch.randn(3, 4)
    layer = supple.units(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))[0]
    group = replace(
        layer,
        name="first",
        incoming=(Slice("first.weight"),),
        bias=(Slice("first.bias"),),
        consumers=(Consumer(Slice("second.weight", dim=1), "second.bias"),),
        feature=replace(layer.feature, module="second"),
    )
    assert activation_shapes(network, [group], lambda: network(x)) == [UNKNOWN]


def test_the_activations_of_transformers() -> None:
    functions = pytest.importorskip("transformers.activations").ACT2FN
    for name in ("gelu_new", "gelu_fast", "gelu_python", "gelu_accurate", "gelu_pytorch_tanh"):
        assert Layer(functions[name]).shape() == SHAPES["gelu"], name
    quick = Layer(functions["quick_gelu"]).shape()
    # x sigmoid(1.702 x) is x - 0.01 where x exp(-1.702 x) is about 0.01.
    assert (quick.saturated, quick.zero) == ((0.0,), 0.0)
    assert quick.above == pytest.approx(3.4, abs=0.07)


class Functions(nn.Module):
    """Activation functions that are no modules, in place, behind pooling and reshaping, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.second, self.gate, self.up, self.out = (
            nn.Conv2d(1, 3, 2),
            nn.Linear(12, 6),
            nn.Linear(6, 5),
            nn.Linear(6, 5),
            nn.Linear(5, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = nn.functional.max_pool2d(self.conv(x).clamp_(min=0), 2).transpose(1, 2).reshape(len(x), -1)
        h = nn.functional.relu6(self.second(h))
        return self.out(nn.functional.silu(self.gate(h)) * self.up(h))


def test_functions_are_followed_and_what_is_not_known_is_unknown() -> None:
    model, x = Functions(), torch.randn(2, 1, 5, 5)
    first, second, gated = activation_shapes(model, supple.units(model, x), lambda: model(x))
    assert (first.name, second.saturated, gated.name) == ("relu", (0.0, 6.0), "unknown")
    frozen = model.requires_grad_(False)  # nothing depends on gradients
    assert activation_shapes(frozen, supple.units(model, x), lambda: model(x))[0].name == "relu"
    assert len(unit_features(model, supple.units(model, x), x)) == 3


def test_the_networks_of_the_laboratory_have_the_shapes_of_their_functions() -> None:
    for name, kind in ACTIVATIONS.items():
        model = nn.Sequential(nn.Linear(4, 6), kind.module(), nn.Linear(6 * kind.copies, 2))
        if kind.copies == 1:
            (shape,) = activation_shapes(model, supple.units(model), lambda model=model: model(torch.randn(3, 4)))
            assert shape.saturated == pytest.approx(kind.shape.saturated), name
