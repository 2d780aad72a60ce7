"""The probe tells networks of the permuted MNIST study that were trained without a method from those with SWR."""

from __future__ import annotations

import copy

import pytest
import torch

import supple
from supple.lab.data import mnist10k
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.probing import Task

SEEDS, TASKS = range(5), 50


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_base_is_told_from_swr():
    # A network of each seed without a method (a factor of 0), and one with SWR at the study's settings.
    stack = StackedMLP([seed for seed in SEEDS for _ in range(2)], hidden=10)
    optimizer = torch.optim.SGD(stack.parameters(), lr=0.05)
    method = supple.SWR(stack, optimizer, frequency=2048, factor=torch.tensor([0.0, 1e-6] * len(SEEDS)))
    stream = PermutedStream(mnist10k(), seeds=list(SEEDS), batch_size=30)
    population = Population(stack, optimizer, stream, method)
    for task in range(TASKS):
        population.train_task(task)
    base, swr = ([stack.replica(2 * seed + which) for seed in SEEDS] for which in range(2))

    x, y = stream.task(9999).examples(10_000)

    def next_task(network, optimizer, seed):
        return Task(x[seed], y[seed], steps=333, batch_size=30)(network, optimizer, seed)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.05)

    probe = supple.probe(base, lambda seed: copy.deepcopy(swr[seed]), next_task, sgd)
    print(probe)
    assert probe.verdict.startswith("slower by")
