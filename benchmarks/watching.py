"""What watching a network costs: a measurement of ``supple.watch`` against the training steps between two of them.

A ResNet-18 for 32 x 32 images and a transformer on bytes, each watched on a batch of its own. Steps and measurements
are taken in turns, and medians count, so that a busy moment of the machine falls on both. At ``every=N`` watching adds

    (a step at which it measures - a step without) / (N * a step without) + (a step that is only counted - ...) / ...

to the time of training; the share is printed for every=1000.

    python benchmarks/watching.py --quick    # small networks, some seconds
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import networks
import torch

import supple


def measure(task: networks.Task, rounds: int, device: str, examples: int) -> None:
    """Trains a network with and without being watched, in turns."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {"without": [], "counted": [], "measured": []}
    runs: dict[str, Any] = {}
    inputs = torch.cat([task.batch()[0] for _ in range(-(-examples // len(task.batch()[0])))])[:examples].to(device)
    for kind in seconds:
        torch.manual_seed(0)
        model = task.network().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        every = {"counted": 10**9, "measured": 1}.get(kind)
        if every is not None:
            supple.watch(model, model.units(), batch=inputs, optimizer=optimizer, every=every)
        runs[kind] = (model, optimizer)
    for number in range(-1, rounds):
        x, y = (part.to(device) for part in task.batch())
        for kind, (model, optimizer) in runs.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            task.loss(model, x, y).backward()
            optimizer.step()
            wait()
            if number >= 0:  # the first round warms up
                seconds[kind].append(time.perf_counter() - start)
    without, counted, measured = (statistics.median(seconds[kind]) for kind in ("without", "counted", "measured"))
    steps = (measured - without) / without
    print(f"a step takes {without * 1e3:.1f} ms; a measurement on {len(inputs)} examples as long as {steps:.1f} steps")
    print(f"a step that is only counted takes {counted / without:.3f} times as long as one without")
    print(f"at every=1000 measuring adds {steps / 1000:.2%} to the time of training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and few steps")
    parser.add_argument("--rounds", type=int, help="steps of each kind; default: 7, with --quick 3")
    parser.add_argument("--examples", type=int, help="examples to measure on; default: 256, with --quick 32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    parser.add_argument("--only", choices=["ResNet-18", "transformer"], help="one of the networks")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds, examples = options.rounds or (3 if options.quick else 7), options.examples or (32 if options.quick else 256)
    for name, task in networks.tasks(options.quick).items():
        if options.only in (None, name):
            print(f"{name}, {options.device}, {torch.get_num_threads()} threads")
            measure(task, rounds, options.device, examples)


if __name__ == "__main__":
    main()
