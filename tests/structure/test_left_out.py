"""What is not taken for hidden units in a Sequential, and the reasons that are given."""

import pytest
from torch import nn
from torch.nn.utils import parametrizations, prune

import supple


class Residual(nn.Sequential):
    """A Sequential by class alone."""

    def forward(self, x):
        return x + super().forward(x)


class Chain(nn.Sequential):
    """A Sequential with another name."""


def batch_norm(channels):
    return nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(channels), nn.Linear(6, 2)


LEFT_OUT = {
    "batch norm over positions": (*batch_norm(3), "2 normalizes 3 channels, not the 6 units"),
    "group norm": (nn.Linear(4, 6), nn.GroupNorm(2, 4), nn.Linear(6, 2), "1 normalizes 4 channels, not the 6 units"),
    "instance norm": (
        nn.Linear(4, 6),
        nn.InstanceNorm1d(3, affine=True),
        nn.Linear(6, 2),
        "1 normalizes 3 channels, not the 6 units",
    ),
    "own forward": (
        nn.Linear(6, 6),
        nn.ReLU(),
        Residual(nn.Linear(6, 6), nn.ReLU()),
        nn.Linear(6, 2),
        "2, a Residual, has a forward of its own",
    ),
    "weight norm": (
        parametrizations.weight_norm(nn.Linear(4, 6)),
        nn.ReLU(),
        nn.Linear(6, 2),
        "its weight is computed by a parametrization",
    ),
    "read by weight norm": (
        nn.Linear(4, 6),
        nn.ReLU(),
        parametrizations.weight_norm(nn.Linear(6, 2)),
        "2 reads them, but its weight is computed by a parametrization",
    ),
    "computed bias": (
        parametrizations.weight_norm(nn.Conv2d(2, 4, 3), "bias", dim=None),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2),
        "its bias is computed by a parametrization",
    ),
    "pruned": (
        prune.identity(nn.Linear(4, 6), "weight"),
        nn.ReLU(),
        nn.Linear(6, 2),
        "its weight is computed by a parametrization",
    ),
    "computed scale": (
        nn.Linear(4, 6),
        parametrizations.weight_norm(nn.BatchNorm1d(6), dim=None),
        nn.Linear(6, 2),
        "1 normalizes them, but its weight is computed by a parametrization",
    ),
    "grouped": (nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 2), "grouped convolution (groups=2)"),
    "read by grouped": (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=4), "grouped convolution (groups=4)"),
    "norm over positions": (nn.Conv1d(2, 4, 3), nn.LayerNorm(6), nn.Conv1d(4, 2, 1), "normalizes over (6,)"),
    "softmax": (nn.Linear(4, 6), nn.Softmax(-1), nn.Linear(6, 2), "1 is a Softmax, which may mix units"),
    "no flatten": (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(6, 2), "does not take in the 4 units one by one"),
    "pooled units": (nn.Linear(4, 6), nn.AvgPool1d(3, 1, 1), nn.Linear(6, 2), "pools units, not positions"),
    "odd flatten": (nn.Conv2d(2, 4, 3), nn.Flatten(2), nn.Linear(36, 2), "flattens dimensions 2 to -1"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_left_out_with_its_reason(name):
    *layers, reason = LEFT_OUT[name]
    with pytest.raises(ValueError, match="no hidden units") as error:
        supple.units(nn.Sequential(*layers))
    assert reason in str(error.value)
    assert "units=..." in str(error.value)
    tail = [nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)]
    found = supple.units(nn.Sequential(*layers, *tail))
    assert reason in {item.name: item.reason for item in found.excluded}["0"]
    assert str(len(layers) + 1) in [group.name for group in found]


def test_a_sequential_with_a_forward_of_its_own_is_refused():
    layers = [nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)]
    with pytest.raises(ValueError, match=r"of a Residual: Residual has a forward of its own.*by hand"):
        supple.units(Residual(*layers))
    with pytest.raises(ValueError, match=r"(?s)no hidden units.*1: Residual has a forward of its own"):
        supple.units(nn.Sequential(nn.Flatten(), Residual(*layers)))
    assert [group.name for group in supple.units(nn.Sequential(Chain(*layers)))] == ["0.0"]


def test_a_norm_behind_a_flatten_is_left_out():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 2))
    with pytest.raises(ValueError, match="normalizes flattened positions"):
        supple.units(model)


def test_a_layer_used_twice_is_refused():
    shared = nn.Linear(6, 6)
    with pytest.raises(ValueError, match="shares its parameters with an earlier layer"):
        supple.units(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(6, 2)))
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="2 shares its parameters"):
        supple.units(tied)
