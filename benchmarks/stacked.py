"""How fast any module is trained as a population here, against one network a process on the same cores.

Network steps a second of ``supple.lab.stack`` and of a careful loop of plain PyTorch, for a convolutional network of
the size of LeNet-5 (images of 28 x 28, batch 32) and a GPT of 100,000 parameters (16 sequences of 32 tokens). Each
contender has one process a core, with one thread; a stack has the replicas divided by the cores in each. Both take
turns, and ratios are formed within a turn, so that a busy moment of the machine falls on both.

    python benchmarks/stacked.py --quick
    python benchmarks/stacked.py --network lenet --replicas 8 --profile

"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from rich.console import Console
from timing import ask, cores, ends, machine, ratios, spread, table, timer, workers
from torch import nn
from torch.nn import functional as F

from supple.lab import stack
from supple.lab.studies.permuted_text import Block
from supple.optim import SGDW


class Positions(nn.Embedding):
    """Adds what is learned of each position."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, width] to the same."""
        return x + self.weight


def lenet(seed: int = 0) -> nn.Module:
    """61,706 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


def gpt(seed: int = 0) -> nn.Module:
    """110,336 parameters."""
    blocks = (Block(64, 4, F.gelu), Block(64, 4, F.gelu))
    return nn.Sequential(
        nn.Embedding(64, 64), Positions(32, 64), *blocks, nn.LayerNorm(64), nn.Linear(64, 64, bias=False)
    )


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], tuple[torch.Tensor, torch.Tensor]]]] = {
    "lenet": (lenet, lambda r: (torch.randn(r, 32, 1, 28, 28), torch.randint(10, (r, 32)))),
    "gpt": (gpt, lambda r: (torch.randint(64, (r, 16, 32)), torch.randint(64, (r, 16, 32)))),
}


def loss_of(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, of images or of tokens."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def training_step(kind: str, replicas: int, device: str = "cpu") -> Callable[[], None]:
    """A step of a stack of so many replicas; of one network without a stack where there are 0."""
    make, draw = NETWORKS[kind]
    x, y = (one.to(device) for one in draw(max(replicas, 1)))
    if replicas:
        networks = stack(make, range(replicas)).to(device)
        optimizer: torch.optim.Optimizer = SGDW(networks.parameters(), lr=0.01)

        def step() -> None:
            optimizer.zero_grad()
            networks.losses(loss_of, networks(x), y).sum().backward()
            optimizer.step()
    else:
        network, x, y = make(0).to(device), x[0], y[0]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, foreach=True)

        def step() -> None:
            optimizer.zero_grad()
            loss_of(network(x), y).backward()
            optimizer.step()

    step()
    return step


# Made once in a process.
_step = cache(training_step)


def rate(kind: str, replicas: int, seconds: float, device: str = "cpu") -> float:
    """Network steps a second of one process."""
    found = timer("step()", step=_step(kind, replicas, device)).blocked_autorange(min_run_time=seconds)
    return max(replicas, 1) / found.median


def compare(rate_of: Callable[[int], float], replicas: int, turns: int) -> dict[str, dict[str, Any]]:
    """Rates of a stack of so many replicas and of one network alone, which take turns, and their ratio."""
    rates = [(rate_of(replicas), rate_of(0)) for _ in range(turns)]
    stacked, alone = map(list, zip(*rates, strict=True))
    return {"stacked": spread(stacked), "alone": spread(alone), "ratio": spread(ratios(stacked, alone))}


def show_profile(kind: str, replicas: int) -> None:
    """Prints where the time of a step of one process goes."""
    torch.set_num_threads(1)
    for number in (replicas, 0):
        step = training_step(kind, number)
        with torch.profiler.profile() as profile:
            step()
        print(f"{kind}, {f'{number} replicas stacked' if number else 'one network'}")
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, prints a table, and gives all numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--replicas", type=int, default=32, help="of a stack, on all cores (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="how often both take their turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one turn (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two turns of 0.3 s; less exact")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--json", type=argparse.FileType("w"), help="file for all numbers; - for standard output")
    options = parser.parse_args(arguments)
    if options.quick:
        options.repeats, options.seconds = 2, 0.3
    for name in ("replicas", "repeats", "seconds"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} is {getattr(options, name)}; it has to be above 0")
    each = -(-options.replicas // len(cores()))
    found: dict[str, Any] = {"machine": machine("cpu"), "replicas": each * len(cores()), "networks": {}}
    shown = table(["network"], ["stacked", "one a process", "ratio", "range"], "network steps a second, all cores")
    with workers([[core] for core in cores()]) as processes:
        for kind in options.network:
            print(f"{kind}: {options.repeats} turns", file=sys.stderr)

            def rate_of(number: int, kind: str = kind) -> float:
                return sum(ask(processes, rate, [(kind, number, options.seconds)] * len(processes)))

            measured = found["networks"][kind] = compare(rate_of, each, options.repeats)
            medians = [f"{measured[name]['median']:,.0f}" for name in ("stacked", "alone")]
            shown.add_row(kind, *medians, f"{measured['ratio']['median']:.2f}", ends(measured["ratio"], "{:.2f}"))
    if options.json:
        json.dump(found, options.json, indent=1)
    Console(stderr=options.json is not None).print(shown)
    for kind in options.network if options.profile else ():
        show_profile(kind, each)
    return found


if __name__ == "__main__":
    main()
