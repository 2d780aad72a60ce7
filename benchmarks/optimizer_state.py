"""Compares what can become of what Adam remembers of replaced units, on two problems that change.

    python benchmarks/optimizer_state.py

For continual backpropagation and ReDo with ``optimizer_state="keep"``, ``"fresh"`` and ``"mean"``, over some seeds: the
error while learning, and the largest change of a weight of a replaced unit in the steps that follow, in step sizes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import supple
from supple.lab.data import mnist10k

METHODS = {
    "CBP": lambda m, o, state: supple.CBP(m, o, maturity=100, replacement_rate=1e-3, optimizer_state=state),
    "ReDo": lambda m, o, state: supple.ReDo(m, o, frequency=100, threshold=0.1, optimizer_state=state),
}


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 64."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def images(seed: int, tasks: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Digits whose pixels are in another order in each task; 7x7 pixels, each the mean of 16."""
    data = mnist10k()
    pixels = torch.nn.functional.avg_pool2d(data.images.view(-1, 1, 28, 28).float(), 4).view(-1, 49)
    pixels = (pixels - pixels.mean()) / pixels.std()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(tasks):
        order = torch.randperm(49, generator=generator)
        for _ in range(steps):
            chosen = torch.randint(len(pixels), (32,), generator=generator)
            yield pixels[chosen][:, order], data.labels[chosen]


def drift(seed: int, tasks: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A random network's outputs for 20 random bits, of which one of the first 15 flips when the task changes."""
    generator = torch.Generator().manual_seed(seed)
    teacher = [torch.randn(20, 100, generator=generator).sign(), torch.randn(100, 1, generator=generator).sign()]
    bits = torch.randint(2, (15,), generator=generator).float()
    for _ in range(tasks):
        flipped = int(torch.randint(15, (), generator=generator))
        bits[flipped] = 1 - bits[flipped]
        for _ in range(steps):
            x = torch.cat([bits.expand(32, 15), torch.randint(2, (32, 5), generator=generator).float()], dim=1)
            yield x, torch.relu(x @ teacher[0] - 2) @ teacher[1] / 10


def run(problem: str, method: str | None, state: str | None, seed: int, tasks: int, steps: int) -> tuple[float, float]:
    """Trains once.

    Returns:
        (mean error of the last half of the tasks, largest change of a replaced weight in 50 steps, in step sizes): the
        error is the share of wrong answers, or the mean squared error.
    """
    torch.manual_seed(seed)
    model = network(49, 10) if problem == "images" else network(20, 1)
    rate = 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    acting = METHODS[method](model, optimizer, state) if method else None
    errors, largest = [], 0.0
    age = {p: torch.full_like(p, 1000) for p in model.parameters()}
    for x, y in (images if problem == "images" else drift)(seed, tasks, steps):
        optimizer.zero_grad()
        out = model(x)
        if problem == "images":
            loss = nn.functional.cross_entropy(out, y)
            errors.append(float((out.argmax(1) != y).float().mean()))
        else:
            loss = nn.functional.mse_loss(out, y)
            errors.append(float(loss.detach()))
        loss.backward()
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
        for p, old in zip(model.parameters(), before, strict=True):
            age[p] += 1
            change = (p.detach() - old).abs()[age[p] <= 50]
            largest = max(largest, float(change.max()) / rate if len(change) else 0.0)
        if acting is not None:
            before = [p.detach().clone() for p in model.parameters()]
            acting.step()
            for p, old in zip(model.parameters(), before, strict=True):
                age[p][p.detach() != old] = 0
    return statistics.mean(errors[len(errors) // 2 :]), largest


def main() -> None:
    """Runs all and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--steps", type=int, default=250, help="steps a task")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| problem | method | keep | fresh | mean | largest: keep | fresh | mean |")
    for problem in ("images", "drift"):
        plain = [run(problem, None, None, seed, options.tasks, options.steps)[0] for seed in range(options.seeds)]
        print(f"| {problem} | none | {_spread(plain)} | | | | | |", flush=True)
        for method in METHODS:
            cells, moves = [], []
            for state in ("keep", "fresh", "mean"):
                results = [
                    run(problem, method, state, seed, options.tasks, options.steps) for seed in range(options.seeds)
                ]
                cells.append(_spread([error for error, _ in results]))
                moves.append(f"{max(largest for _, largest in results):.1f}")
            print(f"| {problem} | {method} | {' | '.join([*cells, *moves])} |", flush=True)


def _spread(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {error:.4f}"


if __name__ == "__main__":
    main()
