"""How many replicas are best trained together on one core: network steps per second by the size of a part.

Run it with ``python benchmarks/parts.py``; the constant ``supple.lab.population.parts.CACHED`` comes from it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from supple.lab.data import mnist10k
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.optim import SGDW

PARTS = {
    10: [(1, 8), (2, 32), (8, 8), (4, 32), (8, 32), (8, 64), (16, 64)],
    100: [(1, 8), (1, 32), (8, 8), (2, 32), (4, 32), (8, 32)],
    1000: [(1, 1), (1, 2), (1, 4), (1, 8), (2, 8)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, action="append", choices=sorted(PARTS), help="default: all")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = mnist10k()
    print("width  seeds x settings  weights, MB  steps a second (median, range)")
    for width in options.width or PARTS:
        populations = []
        for seeds, settings in PARTS[width]:
            network = StackedMLP([seed for seed in range(seeds) for _ in range(settings)], hidden=width)
            stream = PermutedStream(images, list(range(seeds)))
            populations.append(Population(network, SGDW(network.parameters(), lr=0.05), stream))
        rates: list[list[float]] = [[] for _ in populations]
        # In turns, so that a change of the machine's speed meets all of them.
        for _ in range(options.repeats):
            for population, found in zip(populations, rates, strict=True):
                task = population.stream.task(0)
                population.step(*task.batch(0))
                steps, start = 0, time.perf_counter()
                while time.perf_counter() < start + 0.4:
                    population.step(*task.batch(1 + steps % (len(task) - 1)))
                    steps += 1
                found.append(steps * population.network.replicas / (time.perf_counter() - start))
        for (seeds, settings), population, found in zip(PARTS[width], populations, rates, strict=True):
            size = sum(parameter.numel() for parameter in population.network.parameters()) * 4e-6
            shown = f"{statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})"
            print(f"{width:5d}  {f'{seeds} x {settings}':>16}  {size:11.1f}  {shown}")


if __name__ == "__main__":
    main()
