"""Everything that is to be shown on a GPU, with one command: tests, speed and memory, and which targets are met.

Parts run one after another, the most important first, each in a process of its own and within a share of the budget,
so that a part that fails or takes too long is a row that says so and the others run all the same. What was found goes
into one JSON file and one Markdown table. On a CPU the same parts run at small sizes, which shows that they work and
nothing else.

    python benchmarks/gpu.py --out supple-gpu
    python benchmarks/gpu.py --device cpu --only device populations
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import incremental
import population
import stacked as modules
import torch
import training_step
from timing import machine, peak

from supple.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
STUDY = ("base", "l2", "shrink_and_perturb", "cbp", "redo", "swr")
COMPARISON = len(STUDY) * 30 * 1000 * 2000
"""Network steps of the small comparison: 6 methods x 30 seeds x 1,000 tasks of 2,000 steps."""
Row = dict[str, Any]


def row(what: str, found: str, **numbers: Any) -> Row:
    """A row of the table: what was measured, what was found in words, and the numbers for programs."""
    return {"what": what, "found": found, **numbers}


def check_device(device: str) -> Iterator[Row]:
    """The device, what it multiplies, and that it multiplies rightly."""
    here = machine(device)
    yield row("machine", f"{here.get('gpu', here['cpu'])}, torch {here['torch']}, CUDA {torch.version.cuda}", **here)
    if device == "cuda":
        about = torch.cuda.get_device_properties(0)
        memory = about.total_memory
        yield row("memory", f"{memory / 2**30:.0f} GiB, capability {about.major}.{about.minor}", bytes=memory)
    left, right = torch.rand(2, 256, 256, dtype=torch.float64)
    wrong = float(((left.to(device) @ right.to(device)).cpu() - left @ right).abs().max())
    if wrong > 1e-9:
        raise RuntimeError(f"a product of float64 matrices is off by {wrong:.1e}")
    for precision in ("float32", "tf32", "bfloat16") if device == "cuda" else ("float32",):
        rate = peak(device, precision=precision)
        yield row(f"peak of products, {precision}", f"{rate / 1e3:.2f} TFLOP/s", gflops=rate)


def run_tests(device: str) -> Iterator[Row]:
    """The tests marked cuda, some of which forbid to wait for the device."""
    files = [
        str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text("utf-8")
    ]
    arguments = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", "-rfE", *files]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    for line in lines:
        if line.startswith(("FAILED ", "ERROR ")):
            name, _, why = line.partition(" ")[2].partition(" - ")
            yield row(name, f"failed: {why}", failed=True)
    last = lines[-1] if lines else done.stderr[-300:]
    yield row(f"tests marked cuda, in {len(files)} files", last, failed=done.returncode != 0)


def _population(device: str, *arguments: str, memory: bool = False) -> dict[str, Any]:
    sizes = ["--repeats", "2", "--seconds", "0.3"] if device == "cuda" else ["--repeats", "1", "--seconds", "0.02"]
    sizes += [] if device == "cuda" else ["--images", "900", "--settings", "2"]
    options = population.parse(["--device", device, "--optimizer", "sgd", *sizes, *arguments])
    options.footprint = options.width[0] if memory else None
    options.loops = ["plain", "careful"]
    return population.run(options)


def populations(device: str) -> Iterator[Row]:
    """Populations of each width and size, precision, and with and without CUDA graphs, against loops."""
    how = ["--precision", "float32", "tf32", "bfloat16", "--graphs"] if device == "cuda" else ["--precision", "float32"]
    # The size that a target names comes first.
    sizes = [(100, 1024), (10, 1024), (100, 256), (10, 256), (1000, 256), (1000, 1024)]
    for width, replicas in sizes if device == "cuda" else [(10, 4)]:
        try:
            wanted = ("--width", str(width), "--replicas", str(replicas), "--method", *how)
            found = _population(device, *wanted, memory=True)
        except Exception as error:
            yield row(f"h = {width}, R = {replicas}", f"failed: {type(error).__name__}: {error}", failed=True)
            continue
        plain, careful = (one["steps_per_second"]["median"] for one in found["contenders"])
        for one in found["engine"]:
            rate = one["steps_per_second"]["median"]
            said = f"{rate:,.0f} network steps/s, {rate / plain:.1f} x plain, {rate / careful:.1f} x careful"
            said += f", {one['of_peak']['median']:.1%} of the peak"
            name = f"h = {width}, R = {replicas}, {one['precision']}{', graphs' * one['graphs']}"
            yield row(name, said, rate=rate, plain=plain, careful=careful, asked=replicas, **one)
        for one in found["footprints"]:
            if one["extra"] is not None:
                said = f"{one['extra'] / 1e6:,.0f} MB, of which {one['parameters'] / 1e6:,.0f} MB are weights"
                yield row(f"h = {width}, R = {replicas}, memory", said, **one)


def methods(device: str) -> Iterator[Row]:
    """What each method costs in a population, at the settings of the study or its defaults."""
    able = [name for name, method in METHODS.items() if not method.loops_only]
    # What a target needs comes first.
    groups = [[name for name in able if name in STUDY], [name for name in able if name not in STUDY]]
    replicas = "256" if device == "cuda" else "4"
    for group, width in itertools.product(groups, (10, 100) if device == "cuda" else (10,)):
        try:
            found = _population(device, "--width", str(width), "--replicas", replicas, "--method", *group)
        except Exception as error:
            yield row(f"h = {width}, R = {replicas}, {', '.join(group)}", f"failed: {error}", failed=True)
            continue
        for one in found["engine"]:
            rate, over = one["steps_per_second"]["median"], one["overhead"]["median"]
            name = f"h = {width}, R = {replicas}, {one['method']}"
            yield row(name, f"{rate:,.0f} network steps/s, {over:+.1%}", rate=rate, overhead_share=over, **one)
    left = ", ".join(name for name in METHODS if name not in able)
    yield row("left out", f"{left}: they need what a population does not give them")


def drop_in(device: str, mode: str) -> Iterator[Row]:
    """What each method adds to a step of ResNet-18 and of a transformer."""
    small = device == "cpu"
    # Compiling for a CPU takes minutes; what is compiled there is run as it is.
    backend = "eager" if small else "inductor"
    for one in training_step.measure(small, 1 if small else 7, device, [mode], backend=backend):
        if "error" in one:
            said = f"failed: {one['error']}"
        else:
            said = f"{one['overhead']:+.2%} of {one['plain'] * 1e3:.1f} ms; {one['acting'] * 1e3:.2f} ms where it acts"
        numbers = {"overhead_share": one["overhead"]} if "overhead" in one else {"failed": True}
        yield row(f"{one['network']}, {one['method']}", said, **numbers, **one)


def vision_transformer(device: str) -> Iterator[Row]:
    """The vision transformer of the study against the plain loop."""
    small = device == "cpu"
    options = argparse.Namespace(device=device, rounds=1 if small else 3, steps=1 if small else 50, compiled=False)
    options.workers = min(8, os.cpu_count() or 1)
    for name, one in incremental.measure(options, incremental.SMALL if small else {}).items():
        rate, over, shares = one["images_a_second"]["median"], one["over_plain"]["median"], one["shares"]
        said = f"{rate:,.0f} images/s, {over:.2f} x plain; data {shares['data']:.2%}, method {shares['method']:.2%}"
        yield row(name, said, rate=rate, over=over, **one)


def stacked(device: str) -> Iterator[Row]:
    """Stacked convolutions and small GPTs against one network after another."""
    seconds, turns = (0.5, 3) if device == "cuda" else (0.02, 1)
    for kind, replicas in itertools.product(modules.NETWORKS, (32, 256) if device == "cuda" else (2,)):

        def rate_of(number: int, kind: str = kind) -> float:
            return modules.rate(kind, number, seconds, device)

        try:
            found = modules.compare(rate_of, replicas, turns)
        except Exception as error:
            yield row(f"{kind}, R = {replicas}", f"failed: {type(error).__name__}: {error}", failed=True)
            continue
        rate, over = found["stacked"]["median"], found["ratio"]["median"]
        yield row(f"{kind}, R = {replicas}", f"{rate:,.0f} network steps/s, {over:.2f} x one network", **found)


def study(device: str) -> Iterator[Row]:
    """A small study from end to end: run by two processes, and reported on."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        common = [sys.executable, "-m", "supple"]
        run = ["run", "permuted_mnist/small", "--data", "mnist10k", "--tasks", "2", "--seeds", "2", "--out", folder]
        run += ["--device", device, "--processes", "2", "--part-size", "6"]
        run += [] if device == "cuda" else ["--methods", "base,swr"]
        for arguments in (run, ["report", folder]):
            done = subprocess.run([*common, *arguments], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"supple {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-300:]}")
        seconds = time.perf_counter() - start
    yield row("run and report, two processes", f"{seconds:.0f} s", seconds=seconds)


PARTS: dict[str, tuple[float, Callable[[str], Iterator[Row]]]] = {
    "device": (20, check_device),
    "tests": (80, run_tests),
    "populations": (140, populations),
    "drop-in, eager": (70, lambda device: drop_in(device, "eager")),
    "methods": (80, methods),
    "transformer": (50, vision_transformer),
    "drop-in, autocast": (50, lambda device: drop_in(device, "autocast")),
    "study": (40, study),
    "stacked": (25, stacked),
    "drop-in, compiled": (90, lambda device: drop_in(device, "compiled")),
}
"""Parts by name, the most important first: the seconds that one has on a GPU, and what it does."""


def targets(rows: list[Row], device: str) -> list[Row]:
    """Which targets are met; what was not measured is said."""

    def of(part: str, **wanted: Any) -> list[Row]:
        chosen = [one for one in rows if one["part"].startswith(part) and not one.get("failed")]
        return [one for one in chosen if all(one.get(name) == value for name, value in wanted.items())]

    def told(name: str, said: str, met: bool) -> Row:
        if not said or device == "cpu":
            return row(name, f"not measured{', but at small sizes on a CPU' * bool(said)}", met=None, part="target")
        return row(name, f"{'met' if met else 'not met'}: {said}", met=met, part="target")

    best = max((one["rate"] for one in of("populations", hidden=100, asked=1024)), default=0.0)
    own = {one["method"]: one["rate"] for one in of("methods", hidden=10) if one["method"] in STUDY}
    minutes = COMPARISON / statistics.harmonic_mean(own.values()) / 60 if len(own) == len(STUDY) else 0.0
    ours = of("transformer", what="supple, SWR")
    shown = [f"{one['over']:.2f} x, data {one['shares']['data']:.2%}" for one in ours]
    costs = {
        f"{one['part']}, {one['what']}": one["overhead_share"]
        for one in rows
        if one.get("method") != "base" and "overhead_share" in one
    }
    above = [f"{name} {value:+.0%}" for name, value in costs.items() if value > 0.1]
    count = f"{len(costs) - len(above)} of {len(costs)} measurements are" if costs else ""
    return [
        told("1,000,000 network steps/s at h = 100, R = 1,024", f"{best:,.0f}" * bool(best), best >= 1e6),
        told("small comparison in 15 minutes by its rate", f"{minutes:,.1f} min" * bool(minutes), minutes <= 15),
        told(
            "transformer 3 x the plain loop, data below 5%",
            "".join(shown),
            all(one["over"] >= 3 and one["shares"]["data"] < 0.05 for one in ours),
        ),
        told("every method at most 10%", "; above it: ".join([count, *[", ".join(above)] * bool(above)]), not above),
    ]


def run_part(name: str, device: str, seconds: float) -> list[Row]:
    """Runs a part in a process of its own; its rows, and one that says why it ended where it did not finish."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        file.touch()
        arguments = [sys.executable, __file__, "--device", device, "--part", name, "--out", str(file)]
        # With a session of its own, what a part has started ends with it.
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        why = ""
        try:
            _, errors = process.communicate(timeout=seconds)
            if process.returncode:
                lines = errors.strip().splitlines()
                why = f"failed: {lines[-1] if lines else f'ended with {process.returncode}'}"
        except subprocess.TimeoutExpired:
            why = f"left out: the rest did not fit into {seconds:.0f} s"
        finally:
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        # A row that was being written when the part ended has no end of line.
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
    rows += [row(name, why, failed=True)] if why else []
    return [{**one, "part": name} for one in rows]


def table(found: dict[str, Any]) -> str:
    """What was found, as a Markdown table: the targets first."""
    lines = ["| part | what | found |", "|---|---|---|"]
    for one in found["rows"]:
        cells = (str(one[name]).replace("|", "\\|").replace("\n", " ") for name in ("part", "what", "found"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run; default: all")
    parser.add_argument("--out", type=Path, default=Path("supple-gpu"), help="folder for gpu.json and gpu.md")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.budget <= 0:
        parser.error(f"--budget is {options.budget:g}; it has to be above 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    if options.part:
        with options.out.open("a", encoding="utf-8") as file:
            for one in PARTS[options.part][1](options.device):
                print(json.dumps(one, default=str), file=file, flush=True)
        return
    end = time.monotonic() + options.budget
    rows: list[Row] = []
    took: dict[str, float] = {}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in (name for name in PARTS if name in options.only):
        left = end - time.monotonic()
        # On a CPU nothing is as long as on a GPU, and only the whole is limited.
        seconds = min(left, PARTS[name][0]) if options.device == "cuda" else left
        print(f"{name}: at most {max(0, seconds):.0f} s", file=sys.stderr, flush=True)
        if seconds < 3:
            rows.append(row(name, "left out: the budget was spent", failed=True, part=name))
            continue
        began = time.monotonic()
        rows += run_part(name, options.device, seconds)
        took[name] = round(time.monotonic() - began, 1)
        # What is there is kept if the rest is interrupted.
        found = {"device": options.device, "budget": options.budget, "seconds": took}
        found["rows"] = targets(rows, options.device) + rows
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (options.out / "gpu.md").write_text(table(found), encoding="utf-8")
    print(table({"rows": targets(rows, options.device) + rows}))
    if any(one["part"] == "device" and one.get("failed") for one in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
