"""A network that has lost plasticity: how much, in which layer, and what would help?

A perceptron learns the images of MNIST task after task with Adam; in each task all pixels are in a new order. Its units
are watched meanwhile. Then it is probed: how fast does it learn one more task, and random labels, compared with fresh
networks? Which layer holds it back, and which method helps? At the end it goes on with the best one, and is probed
again.

    python examples/lost_plasticity.py --tasks 40
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence

import torch
from torch import nn

import supple
from supple.lab.data import mnist10k
from supple.lab.streams import PermutedStream
from supple.probing import RandomLabels, Task


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/lost_plasticity.py --tasks 40 --seeds 5"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--tasks", type=int, default=40, help="how many tasks (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="steps a task, at most 312 (%(default)s)")
    parser.add_argument("--lr", type=float, default=1e-2, help="Adam's step size (%(default)s)")
    parser.add_argument("--budget", type=int, default=200, help="steps that a probe learns (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="tasks, and fresh networks, of a probe (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of network and data (%(default)s)")
    return parser.parse_args(argv)


def fresh() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )


class Learner:
    """Learns the tasks of a stream one after the other, and is watched."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.lr, self.steps = arguments.lr, arguments.steps
        self.stream = PermutedStream(mnist10k(), seeds=[arguments.seed], batch_size=32)
        # The task that comes after all others, which it is not to learn.
        self.images, self.classes = (part[0] for part in self.stream.task(2 * arguments.tasks).examples(2000))
        self.take(fresh())
        self.began, self.learned = time.perf_counter(), 0

    def take(self, model: nn.Module) -> None:
        """Goes on with a network and a new optimizer."""
        self.model, self.optimizer = model, self.make_optimizer(model.parameters())
        measures = ["dead", "effective_rank", "update_ratio"]
        self.watch = supple.watch(
            model, self.images[:500], optimizer=self.optimizer, every=self.steps, measures=measures, prefix=""
        )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr)

    def learn(self, tasks: int) -> None:
        """Learns so many more tasks, and says of some how many images it told before it learned from them, and more."""
        for number in range(self.learned, self.learned + tasks):
            task, hits = self.stream.task(number), 0.0
            for step in range(min(self.steps, len(task))):
                x, y = task.batch(step)  # of one seed: [1, 32, 784] and [1, 32]
                logits = self.model(x[0])
                self.optimizer.zero_grad()
                nn.functional.cross_entropy(logits, y[0]).backward()
                self.optimizer.step()
                hits += float((logits.argmax(dim=1) == y[0]).float().mean()) / min(self.steps, len(task))
            if number % 5 == 0 or number == self.learned + tasks - 1:
                seen, passed = self.watch.history[-1], time.perf_counter() - self.began
                print(
                    f"task {number + 1}: {hits:.1%} right, {seen['dead']:.0%} of the units dead, effective rank "
                    f"{seen['4/effective_rank']:.1f}, update {seen['update_ratio']:.1e}; {passed:.0f} s",
                    flush=True,
                )
        self.learned += tasks


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    learner = Learner(arguments)
    learner.learn(arguments.tasks)
    makers = {
        "SWR": lambda model, optimizer: supple.SWR(model, optimizer, frequency=50, factor=1e-3, seed=arguments.seed),
        "FIRE": lambda model, optimizer: supple.FIRE(model, optimizer, seed=arguments.seed),
        "Reset": lambda model, optimizer: supple.Reset(model, optimizer, layers=1, seed=arguments.seed),
    }

    def probed(task: Task) -> supple.Probe:
        return supple.probe(learner.model, fresh, task, learner.make_optimizer, seeds=arguments.seeds)

    # Others for each seed, so that a method that has to learn for a while has not seen those of the probe.
    by_heart = RandomLabels(learner.images, examples=320, steps=arguments.budget)
    next_task = Task(learner.images, learner.classes, steps=arguments.budget)
    before = probed(next_task)
    print(f"\nthe next task:\n{before}", flush=True)
    probe = probed(by_heart)
    print(f"\nrandom labels:\n{probe}", flush=True)
    print(f"\none layer fresh at a time:\n{probe.by_layer()}", flush=True)
    cures = probe.cures(makers)
    best = next(row.name for row in cures.rows if row.name in makers)
    print(f"\nafter a method:\n{cures}\n\non with {best}:", flush=True)

    # The method is made for a network that was not trained yet, whose values tell what they were drawn from.
    torch.manual_seed(arguments.seed + 1)
    trained = learner.model
    learner.take(fresh())
    method = makers[best](learner.model, learner.optimizer)
    learner.model.load_state_dict(trained.state_dict())
    if method.acts_at_boundary:
        method.boundary()
    method.attach()
    learner.learn(max(1, arguments.tasks // 10))
    method.close()
    print(f"\nbefore, and with {best}")
    for name, old, task in (("the next task", before, next_task), ("random labels", probe, by_heart)):
        print(f"{name}, before: {old.verdict}\n{name}, after: {probed(task).verdict}")


if __name__ == "__main__":
    main()
