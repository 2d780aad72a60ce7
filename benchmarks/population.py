"""How fast populations train here, against loops that train one network a process on the same cores.

Network steps a second of permuted MNIST, 784-h-h-h-10 at batch 30: populations with each optimizer and method, a plain
training loop, a careful one, one in JAX where it is installed, and large matrix products for the machine's peak. Every
contender has one process a core, each kept on its core and with one thread (on a GPU: one process). All take turns,
several times over, and ratios are formed within a turn, so that a busy moment of the machine falls on all of them. Use
a machine that does nothing else.

    python benchmarks/population.py --quick --json -
    python benchmarks/population.py --width 100 --method swr shrink_and_perturb --repeats 5
    python benchmarks/population.py --device cuda --precision float32 tf32 bfloat16 --graphs --replicas 1024
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import engine
import torch
from memory import footprint
from population_tables import show
from rich.console import Console
from rich.progress import Progress
from timing import Workers, ask, cores, machine, peak, ratios, spread, workers

from supple.lab.nn import Architecture
from supple.lab.population import PRECISIONS
from supple.lab.study.run_config import cached, cut
from supple.methods.registry import METHODS

QUICK = {"width": [10, 100], "optimizer": ["sgd"], "method": ["swr", "cbp", "redo"], "repeats": 2, "seconds": 0.3}
"""What ``--quick`` measures less of."""
SCALING = (32, 64, 128, 256)
"""Numbers of replicas of ``--scaling``."""

Tick = Callable[[str], object]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; what means nothing is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, nargs="+", default=[10, 100, 1000], help="units of each hidden layer")
    parser.add_argument(
        "--optimizer", nargs="+", choices=engine.OPTIMIZERS, default=["sgd", "adamw"], help="sgd is always among them"
    )
    parser.add_argument(
        "--method", nargs="*", choices=METHODS, default=list(METHODS), help="default: all; base is always among them"
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often all take their turn (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one turn (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=256, help="networks of a population (default: %(default)s)")
    parser.add_argument("--settings", type=int, default=32, help="of them share a seed (default: %(default)s)")
    parser.add_argument("--images", type=int, default=60_000, help="images a task (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["float32"], help="of the populations' products"
    )
    parser.add_argument("--graphs", action="store_true", help="also replay steps with SGD as CUDA graphs (on a GPU)")
    parser.add_argument("--quick", action="store_true", help="half a minute instead of minutes; less exact")
    parser.add_argument(
        "--scaling", action="store_true", help="also time and memory for 32 to 256 networks and one and two tasks"
    )
    parser.add_argument("--json", type=argparse.FileType("w"), help="file for all numbers; - for standard output")
    if "--quick" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**QUICK)
    options = parser.parse_args(arguments)
    for name in ("repeats", "seconds", "replicas", "settings"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} is {getattr(options, name)}; it has to be above 0")
    if min(options.width) < 1:
        parser.error(f"--width is {min(options.width)}; it has to be 1 or more")
    if options.replicas % options.settings:
        parser.error(f"--replicas is {options.replicas}; it has to be a multiple of --settings, {options.settings}")
    if options.scaling and SCALING[0] % options.settings:
        parser.error(f"--settings is {options.settings}; with --scaling it has to divide {SCALING[0]}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    if "tf32" in options.precision and options.device != "cuda":
        parser.error("--precision tf32 is for GPUs; choose float32 or bfloat16, or --device cuda")
    if options.graphs and options.device != "cuda":
        parser.error("--graphs are replayed on GPUs; leave it out, or choose --device cuda")
    options.optimizer = list(dict.fromkeys(["sgd", *options.optimizer]))
    options.method = list(dict.fromkeys(["base", *options.method]))
    options.footprint = None if options.quick else 100
    options.scaling = SCALING if options.scaling else ()
    options.precision = list(dict.fromkeys(options.precision))
    options.loops = ["plain", "careful"]
    if options.device == "cpu" and importlib.util.find_spec("jax") is not None:
        options.loops.append("jax")
    return options


def part(options: argparse.Namespace, hidden: int) -> tuple[int, int]:
    """How many seeds, and settings a seed, are trained together.

    On a CPU a population is trained in parts whose weights stay in a core's share of the cache, one after another; the
    parts are alike, so one of them is measured.
    """
    seeds = options.replicas // options.settings
    if options.device != "cpu":
        return seeds, options.settings
    weights = 4 * Architecture(784, hidden, 10, 3).parameter_count
    return tuple(some.stop - some.start for some in cut(seeds, options.settings, cached(weights))[0])


def named(configuration: tuple[str, str, str, bool]) -> str:
    """What a population trains with, in words."""
    optimizer, method, precision, graphs = configuration
    return f"{optimizer} {method}, {precision}{', graphs' * graphs}"


def step_flops(hidden: int) -> int:
    """Operations of the matrix products of one training step of one network; a multiply-add is two."""
    return 2 * engine.BATCH * Architecture(784, hidden, 10, 3).multiply_adds


def measure_width(options: argparse.Namespace, hidden: int, processes: Workers, tick: Tick) -> dict[str, Any]:
    """Measures all contenders at one width, in turns."""
    seeds, settings = part(options, hidden)
    steps = list(itertools.product(options.precision, [False, True] if options.graphs else [False]))
    configurations = [
        # Only steps with SGD are recorded; and methods follow base, with which they are compared.
        (optimizer, method, *how)
        for optimizer, how, method in itertools.product(options.optimizer, steps, options.method)
        if optimizer == "sgd" or not how[1]
    ]
    tick(f"width {hidden}: making networks")
    common = (settings, options.images, options.device, options.optimizer, options.method)
    own = [range(n * seeds, (n + 1) * seeds) for n in range(len(processes))]
    ask(processes, engine.make, [(options.loops, hidden, numbers, *common, steps) for numbers in own])
    turns: dict[Any, list[list[dict[str, float]]]] = {key: [] for key in (*options.loops, *configurations)}
    peaks: dict[str, list[float]] = {precision: [] for precision in ("float32", *options.precision)}
    for _ in range(options.repeats):
        for name in options.loops:
            tick(f"width {hidden}: {name}")
            turns[name].append(ask(processes, engine.measure_held, [(name, options.seconds)] * len(processes)))
        tick(f"width {hidden}: peak")
        for precision, found in peaks.items():
            found.append(peak(options.device, precision=precision))
        for configuration in configurations:
            tick(f"width {hidden}: engine {named(configuration)}")
            arguments = ("engine", options.seconds, *configuration)
            turns[configuration].append(ask(processes, engine.measure_held, [arguments] * len(processes)))

    def rates(key: Any, replicas: int) -> list[float]:
        """Network steps a second of all processes together, one a turn."""
        return [sum(replicas / one["step"] for one in turn) for turn in turns[key]]

    def row(key: Any, replicas: int, precision: str = "float32") -> dict[str, Any]:
        gflops = [rate * step_flops(hidden) / 1e9 for rate in rates(key, replicas)]
        return {
            "hidden": hidden,
            "workers": len(turns[key][0]),
            "replicas": replicas,
            "steps_per_second": spread(rates(key, replicas)),
            "gflops": spread(gflops),
            "of_peak": spread(ratios(gflops, peaks[precision])),
        }

    def engine_row(optimizer: str, method: str, precision: str, graphs: bool) -> dict[str, Any]:
        key, count = (optimizer, method, precision, graphs), seeds * settings
        found = row(key, count, precision)
        base = rates((optimizer, "base", precision, graphs), count)
        overhead = [ratio - 1 for ratio in ratios(base, found["steps_per_second"]["values"])]
        means = {
            f"{kind}_seconds": spread([sum(one[kind] for one in turn) / len(turn) for turn in turns[key]])
            for kind in ("quiet", "acting", "start")
        }
        names = {"optimizer": optimizer, "method": method, "precision": precision, "graphs": graphs}
        own = {"settings": dict(engine.method_settings(method, hidden, optimizer)), "overhead": spread(overhead)}
        return names | found | own | {"action_share": engine.action_share(method, hidden, optimizer)} | means

    base = rates(configurations[0], seeds * settings)
    return {
        "peaks": peaks["float32"],
        "engine": [engine_row(*configuration) for configuration in configurations],
        "contenders": [
            {"name": name} | row(name, 1) | {"engine_over": spread(ratios(base, rates(name, 1)))}
            for name in options.loops
        ],
    }


def run(options: argparse.Namespace, tick: Tick = lambda text: None) -> dict[str, Any]:
    """Measures everything; ``tick`` is told what comes next."""
    groups = [[core] for core in cores()] if options.device == "cpu" else [cores()]
    with workers(groups) as processes:
        widths = [measure_width(options, hidden, processes, tick) for hidden in options.width]

    def memory(hidden: int, replicas: int, method: str, **what: int) -> dict[str, Any]:
        tick(f"memory of {replicas} networks with {method}")
        own = (hidden, replicas // options.settings, options.settings, method, options.device)
        with workers(groups[:1]) as one:
            (found,) = ask(one, footprint, [(*own, *what.values())])
        return {"hidden": hidden, "optimizer": "sgd", "method": method} | found

    footprints = []
    if options.footprint:
        seeds, settings = part(options, options.footprint)
        for method in (name for name in ("base", "swr") if name in options.method):
            replicas = max(seeds * settings, options.settings)
            footprints.append(memory(options.footprint, replicas, method, count=options.images, tasks=1, steps=20))
    scaling = [memory(100, count, "base", count=3000, tasks=2) for count in options.scaling]
    return {
        "format": 1,
        "plan": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": machine(options.device),
        "peak": spread([one for width in widths for one in width["peaks"]]),
        "engine": [row for width in widths for row in width["engine"]],
        "contenders": [row for width in widths for row in width["contenders"]],
        "footprints": footprints,
        "scaling": scaling,
        "notes": _notes(options),
    }


def _notes(options: argparse.Namespace) -> list[str]:
    notes = []
    if options.device == "cpu" and "jax" not in options.loops:
        notes.append("JAX is not installed, so its loop was left out: pip install jax.")
    for hidden in options.width:
        seeds, settings = part(options, hidden)
        if seeds * settings < options.replicas:
            notes.append(
                f"Width {hidden}: {options.replicas} networks in parts of {seeds * settings} "
                f"({seeds} seeds x {settings} settings), whose weights stay in the cache; one was measured."
            )
        if hidden >= 500 and len(options.method) > 1:
            notes.append(
                f"Width {hidden}: the study sweeps the methods at this size and names no best settings; used are "
                "points of the middle of each sweep."
            )
    return notes


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    # Numbers on standard output are for programs; tables then go beside them.
    console = Console(stderr=options.json is sys.stdout)
    ways = len(options.method) * len(options.precision)
    ways *= len(options.optimizer) + options.graphs
    turns = options.repeats * (ways + len(options.loops) + 1) + 1
    total = len(options.width) * turns + 2 * bool(options.footprint) + len(options.scaling)
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=total)
            found = run(options, lambda text: bar.update(task, advance=1, description=text))
    except BrokenProcessPool as error:
        raise SystemExit("Error: a process ended; memory may have run out, use fewer --replicas") from error
    except KeyboardInterrupt as error:
        raise SystemExit("Stopped; nothing was reported.") from error
    show(found, console)
    if options.json:
        print(json.dumps(found, indent=2), file=options.json, flush=True)


if __name__ == "__main__":
    main()
