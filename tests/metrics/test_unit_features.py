from __future__ import annotations

import pytest
import torch
from torch import nn

import supple
from supple.lab.nn import StackedMLP
from supple.metrics import dead_units, feature_rank, unit_features


def test_against_layers_called_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(30, 4)
    first, second = unit_features(model, supple.units(model), x)
    hidden = model[0](x).relu()  # dropout does nothing in evaluation
    torch.testing.assert_close(first, hidden)
    torch.testing.assert_close(second, model[3](hidden).tanh())


def test_positions_count_as_examples() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 9, 2))
    x = torch.randn(5, 1, 4, 4)
    (features,) = unit_features(model, supple.units(model, x), x)
    expected = [model[0](x).relu()[:, unit].flatten().sort().values for unit in range(3)]
    assert features.shape == (5 * 9, 3)
    torch.testing.assert_close(features.sort(dim=0).values, torch.stack(expected, dim=1))


def test_dead_units_and_rank_of_a_transformer() -> None:
    model = nn.TransformerEncoderLayer(d_model=4, nhead=2, dim_feedforward=8, batch_first=True)
    with torch.no_grad():
        model.linear1.bias[:3] = -100.0
    x = torch.randn(6, 5, 4)
    (features,) = unit_features(model, supple.units(model, x), x)
    assert features.shape == (30, 8)
    assert dead_units(features, [0.0], 0.0)[:3].all()
    assert 1 <= int(feature_rank(features)) <= 5


class Named(nn.Module):
    """Calls a layer by keyword, and another one only if asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.other = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, *, other: bool = False) -> torch.Tensor:
        hidden = self.first(x).relu()
        return self.other(hidden) if other else self.second(input=hidden)


def test_keywords_and_a_layer_that_is_not_called() -> None:
    model, x = Named(), torch.randn(7, 4)
    units = supple.units(model, {"x": x})
    torch.testing.assert_close(unit_features(model, units, x=x)[0], model.first(x).relu())
    with pytest.raises(ValueError, match="did not call 'second', where the units of first are read"):
        unit_features(model, units, x, other=True)


def test_nothing_is_left_behind() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    model[1].eval()  # frozen statistics
    method = supple.ReDo(model, frequency=1, threshold=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model]
    unit_features(model, supple.units(model), torch.randn(9, 4))
    assert [module.training for module in model] == [True, False, True, True]
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="saw no forward pass"):  # the method has not read what was measured
        method.step()


def test_a_stack_is_refused() -> None:
    stack = StackedMLP([0, 1], inputs=4, hidden=3)
    with pytest.raises(ValueError, match=r"stack\.replica\(0\)"):
        unit_features(stack, supple.units(stack), torch.randn(5, 4))
    network = stack.replica(1)
    assert [features.shape for features in unit_features(network, supple.units(network), torch.randn(5, 4))] == [
        (5, 3)
    ] * 3
