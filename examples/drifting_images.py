"""An image classifier on drifting images: does it go on learning, and what do SWR and CBP change?

A small convolutional network, trained with Adam, sees the images of MNIST task after task. In each task all pixels are
in a new order, so that the digits have to be learned anew. Each batch is classified before it is learned from, and the
accuracy of a task is the mean over its batches. At the end a fresh network learns the last task alone.

    python examples/drifting_images.py --tasks 60
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import supple
from supple.lab.data import mnist10k
from supple.lab.streams import PermutedStream

Make = Callable[[nn.Module, torch.optim.Optimizer], supple.Method | None]


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python examples/drifting_images.py --tasks 60 --factor 1e-3"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=example)
    parser.add_argument("--tasks", type=int, default=60, help="how many tasks (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="steps a task, at most 312 (%(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's step size (%(default)s)")
    parser.add_argument("--frequency", type=int, default=300, help="SWR: steps between two times (%(default)s)")
    parser.add_argument("--factor", type=float, default=1e-3, help="SWR: share of the mean utility (%(default)s)")
    parser.add_argument("--maturity", type=int, default=100, help="CBP: steps a new unit is protected (%(default)s)")
    parser.add_argument("--rate", type=float, default=1e-4, help="CBP: share of units replaced a step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of network, data and methods (%(default)s)")
    return parser.parse_args(argv)


class Learner:
    """A network, its optimizer and perhaps a method."""

    def __init__(self, make: Make, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.model = nn.Sequential(
            nn.Conv2d(1, 8, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=arguments.lr)
        self.method = make(self.model, self.optimizer)
        self.accuracies: list[float] = []  # one a task

    def learn(self, x: Tensor, y: Tensor) -> float:
        """Learns one batch, and gives the accuracy on it before."""
        logits = self.model(x)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(logits, y).backward()
        self.optimizer.step()
        return float((logits.argmax(dim=1) == y).float().mean())


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    torch.set_num_threads(1)  # products as small as these are faster without sharing them out
    seed = arguments.seed
    makes: dict[str, Make] = {
        "plain": lambda model, optimizer: None,
        "SWR": lambda model, optimizer: supple.SWR(
            model, optimizer, frequency=arguments.frequency, factor=arguments.factor, seed=seed
        ).attach(),
        "CBP": lambda model, optimizer: supple.CBP(
            model,
            optimizer,
            maturity=arguments.maturity,
            replacement_rate=arguments.rate,
            units=supple.units(model, torch.zeros(1, 1, 28, 28)),
            seed=seed,
        ).attach(),
    }
    learners = {name: Learner(make, arguments) for name, make in makes.items()}
    stream = PermutedStream(mnist10k(), seeds=[seed], batch_size=32)
    started = time.perf_counter()
    for number in range(arguments.tasks):
        if number == arguments.tasks - 1:
            learners["fresh"] = Learner(makes["plain"], arguments)
        task = stream.task(number)
        hits = dict.fromkeys(learners, 0.0)
        for step in range(min(arguments.steps, len(task))):
            x, y = task.batch(step)  # of one seed: [1, 32, 784] and [1, 32]
            for name, learner in learners.items():
                hits[name] += learner.learn(x.view(-1, 1, 28, 28), y[0]) / min(arguments.steps, len(task))
        for name, learner in learners.items():
            learner.accuracies.append(hits[name])
        line = ", ".join(f"{name} {100 * accuracy:.1f}%" for name, accuracy in hits.items())
        print(f"task {number + 1} of {arguments.tasks}: {line}; {time.perf_counter() - started:.0f} s", flush=True)

    share = max(1, arguments.tasks // 10)
    print(f"\n{'':8}first {share:<6}last {share:<7}last    dead units  rank  reinitialized")
    x = stream.task(arguments.tasks - 1).examples(1000)[0].view(-1, 1, 28, 28)
    for name, learner in learners.items():
        first, last = (sum(part) / len(part) for part in (learner.accuracies[:share], learner.accuracies[-share:]))
        # On all of the images and positions; the last hidden layer is number 5.
        seen = supple.watch(learner.model, x, measures=["dead", "feature_rank"], sample=10**6, prefix="").measure()
        count = 0 if learner.method is None else int(learner.method.reinitialized.total)
        means = f"{first:<12.2%}{last:<12.2%}" if name != "fresh" else f"{'-':12}{'-':12}"
        print(
            f"{name:8}{means}{learner.accuracies[-1]:<8.2%}{seen['dead']:<12.1%}{seen['5/feature_rank']:<6.0f}{count}"
        )


if __name__ == "__main__":
    main()
