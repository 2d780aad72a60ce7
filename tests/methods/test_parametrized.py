"""Weights that are computed from parameters: every method leaves these alone and says so, and nothing becomes NaN."""

import warnings

import pytest
import torch
from helpers import train
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import supple


class Positive(nn.Module):
    def forward(self, x):
        return x.exp()

    def right_inverse(self, x):
        return x.abs().add(0.01).log()


def positive(layer):
    return parametrize.register_parametrization(layer, "weight", Positive())


KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own": positive,
    "older weight_norm": nn.utils.weight_norm,
    "older spectral_norm": nn.utils.spectral_norm,
}
METHODS = {
    "resample": lambda m, o: supple.SWR(m, o, frequency=1, factor=0.9, reinit="resample"),
    "mean": lambda m, o: supple.SWR(m, o, frequency=1, factor=0.9, reinit="mean"),
    "initial": lambda m, o: supple.SWR(m, o, frequency=1, factor=0.9, reinit="initial"),
    "L2": lambda m, o: supple.L2(m, o, l2=0.1),
    "S&P": lambda m, o: supple.ShrinkAndPerturb(m, o, l2=0.1, variance=0.01),
}


def network(kind):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(KINDS[kind](nn.Linear(6, 16)), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))


def sources(model):
    """The parameters that the first layer's weight is computed from."""
    return {name: p for name, p in model.named_parameters() if name.startswith("0.") and name != "0.bias"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_weights_are_computed_from_is_left_alone(kind, method):
    model = network(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.warns(
        UserWarning, match=r"(?s)left alone, since their entries are no weights:\n  0\..*computes a weight of 0"
    ):
        acting = METHODS[method](model, optimizer)
    assert not set(acting.parameters) & set(sources(model))
    start = {name: value.clone() for name, value in sources(model).items()}
    train(model, optimizer, acting, [(torch.randn(5, 6),) for _ in range(3)], lambda m, x: m(x).square().sum())
    assert all(torch.equal(value, start[name]) for name, value in sources(model).items())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model[0].weight.isfinite().all()


@pytest.mark.parametrize("method", [supple.CBP, supple.ReDo])
@pytest.mark.parametrize("kind", KINDS)
def test_units_with_such_weights_are_left_out(kind, method):
    model = network(kind)
    with pytest.warns(UserWarning, match="left alone"):
        acting = method(model)
    assert [group.name for group in acting.units] == ["2"]
    reason = next(item.reason for item in acting.units.excluded if item.name == "0")
    assert "weight" in reason


def test_units_described_by_hand_are_left_out_too():
    model = network("weight_norm")
    names = "0.parametrizations.weight.original1"
    group = supple.UnitGroup(
        name="0", size=16, feature=supple.Feature("2", "input", supple.Slice("", dim=-1)),
        incoming=(supple.Slice(names, dim=0),), bias=(), consumers=(supple.Consumer(supple.Slice("2.weight", dim=1)),),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"{names}: WeightNorm computes a weight of 0 from it"):
            supple.CBP(model, units=[group])


def test_exclude_says_that_it_is_known_and_nothing_else_is_an_error():
    model = network("weight_norm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = supple.SWR(model, exclude="*.parametrizations.*")
    assert "0.bias" in method.parameters
    with pytest.raises(ValueError, match=r"(?s)nothing to act on\n  0\.parametrizations.*WeightNorm computes"):
        supple.SWR(model, include="*.parametrizations.*")
