from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from vectors import cases

from supple.metrics import effective_rank, feature_rank, rank, ranks, spectral_norm, stable_rank


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


@pytest.mark.parametrize("case", cases("effective_rank"), ids=lambda case: case["id"])
def test_effective_rank_against_recorded_values(case: dict[str, Any]) -> None:
    features = torch.tensor(case["features"], dtype=torch.float64)
    assert float(effective_rank(features)) == pytest.approx(case["expected"]["effective_rank"], rel=1e-6)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (30, 30)])
def test_ranks_against_singular_values_of_numpy(shape: tuple[int, int]) -> None:
    features = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2)) * torch.logspace(0, -3, shape[1])
    for network in features:
        values = np.linalg.svd(network.double().numpy(), compute_uv=False)
        shares = values / values.sum()
        entropic = math.exp(-sum(p * math.log(p) for p in shares))
        stable = (network.double() ** 2).sum().item() / values[0] ** 2
        assert float(effective_rank(network)) == pytest.approx(entropic, rel=1e-6)
        assert float(stable_rank(network)) == pytest.approx(stable, rel=1e-9)
        assert float(spectral_norm(network)) == pytest.approx(values[0], rel=1e-9)
    together = ranks(features)
    assert torch.equal(together.feature, feature_rank(features))
    assert torch.equal(together.effective, effective_rank(features))
    assert torch.equal(together.stable, stable_rank(features))


def test_what_is_all_zero_or_not_finite_has_no_rank() -> None:
    features = torch.randn(3, 6, 4)
    features[0], features[1, 2, 3] = 0, torch.inf
    for function in (effective_rank, stable_rank, feature_rank, spectral_norm):
        assert (function(features) > 0).tolist() == [False, False, True]


def test_the_spectral_norm_of_a_large_matrix_is_nearly_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = torch.randn(2, 200, 300, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_norm(matrices.double(), ord=2)
    monkeypatch.setattr(rank, "_EXACT", 0)
    ratio = spectral_norm(matrices) / exact
    assert bool(((ratio > 0.97) & (ratio < 1 + 1e-5)).all())
