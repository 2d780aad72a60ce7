from __future__ import annotations

import pytest
import torch
from torch import nn

import supple
from supple.lab.nn import ACTIVATIONS
from supple.metrics import SHAPES, unit_features
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
