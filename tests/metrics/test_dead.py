from __future__ import annotations

import math

import pytest
import torch

from supple.lab.nn import ACTIVATIONS, MLP, StackedMLP, activations, dead_share
from supple.metrics import dead_units


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


@pytest.mark.parametrize("activation", ACTIVATIONS)
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
