from __future__ import annotations

import pytest
import torch

from supple.metrics import feature_rank


def slow_rank(features: torch.Tensor, share: float) -> int:
    values = sorted(torch.linalg.svdvals(features.double()).tolist(), reverse=True)
    total, so_far = sum(values), 0.0
    for number, value in enumerate(values, start=1):
        so_far += value
        if so_far >= share * total * (1 - 1e-12):
            return number
    raise AssertionError


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (30, 30), (40, 1)])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_against_singular_values_one_network_at_a_time(shape: tuple[int, int], share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, *shape, generator=generator) * torch.logspace(0, -4, shape[1])
    assert feature_rank(features, share).tolist() == [slow_rank(network, share) for network in features]


def test_known_ranks() -> None:
    features = torch.zeros(3, 20, 6)
    features[1] = torch.randn(20, 1) * torch.randn(1, 6)  # one direction
    features[2, :6] = torch.eye(6)  # six equal ones
    assert feature_rank(features).tolist() == [0, 1, 6]
    assert feature_rank(features[2], share=0.5).item() == 3
