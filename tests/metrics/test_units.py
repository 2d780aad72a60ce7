from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from supple.lab.nn import ACTIVATIONS, MLP, StackedMLP, activations, dead_share
from supple.metrics import (
    as_features,
    dead_units,
    dormancy,
    grama,
    linearized_units,
    saturated_share,
    sign_entropy,
)


def test_dead_units_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    # Values near the saturated ones, so that each of the three outcomes occurs often.
    features = (
        torch.randint(-2, 3, (4, 3, 50), generator=generator) / 2 + torch.rand(4, 3, 50, generator=generator) / 60
    )
    expected = [
        [all(min(abs(float(features[r, e, u]) - s) for s in (-1.0, 1.0)) <= 0.01 for e in range(3)) for u in range(50)]
        for r in range(4)
    ]
    assert any(map(any, expected))
    assert dead_units(features, (-1.0, 1.0), 0.01).tolist() == expected


@pytest.mark.parametrize("activation", [one for one in ACTIVATIONS if one != "fourier"])  # which has no flat part
def test_units_driven_into_saturation_are_dead(activation: str) -> None:
    network = MLP(inputs=6, hidden=4, depth=2, activation=activation, seed=3)
    x = torch.rand(20, 6)
    before = float(dead_share(network, activations(network, x)))
    with torch.no_grad():
        for parameter in network.blocks[0].parameters():
            parameter.zero_()
        network.blocks[0].linear.bias.fill_(0.0 if activation in ("leaky_relu", "crelu") else -100.0)
    assert float(dead_share(network, activations(network, x))) >= max(before, 0.5)


def test_a_stack_has_the_shares_of_its_networks() -> None:
    stack = StackedMLP([0, 1, 2], inputs=6, hidden=8)
    with torch.no_grad():
        stack.blocks[1].linear.bias[1, :5] = -math.inf
    x = torch.rand(20, 6)
    together = dead_share(stack, activations(stack, x))
    assert together.shape == (3,)
    for i in range(3):
        assert float(together[i]) == pytest.approx(
            float(dead_share(stack.replica(i), activations(stack.replica(i), x)))
        )
    assert float(together[1]) >= 5 / 24
    assert not stack.blocks[0].activation._forward_hooks


FEATURES = torch.randn(2, 40, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
FEATURES[:, :, 0] = FEATURES[:, :, 0].abs() + 0.1  # always positive
FEATURES[:, :, 1] = -FEATURES[:, :, 1].abs() - 0.1  # always negative
FEATURES[:, :, 2] *= 1e-3
FEATURES[0, :, 3] = 0.0
FEATURES[1, :20, 4] = 1.0


def each_unit(function: Callable[[list[float]], float]) -> list[list[float]]:
    """A function of one unit's outputs, for all units of both networks."""
    return [[function(FEATURES[r, :, u].tolist()) for u in range(7)] for r in range(2)]


def test_dormancy_against_a_loop() -> None:
    size = each_unit(lambda outputs: sum(map(abs, outputs)) / len(outputs))
    expected = [[one / (sum(row) / 7) for one in row] for row in size]
    torch.testing.assert_close(dormancy(FEATURES).tolist(), expected)
    assert (dormancy(FEATURES) <= 0.025).tolist()[0] == [False, False, True, True, False, False, False]
    assert dormancy(torch.zeros(3, 5)).tolist() == [0.0] * 5


def test_grama_against_a_loop() -> None:
    weights = [torch.randn(2, 4, 3, 2), torch.randn(2, 4, 5)]  # of a convolution and a linear layer that make 4 units
    weights[0][:, 1], weights[1][:, 1] = 0, 0
    for r in range(2):
        size = []
        for unit in range(4):
            entries = [abs(x) for weight in weights for x in weight[r, unit].flatten().tolist()]
            size.append(sum(entries) / len(entries))
        torch.testing.assert_close(grama(weights)[r], torch.tensor([one / (sum(size) / 4) for one in size]))


def test_sign_entropy_against_a_loop() -> None:
    def entropy(outputs: list[float]) -> float:
        shares = [sum(x > 0 for x in outputs) / len(outputs), sum(x <= 0 for x in outputs) / len(outputs)]
        return -sum(p * math.log2(p) for p in shares if p)

    torch.testing.assert_close(sign_entropy(FEATURES), torch.tensor(each_unit(entropy)))
    assert sign_entropy(FEATURES)[0, :2].tolist() == [0.0, 0.0]
    assert float(sign_entropy(torch.tensor([[0.2], [0.7]]), zero=0.5)) == 1.0


def test_linearized_and_saturated_against_loops() -> None:
    one_sided = each_unit(lambda outputs: all(x > 0 for x in outputs))
    assert linearized_units(FEATURES).tolist() == one_sided
    assert linearized_units(FEATURES).sum() == 2
    both = each_unit(lambda outputs: all(x > 0.05 for x in outputs) or all(x < -0.05 for x in outputs))
    assert linearized_units(FEATURES, 0.05, -0.05).tolist() == both
    near = each_unit(lambda outputs: sum(abs(x) <= 0.3 or abs(x - 1) <= 0.3 for x in outputs) / len(outputs))
    torch.testing.assert_close(saturated_share(FEATURES, (0.0, 1.0), 0.3), torch.tensor(near))
    dead = dead_units(FEATURES, (0.0, 1.0), 0.3)
    assert dead.any()
    assert torch.equal(dead, saturated_share(FEATURES, (0.0, 1.0), 0.3) == 1)


@pytest.mark.parametrize(("shape", "dim"), [((5, 7, 3, 2), 1), ((5, 6, 7), -1), ((7, 4), 0)])
def test_units_along_any_dimension(shape: tuple[int, ...], dim: int) -> None:
    stacked = torch.randn(2, *shape)
    stacked.select(dim + 1 if dim >= 0 else dim, 2).zero_()
    for replica, outputs in enumerate(stacked):
        features = as_features(outputs, dim)
        assert features.shape == (outputs.numel() // 7, 7)
        assert (dormancy(features) == 0).tolist() == [unit == 2 for unit in range(7)]
        together = as_features(stacked, dim + 1 if dim >= 0 else dim, leading=1)
        assert torch.equal(dormancy(together)[replica], dormancy(features))
