"""The small network of the permuted MNIST study: how much plasticity does it lose, and does SWR keep it?

Networks 784-10-10-10-10 learn task after task, at the settings of the study, all at once: several without a method, and
as many that begin alike and have SWR. Then they are probed: how many more steps do the ones need than the others, and
than fresh networks, for the task that would come next, and for random labels? And is a network told from the others of
its kind, which it should not be?

    python examples/probed_study.py --data mnist --tasks 200
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

import supple
from supple.lab.data import LabelledImages, load
from supple.lab.nn import MLP, StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.probing import RandomLabels, Task

BATCH = 30


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/probed_study.py --data mnist --data-dir mnist --tasks 200"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--data", default="mnist10k", help="images: mnist10k, which comes with supple, or mnist")
    parser.add_argument("--data-dir", help="folder with their files; else they are downloaded once")
    parser.add_argument("--tasks", type=int, default=50, help="how many tasks (%(default)s)")
    parser.add_argument("--budget", type=int, default=333, help="steps that a probe learns (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="networks of a kind in a probe (%(default)s)")
    return parser.parse_args(argv)


def trained(images: LabelledImages, tasks: int, seeds: int) -> tuple[list[MLP], list[MLP]]:
    """So many networks without a method, and as many that began alike and have SWR, after some tasks."""
    # A factor of 0 does nothing.
    stack = StackedMLP([seed for seed in range(seeds) for _ in range(2)], hidden=10)
    optimizer = sgd(stack.parameters())
    method = supple.SWR(stack, optimizer, frequency=2048, factor=torch.tensor([0.0, 1e-6] * seeds))
    population = Population(stack, optimizer, PermutedStream(images, range(seeds), BATCH), method)
    began = time.perf_counter()
    for task in range(tasks):
        right = population.train_task(task).accuracy.view(seeds, 2).mean(dim=0)
        if (task + 1) % max(1, tasks // 10) == 0:
            shares = f"{right[0]:.1%} right without a method, {right[1]:.1%} with SWR"
            print(f"task {task + 1}: {shares}; {time.perf_counter() - began:.0f} s", flush=True)
    return [stack.replica(2 * seed) for seed in range(seeds)], [stack.replica(2 * seed + 1) for seed in range(seeds)]


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def fresh(seed: int) -> MLP:
    return StackedMLP([1000 + seed], hidden=10).replica(0)


def among(networks: list[MLP]) -> Callable[[int], MLP]:
    """What stands for fresh networks: those that one would have instead, a copy of that of the seed."""

    def copy(seed: int) -> MLP:
        network = fresh(seed)
        network.load_state_dict(networks[seed].state_dict())
        return network

    return copy


def main(argv: Sequence[str] | None = None) -> dict[str, supple.Probe]:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    images, seeds, budget = load(arguments.data, arguments.data_dir), arguments.seeds, arguments.budget
    base, swr = trained(images, arguments.tasks, seeds)
    x, y = PermutedStream(images, range(seeds), BATCH).task(9999).examples(min(len(images), BATCH * budget))

    def next_task(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> torch.Tensor:
        return Task(x[seed], y[seed], steps=budget, batch_size=BATCH)(network, optimizer, seed)

    def random_labels(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> torch.Tensor:
        return RandomLabels(x[seed], examples=300, steps=budget, batch_size=BATCH)(network, optimizer, seed)

    pairs = {
        "without a method against with SWR": (base, among(swr)),
        "without a method against fresh": (base, fresh),
        "with SWR against fresh": (swr, fresh),
    }
    found = {}
    for name, (networks, others) in pairs.items():
        for what, learn in (("the next task", next_task), ("random labels", random_labels)):
            found[f"{what}, {name}"] = probe = supple.probe(networks, others, learn, sgd)
            print(f"\n{what}, {name}:\n{probe}", flush=True)
    print("\nrandom labels, one against the others of its kind:")
    for name, networks in (("without a method", base), ("with SWR", swr)):
        for i in range(seeds):
            others = among(networks[:i] + networks[i + 1 :])
            found[f"{i} {name}"] = probe = supple.probe(networks[i], others, random_labels, sgd, seeds=seeds - 1)
            print(f"{name}, network {i}: {probe.verdict}", flush=True)
    return found


if __name__ == "__main__":
    main()
