"""What each method adds to training steps of ordinary networks: time, and memory that it keeps.

A ResNet-18 for 32 x 32 images and a transformer on bytes (25 million), with every method of the package: those of the
study at the settings of the paper, the others at their defaults. Each method has a network of its own, which takes
turns with a plain one, and medians count, so that a busy moment of the machine falls on both. A method's time on
average is

    (1 - f) * (what it adds to a step at which it does not act) + f * (what it adds to one at which it acts)

with f the share of steps at which it acts: 1/2048 for SWR, 1/16 for ReDo, 1 for what does the same at every step, 0 for
what acts only where the data change, which is then timed as its acting step; for CBP it is that of a layer's
replacements once the units are older than the 500 steps of maturity, which are left out here (maturity 0). What a
method adds is its own work, before and after the optimizer's step, and, where it reads features or has a term of the
loss, what that adds to training.

    python benchmarks/training_step.py --quick    # small networks, some seconds
    python benchmarks/training_step.py --method swr cbp --mode eager autocast --device cuda
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import networks
import torch
from torch import Tensor

import supple
from supple.methods.penalty import Penalty
from supple.methods.registry import METHODS

SETTINGS: dict[str, dict[str, float]] = {
    "swr": {"frequency": 2048, "factor": 1e-5},
    "cbp": {"maturity": 0, "replacement_rate": 1e-4},
    "redo": {"frequency": 16, "threshold": 1e-4},
    "l2": {"l2": 1e-5},
    "shrink_and_perturb": {"l2": 1e-5, "variance": 1e-8},
}
"""Where they are not a method's defaults."""
MODES = ("eager", "compiled", "autocast")


def make(name: str, model: Any, optimizer: torch.optim.Optimizer) -> Any:
    """A method as the benchmark runs it."""
    takes_units = "units" in inspect.signature(METHODS[name]).parameters
    units = {"units": model.units()} if takes_units else {}
    return METHODS[name](model, optimizer, **SETTINGS.get(name, {}), **units)


def share(method: Any) -> float:
    """The share of steps at which a method acts in the long run."""
    if isinstance(method, supple.CBP):
        # All layers fill their accumulators with the same part of their size a step, so each is due about once in
        # 1 / (rate * size) steps; layers of one size are due together.
        return sum(min(1.0, method.settings["replacement_rate"] * size) for size in {g.size for g in method.units})
    if method.acts_at_boundary and not method.settings.get("every"):
        return 0.0
    period = method.settings.get("frequency", method.settings.get("interval", 1))
    return 1 / period if method.replaces else 1.0


def skip_to_action(method: Any) -> None:
    """Lets a method count steps that are not taken until the next is one at which it acts."""
    while not method.due_next().any():
        method.step()


@dataclass
class Run:
    """One network in training, and the seconds it took.

    Args:
        task: what is trained.
        mode: one of :data:`MODES`.
        device: where.
        name: of the method; "" for none.
        backend: of compiling.

    Attributes:
        training: seconds of a step without the method's own, by whether the method changes it and whether it acts.
        own: seconds of the method's own step, by the same.
    """

    task: networks.Task
    mode: str
    device: str
    name: str = ""
    backend: str = "inductor"
    training: dict[tuple[bool, bool], list[float]] = field(default_factory=lambda: defaultdict(list))
    own: dict[tuple[bool, bool], list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = self.task.network().to(self.device)
        self.called = torch.compile(self.model, backend=self.backend) if self.mode == "compiled" else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.method = make(self.name, self.model, self.optimizer) if self.name else None

    def wait(self) -> float:
        """The time, once the device has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step(self, x: Tensor, y: Tensor, acts: bool = False) -> None:
        """One training step, timed in its two parts; ``acts`` says whether the method acts at it."""
        method, term = self.method, isinstance(self.method, Penalty)
        kind = method is not None and (term or bool(method.needs().readers)), acts
        own = 0.0
        start = self.wait()
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.mode == "autocast"):
            loss = self.task.loss(self.called, x, y)
            if term:
                loss = loss + method.penalty(x, loss=loss)
        loss.backward()
        if method is not None and method.acts_before_step:
            before = self.wait()
            method.before_step()
            own = self.wait() - before
        self.optimizer.step()
        middle = self.wait()
        self.training[kind].append(middle - start - own)
        if method is not None:
            method.step()
            self.own[kind].append(own + self.wait() - middle)

    def boundary(self, x: Tensor, y: Tensor) -> None:
        """Lets the method act as where the data change, timed."""
        data = [((x, y),), lambda model, batch: self.task.loss(model, *batch)] if self.name == "dash" else []
        start = self.wait()
        self.method.boundary(*data)
        self.own[False, True].append(self.wait() - start)

    def forget(self) -> None:
        """Forgets the seconds so far."""
        self.training.clear(), self.own.clear()

    def added(self, acts: bool, plain: float) -> float:
        """Seconds that the method adds to a plain step of so many, where it acts or where it does not."""
        found = []
        for kind in (kind for kind in self.own if kind[1] == acts):
            changed = statistics.median(self.training[kind]) - plain if kind[0] else 0.0
            found += [seconds + max(0.0, changed) for seconds in self.own[kind]]
        return statistics.median(found) if found else 0.0


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


# Networks of one class share what was compiled, also where a method listens to one of them, unless hooks are looked at;
# and what is compiled too often would run uncompiled.
@torch._dynamo.config.patch(skip_nnmodule_hook_guards=False, fail_on_recompile_limit_hit=True)
def compare(task: networks.Task, plain: Run, name: str, rounds: int) -> dict[str, Any]:
    """Trains a network with a method in turns with a plain one.

    Returns:
        Seconds of a plain step; what the method adds to it on average, as a share of it; seconds that it adds to a step
        at which it acts and to others; bytes that it keeps.
    """
    run = Run(task, plain.mode, plain.device, name, plain.backend)
    part = share(run.method)
    for number in range(-1, rounds):
        x, y = (tensor.to(plain.device) for tensor in task.batch())
        plain.step(x, y)
        run.step(x, y, acts=part == 1)
        if part == 0:
            run.boundary(x, y)
        elif part < 1:
            skip_to_action(run.method)
            run.step(x, y, acts=True)
        if number < 0:  # the first round warms up
            plain.forget(), run.forget()
    seconds = statistics.median(plain.training[False, False])
    acting, idle = (run.added(acts, seconds) for acts in (True, False))
    return {
        "plain": seconds,
        "share": part,
        "overhead": (part * acting + (1 - part) * idle) / seconds,
        "acting": acting,
        "idle": idle,
        "kept": kept_bytes(run.method),
    }


def measure(
    quick: bool,
    rounds: int,
    device: str,
    modes: Sequence[str] = MODES[:1],
    methods: Sequence[str] = tuple(METHODS),
    backend: str = "inductor",
) -> Iterator[dict[str, Any]]:
    """Compares methods with plain training on both networks, which ``backend`` compiles.

    A method that fails has an "error" instead of numbers.
    """
    for mode in modes:
        plains = {network: Run(task, mode, device, backend=backend) for network, task in networks.tasks(quick).items()}
        for name, (network, plain) in ((name, pair) for name in methods for pair in plains.items()):
            row = {"network": network, "mode": mode, "method": name}
            try:
                yield row | compare(plain.task, plain, name, rounds)
            except Exception as error:  # the others are to be measured all the same
                yield row | {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks and few steps")
    parser.add_argument("--rounds", type=int, help="steps of each kind; default: 7, with --quick 3")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["eager"], help="default: eager")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    rounds = options.rounds or (3 if options.quick else 7)
    print(f"{options.device}, {torch.get_num_threads()} threads; what methods add to a step")
    print(f"{'':41}{'plain step':>13}{'on average':>12}{'where acting':>15}{'idle':>12}{'kept':>13}")
    for row in measure(options.quick, rounds, options.device, options.mode, options.method):
        print(f"{row['network']:12}{row['mode']:10}{row['method']:19}", end="")
        if "error" in row:
            print(f" failed: {row['error']}", flush=True)
            continue
        print(
            f"{row['plain'] * 1e3:>10.1f} ms{row['overhead']:>+12.3%}{row['acting'] * 1e3:>12.2f} ms"
            f"{row['idle'] * 1e6:>9.0f} us{row['kept'] / 2**20:>9.3f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
