"""What each method adds to a training step: time on average, time of the step at which it acts, and memory.

A ResNet-18 for 32 x 32 images (11 million parameters) and a transformer on bytes (25 million), at the settings of the
paper, each method on a network of its own. Steps are taken in turns, plain and with each method, and medians count, so
that a busy moment of the machine falls on all of them. A method's time on average is

    (1 - f) * (its step when it does nothing) + f * (its step when it acts + what reading features adds to training)

with f the share of steps at which it acts. That share is known: 1/2048 for SWR, 1/16 for ReDo; for CBP it is that of a
layer's replacements once the units are older than the 500 steps of maturity, which are left out here (maturity 0).

    python benchmarks/training_step.py --quick    # small networks, some seconds
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import networks
import torch
from torch import Tensor, nn

import supple

Make = Callable[[Any, torch.optim.Optimizer], supple.Method]


@dataclass(frozen=True)
class Contender:
    """A method as the benchmark runs it.

    Args:
        make: makes it for a network and its optimizer.
        share: share of steps at which it acts.
    """

    make: Make
    share: Callable[[supple.Method], float]


def skip_to_action(method: Any) -> None:
    """Lets a method count steps that are not taken until the next is one at which it acts."""
    while not method.due_next().any():
        method.step()


def _cbp_share(method: Any) -> float:
    # All layers fill their accumulators with the same part of their size a step, so each is due about once in 1 / (rate
    # * size) steps; layers of one size are due together.
    return sum(min(1.0, 1e-4 * size) for size in {group.size for group in method.units})


SETTINGS = {
    "SWR": Contender(lambda m, o: supple.SWR(m, o, frequency=2048, factor=1e-5), lambda method: 1 / 2048),
    "CBP": Contender(lambda m, o: supple.CBP(m, o, maturity=0, replacement_rate=1e-4, units=m.units()), _cbp_share),
    "ReDo": Contender(
        lambda m, o: supple.ReDo(m, o, frequency=16, threshold=1e-4, units=m.units()), lambda method: 1 / 16
    ),
    "L2": Contender(lambda m, o: supple.L2(m, o, l2=1e-5), lambda method: 1.0),
    "shrink and perturb": Contender(
        lambda m, o: supple.ShrinkAndPerturb(m, o, l2=1e-5, variance=1e-8), lambda method: 1.0
    ),
}


@dataclass
class Run:
    """One network in training, and the seconds it took."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    method: supple.Method | None
    training: list[float] = field(default_factory=list)
    reading: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    acting: list[float] = field(default_factory=list)

    def step(self, task: networks.Task, x: Tensor, y: Tensor, acts: bool, wait: Callable[[], None]) -> None:
        """One training step, timed in its two parts.

        Args:
            task: what is trained.
            x: inputs.
            y: labels.
            acts: whether the method acts at this step.
            wait: waits for the device.
        """
        reads = self.method is not None and bool(self.method.needs().readers)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        task.loss(self.model, x, y).backward()
        self.optimizer.step()
        wait()
        middle = time.perf_counter()
        if self.method is not None:
            self.method.step()
            wait()
            (self.acting if acts else self.idle).append(time.perf_counter() - middle)
        (self.reading if reads else self.training).append(middle - start)


def kept_bytes(method: supple.Method) -> int:
    """Memory of the tensors that a method keeps, its network's and optimizer's apart."""
    theirs = {id(tensor) for tensor in (*method.model.parameters(), *method.model.buffers())}
    seen: dict[int, int] = {}

    def visit(value: Any, depth: int = 0) -> None:
        if isinstance(value, Tensor):
            if id(value) not in theirs:
                storage = value.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for part in value.values():
                visit(part, depth)
        elif isinstance(value, list | tuple):
            for part in value:
                visit(part, depth)
        elif type(value).__module__.startswith("supple") and depth < 4:
            visit(vars(value) if hasattr(value, "__dict__") else (), depth + 1)

    visit({key: value for key, value in vars(method).items() if key not in ("model", "optimizer")})
    return sum(seen.values())


def measure(task: networks.Task, rounds: int, device: str) -> None:
    """Trains and prints a table."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    runs: dict[str, Run] = {}
    for name in ("plain", *SETTINGS):
        torch.manual_seed(0)
        model = task.network().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        runs[name] = Run(model, optimizer, SETTINGS[name].make(model, optimizer) if name in SETTINGS else None)
    for number in range(-1, rounds):
        x, y = (part.to(device) for part in task.batch())
        for name, run in runs.items():
            for acts in (False, True) if run.method else (False,):
                # L2 and shrink and perturb do the same at every step.
                if acts and SETTINGS[name].share(run.method) < 1:
                    skip_to_action(run.method)
                run.step(task, x, y, acts, wait)
            if number < 0:  # the first round warms up
                run.training.clear(), run.reading.clear(), run.idle.clear(), run.acting.clear()
    size = sum(p.numel() for p in runs["plain"].model.parameters())
    plain = statistics.median(runs["plain"].training)
    print(f"{size / 1e6:.1f} million parameters; a plain step takes {plain * 1e3:.1f} ms")
    print(f"{'':20}{'on average':>12}{'acting step':>13}{'acts itself':>13}{'idle':>10}{'kept':>12}")
    for name, setting in SETTINGS.items():
        run = runs[name]
        assert run.method is not None
        share = setting.share(run.method)
        # L2 and shrink and perturb act at every step.
        acting = statistics.median(run.acting + (run.idle if share == 1 else []))
        idle = acting if share == 1 else statistics.median(run.idle)
        read = max(0.0, statistics.median(run.reading) - statistics.median(run.training)) if run.reading else 0.0
        average = ((1 - share) * idle + share * (acting + read)) / plain
        print(
            f"{name:20}{average:>+12.3%}{1 + (acting + read) / plain:>12.2f}x{acting * 1e3:>10.2f} ms"
            f"{idle * 1e6:>7.0f} us{kept_bytes(run.method) / 2**20:>8.3f} MiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and few steps")
    parser.add_argument("--rounds", type=int, help="steps of each kind; default: 7, with --quick 3")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds = options.rounds or (3 if options.quick else 7)
    for name, task in networks.tasks(options.quick).items():
        print(f"{name}, {options.device}, {torch.get_num_threads()} threads")
        measure(task, rounds, options.device)


if __name__ == "__main__":
    main()
