from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from supple.lab.nn import MLP, StackedMLP
from supple.metrics import distance, mean_magnitude, normalization_scales, update_ratio, zero_share


def test_against_a_loop() -> None:
    tensors = [torch.randn(2, 3, 4), torch.randn(2, 5), torch.randn(2)]
    for r in range(2):
        entries = [abs(value) for tensor in tensors for value in tensor[r].flatten().tolist()]
        assert float(mean_magnitude(tensors)[r]) == pytest.approx(sum(entries) / len(entries), rel=1e-6)


def test_distance_and_update_against_loops() -> None:
    before = [torch.randn(2, 3, 4), torch.randn(2, 5)]
    after = [tensor + 0.1 * torch.randn_like(tensor) for tensor in before]
    for r in range(2):
        old = [x for tensor in before for x in tensor[r].flatten().tolist()]
        new = [x for tensor in after for x in tensor[r].flatten().tolist()]
        moved = math.sqrt(sum((a - b) ** 2 for a, b in zip(old, new, strict=True)))
        assert float(distance(after, before)[r]) == pytest.approx(moved, rel=1e-6)
        ratio = moved / math.sqrt(sum(x * x for x in old))
        assert float(update_ratio(before, after)[r]) == pytest.approx(ratio, rel=1e-6)
    assert update_ratio([torch.zeros(1, 3)], [torch.zeros(1, 3)]).tolist() == [0.0]


def test_zero_share() -> None:
    tensors = [torch.tensor([[0.0, 1.0, -0.0], [1.0, 2.0, 3.0]]), torch.tensor([[1e-30], [0.0]])]
    assert zero_share(tensors).tolist() == [0.5, 0.25]


def test_normalization_scales() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3, elementwise_affine=False), nn.RMSNorm(3), nn.Linear(3, 3))
    assert list(normalization_scales(model)) == ["0", "2"]
    for network in (MLP(4, 3, layer_norm="after"), StackedMLP([0, 1], 4, 3, layer_norm="before", reparameterized=True)):
        scales = normalization_scales(network)
        assert len(scales) == 3
        assert all(bool((scale == 1).all()) for scale in scales.values())
