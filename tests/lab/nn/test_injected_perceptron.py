"""Plasticity injection as an option of the perceptron: a fresh head on top of the old one, from a task on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import batch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import MLP, StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study.schema import Network
from supple.optim import SGDW

OPTIONS: list[dict[str, Any]] = [{}, {"layer_norm": "after"}, {"skip": "after", "layer_norm": "before"}]


def learn(network: Any, optimizer: torch.optim.Optimizer, steps: range) -> list[Tensor]:
    outputs = []
    for step in steps:
        x, y = batch(step)
        output = network(x)
        optimizer.zero_grad()
        cross_entropy(output.reshape(-1, 3), y.repeat(len(output) if output.ndim == 3 else 1)).backward()
        optimizer.step()
        outputs.append(output.detach())
    return outputs


def test_it_goes_on_as_a_network_with_the_same_head_injected() -> None:
    """The other path is supple.surgery.inject, on a network of plain modules with the same weights."""
    mlp = MLP(6, 8, 3, 2, inject=1, seed=4)
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.1, momentum=0.9)
    learn(mlp, optimizer, range(5))
    x = batch(0)[0]
    before, values = mlp(x), copy.deepcopy(mlp.state_dict())
    mlp.enter(1, optimizer)
    assert torch.equal(mlp(x), before)
    assert not torch.equal(mlp.output.weight, values["output.weight"])

    first, second, last = mlp.blocks[0].linear, mlp.blocks[1].linear, mlp.output
    plain = nn.Sequential(copy.deepcopy(first), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    plain[2], plain[4] = copy.deepcopy(second), copy.deepcopy(last)
    with torch.no_grad():
        for module, name in ((plain[2], "blocks.1.linear"), (plain[4], "output")):
            module.weight.copy_(values[f"{name}.weight"])
            module.bias.copy_(values[f"{name}.bias"])
    other = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    other.state[plain[0].weight] = {"momentum_buffer": optimizer.state[first.weight]["momentum_buffer"].clone()}
    other.state[plain[0].bias] = {"momentum_buffer": optimizer.state[first.bias]["momentum_buffer"].clone()}
    supple.surgery.inject(plain, other, initial={"2.weight": supple.Normal(0, 1), "4.weight": supple.Normal(0, 1)})
    with torch.no_grad():
        for head in (plain.head.new, plain.head.start):
            for module, source in ((head[0], second), (head[2], last)):
                module.weight.copy_(source.weight)
                module.bias.copy_(source.bias)
    for one, two in zip(learn(mlp, optimizer, range(5, 15)), learn(plain, other, range(5, 15)), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_replica_is_as_the_network_alone(options: dict[str, Any]) -> None:
    networks = [MLP(6, 8, 3, 2, inject=2, seed=seed, **options) for seed in (3, 9)]
    stack = StackedMLP([3, 9], 6, 8, 3, 2, inject=2, **options)
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in networks]
    together = torch.optim.Adam(stack.parameters(), lr=0.01)
    for task in range(4):
        stack.enter(task, together)
        for network, optimizer in zip(networks, optimizers, strict=True):
            network.enter(task, optimizer)
        steps = range(4 * task, 4 * task + 4)
        rows = [learn(network, optimizer, steps)[-1] for network, optimizer in zip(networks, optimizers, strict=True)]
        torch.testing.assert_close(learn(stack, together, steps)[-1], torch.stack(rows), atol=1e-4, rtol=1e-3)
    x = batch(0)[0]
    for made in (stack, StackedMLP.from_networks([stack.replica(0), stack.replica(1)])):
        assert torch.equal(made(x), stack(x))
    torch.testing.assert_close(stack.replica(1)(x), stack(x)[1])
    stack.load_replica(0, stack.replica(1))
    assert torch.equal(stack(x)[0], stack(x)[1])
    with pytest.raises(ValueError, match="not into both"):
        stack.load_replica(0, MLP(6, 8, 3, 2, inject=2, seed=1, **options))


def population() -> Population:
    images = torch.randint(256, (40, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(40) % 3
    network = StackedMLP([0, 1], 6, 8, 3, 2, inject=1)
    stream = PermutedStream(LabelledImages(images.view(40, 2, 3), labels, 3, "numbers"), [0, 1], 8)
    return Population(network, SGDW(network.parameters(), lr=0.1), stream, measured_on=20)


def test_a_population_injects_and_goes_on_from_its_state() -> None:
    whole = population()
    for task in range(2):
        whole.train_task(task)
    state = copy.deepcopy(whole.state_dict())
    expected = whole.train_task(2)
    assert whole.network.injected
    again = population()
    again.load_state_dict(state)
    found = again.train_task(2)
    assert torch.equal(found.loss, expected.loss)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    without = population()
    without.network.architecture = MLP(6, 8, 3, 2).architecture
    for task in range(3):
        other = without.train_task(task)
    assert not torch.equal(other.loss, expected.loss)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="inject is 0"):
        MLP(6, 8, 3, 2, inject=0)
    with pytest.raises(ValueError, match="networks with inject compute in float32"):
        Network(inject=3, precision="bfloat16")
