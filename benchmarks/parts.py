"""How many replicas are best trained together on one core: network steps per second by the size of a part.

Run it with ``python benchmarks/parts.py``; the constant ``supple.lab.study.run_config.CACHED`` comes from it.
"""

from __future__ import annotations

import argparse

import torch
from engine import BATCH, images
from rich.console import Console
from timing import ends, spread, table, timer

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
    found = table((), ("width", "seeds x settings", "weights, MB", "steps a second", "range"))
    for width in options.width or PARTS:
        populations = []
        for seeds, settings in PARTS[width]:
            network = StackedMLP([seed for seed in range(seeds) for _ in range(settings)], hidden=width)
            stream = PermutedStream(images(10_000), range(seeds), BATCH)
            populations.append(Population(network, SGDW(network.parameters(), lr=0.05), stream))
        rates: list[list[float]] = [[] for _ in populations]
        # In turns, so that a change of the machine's speed meets all of them.
        for turn in range(options.repeats):
            for population, own in zip(populations, rates, strict=True):
                batch = iter(population.stream.task(turn)).__next__
                step = timer("population.step(*batch())", population=population, batch=batch)
                one = step.timeit(1).mean
                steps = min(300, max(1, round(0.4 / one)))
                own.append(population.network.replicas / step.timeit(steps).mean)
        for (seeds, settings), population, own in zip(PARTS[width], populations, rates, strict=True):
            size = sum(parameter.numel() for parameter in population.network.parameters()) * 4e-6
            rate = spread(own)
            found.add_row(
                str(width), f"{seeds} x {settings}", f"{size:.1f}", f"{rate['median']:,.0f}", ends(rate, "{:,.0f}")
            )
    Console().print(found)


if __name__ == "__main__":
    main()
