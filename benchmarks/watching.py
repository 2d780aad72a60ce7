"""What acting by the optimizer's hooks costs: watching a network, and a method that is attached.

A measurement of ``supple.watch`` is set against the training steps between two of them.

A ResNet-18 for 32 x 32 images and a transformer on bytes, each watched on a batch of its own. Steps and measurements
are taken in turns, and medians count, so that a busy moment of the machine falls on both. At ``every=N`` watching adds

    (a step at which it measures - a step without) / (N * a step without) + (a step that is only counted - ...) / ...

to the time of training; the share is printed for every=1000. An attached method is set against one whose ``step()`` the
loop calls, on a perceptron so small that the hooks show (``--only attaching``).

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
from supple.lab.nn import MLP


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


def attaching(rounds: int) -> None:
    """Trains the small network of the study without a method, with SWR called and with SWR attached, in turns."""
    seconds: dict[str, list[float]] = {"without": [], "called": [], "attached": []}
    runs: dict[str, Any] = {}
    for kind in seconds:
        torch.manual_seed(0)
        model = MLP(784, 10, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        method = None if kind == "without" else supple.SWR(model, optimizer, frequency=2048, factor=1e-6)
        if method is not None and kind == "attached":
            method.attach()
        runs[kind] = (model, optimizer, method if kind == "called" else None)
    x, y = torch.randn(30, 784), torch.randint(0, 10, (30,))
    for number in range(-100, rounds):
        for kind, (model, optimizer, method) in runs.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            if method is not None:
                method.step()
            if number >= 0:
                seconds[kind].append(time.perf_counter() - start)
    without, called, attached = (statistics.median(one) for one in seconds.values())
    print(f"a step of 784-10-10-10-10 takes {without * 1e6:.0f} us without a method")
    print(
        f"with SWR {called / without:.3f} times as long where the loop calls it, {attached / without:.3f} if attached:"
    )
    print(f"attaching adds {(attached - called) * 1e6:.1f} us, {(attached - called) / without:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and few steps")
    parser.add_argument("--rounds", type=int, help="steps of each kind; default: 7, with --quick 3")
    parser.add_argument("--examples", type=int, help="examples to measure on; default: 256, with --quick 32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    parser.add_argument("--only", choices=["ResNet-18", "transformer", "attaching"], help="one of the networks")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds, examples = options.rounds or (3 if options.quick else 7), options.examples or (32 if options.quick else 256)
    for name, task in networks.tasks(options.quick).items():
        if options.only in (None, name):
            print(f"{name}, {options.device}, {torch.get_num_threads()} threads")
            measure(task, rounds, options.device, examples)
    if options.only in (None, "attaching"):
        attaching(300 if options.quick else 3000)


if __name__ == "__main__":
    main()
