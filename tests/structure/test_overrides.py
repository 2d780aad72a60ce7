from dataclasses import dataclass

import pytest
import torch
from torch import nn

import supple
from supple.functional.initial import Constant, Normal, Uniform
from supple.structure.overrides import checked, nearest, resolve


def model():
    inner = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 3, bias=False))
    outer = nn.ModuleDict({"encoder": inner, "head": nn.Linear(3, 3)})
    outer["tied"] = nn.Linear(3, 3)
    outer["tied"].weight = outer["head"].weight
    return outer


def test_by_name():
    assert resolve(model(), {"encoder.0.bias": Constant(1.0)}) == {"encoder.0.bias": Constant(1.0)}


def test_a_shared_parameter_by_any_of_its_names():
    assert resolve(model(), {"tied.weight": Constant(1.0)}) == {"head.weight": Constant(1.0)}


def test_by_pattern():
    found = resolve(model(), {"encoder.*.weight": Normal(0, 1)})
    assert set(found) == {"encoder.0.weight", "encoder.1.weight", "encoder.2.weight"}


def test_by_class():
    found = resolve(model(), {nn.Linear: {"weight": Normal(0, 1), "bias": Constant(0)}})
    assert found == {
        "encoder.0.weight": Normal(0, 1),
        "encoder.0.bias": Constant(0),
        "encoder.2.weight": Normal(0, 1),
        "head.weight": Normal(0, 1),
        "head.bias": Constant(0),
        "tied.bias": Constant(0),
    }
    assert resolve(model(), {nn.LayerNorm: Constant(2)}) == {
        "encoder.1.weight": Constant(2),
        "encoder.1.bias": Constant(2),
    }


def test_a_name_counts_more_than_a_pattern_and_that_more_than_a_class():
    given = {"head.weight": Constant(1), "head.*": Constant(2), "*.bias": Constant(3), nn.Linear: Constant(4)}
    found = resolve(model(), given)
    assert found["head.weight"] == Constant(1)
    assert found["head.bias"] == Constant(3)  # the later of two patterns
    assert found["encoder.2.weight"] == Constant(4)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("encodr.0.weight", r"'encodr.0.weight' matches no parameter of the model; did you mean 'encoder.0.weight'\?"),
        ("encodr.*", "'encodr.*' matches no parameter"),
        ("zzz", "'zzz' matches no parameter of the model; there are 'encoder.0.weight', .* and others"),
        (nn.Conv2d, "Conv2d matches no module with parameters of its own; there are 'LayerNorm', 'Linear'"),
        (nn.Sequential, "Sequential matches no module with parameters of its own"),
    ],
)
def test_a_key_that_matches_nothing(key, message):
    with pytest.raises(ValueError, match=message):
        resolve(model(), {key: Constant(0)})


def test_a_relative_name_that_matches_nothing():
    with pytest.raises(
        ValueError, match=r"no LayerNorm of the model has a parameter 'wieght'; did you mean 'weight'\?"
    ):
        resolve(model(), {nn.LayerNorm: {"wieght": Constant(0)}})


@dataclass(frozen=True)
class Laplace:
    """Somebody's own: it has what a distribution needs, but could not be saved."""

    mean: float = 0.0

    def quantile(self, probability):
        return probability


class HalfNormal(Normal):
    pass


@pytest.mark.parametrize("value", [0.02, torch.zeros(3), Uniform, "normal", None, Laplace(), HalfNormal(0.0, 1.0)])
@pytest.mark.parametrize("key", ["head.weight", "head.*", nn.LayerNorm])
def test_a_value_that_is_no_distribution(key, value):
    with pytest.raises(
        TypeError, match=r"none of the distributions there are; use supple\.Constant, supple\.Normal"
    ) as error:
        resolve(model(), {key: value})
    assert "supple.Uniform or supple.TruncatedNormal" in str(error.value)


def test_a_method_refuses_a_distribution_that_it_could_not_save():
    with pytest.raises(TypeError, match=r"the override of '0.weight' is Laplace\(.*use supple.Constant"):
        supple.SWR(nn.Sequential(nn.Linear(3, 4)), frequency=1, factor=0.1, initial={"0.weight": Laplace()})


def test_a_key_of_another_type():
    with pytest.raises(TypeError, match="override key 3 is neither"):
        resolve(model(), {3: Constant(0)})


def test_nearest_of_nothing():
    assert nearest("a", []) == ""
    assert checked(Constant(0), "x") == Constant(0)
