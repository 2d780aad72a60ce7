"""What exactly was run, as a report says it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supple.lab.data import DATA_SETS, DataSet
from supple.lab.report.measures import Measured
from supple.lab.report.texts import number, setting_words, words
from supple.lab.study.results import Results, Session

Facts = list[tuple[str, str]]
"""Pairs of a name and a text."""


def attribution(name: str, own: bool = False) -> str:
    """Title, authors and licence of a data set, or that files were not compared with it; empty if it is not known."""
    known = source(name)
    if known is None:
        return ""
    if own:
        return f"files in the form of {known.title}, not compared with it"
    part = "the first 10,000 training images of " if name == "mnist10k" else ""
    return f"{part}{known.title} ({'; '.join(filter(None, (known.reference, known.licence)))})"


def source(name: str) -> DataSet | None:
    """The data set that images come from; None for a name that is not known."""
    return DATA_SETS.get("mnist" if name == "mnist10k" else name)


def data_text(results: Results, of: str = "") -> str:
    """How many images there are of what, and where they are from."""
    problem: Any = results.study.problem
    name, own = problem.data, any("--no-verify" in one.command for one in results.sessions)
    count = f"{results.images.count:,} images{of}" if results.images.count else ""
    return ": ".join(filter(None, (count, attribution(name, own) or name)))


def network_text(network: Any) -> str:
    """A multilayer perceptron in words, such as "3 hidden layers of 10, ReLU, layer norm after the activation"."""
    parts = [f"{network.depth} hidden layers of {network.hidden}", words(network.activation)]
    if network.layer_norm:
        form = "reparameterized layer norm" if network.reparameterized else "layer norm"
        parts.append(f"{form} {network.layer_norm} the activation")
    if network.skip:
        parts.append(f"skip connections {network.skip} the activation")
    if network.inject is not None:
        parts.append(f"plasticity injected before task {network.inject + 1}")
    if network.precision != "float32":
        parts.append(f"products in {network.precision}")
    return ", ".join(parts)


_SCHEDULES = {
    "one_cycle": "one-cycle schedule at each addition",
    "steps": "a fifth of the step size after 30, 60 and 80% of each addition",
}


def optimizer_text(optimizer: Any, batch_size: int) -> str:
    """An optimizer in words, such as "SGD, step size 0.05, batches of 30"."""
    parts, schedule = [words(optimizer.name)], ""
    for name, value in optimizer:
        if name == "betas":
            if optimizer.name != "sgd":
                parts.append(f"betas {', '.join(map(number, value))}")
        elif name == "schedule":
            schedule = _SCHEDULES[value]
        elif name == "cycle_momentum":
            parts += ["momentum cycled from 0.95 down to 0.85 and back"] if value else []
        elif name != "name" and value:
            parts.append(f"{setting_words(name)} {number(value)}")
    return ", ".join(filter(None, [*parts, schedule, f"batches of {batch_size}"]))


def run_facts(measured: Measured) -> Facts:
    """How many runs there are, what was changed on the command line, and where and when it was run."""
    results = measured.results
    commands = dict.fromkeys(one.command for one in results.sessions if one.command)
    return [
        ("Runs", f"{len(results.runs):,}, {results.runs['seed'].n_unique()} seeds a method"),
        ("Scaled", "; ".join(_changed(name, *pair) for name, pair in results.scaled.items())),
        ("Source", results.study.source),
        *_where(results.sessions),
        ("Folder", str(results.folder)),
        ("Command", "; ".join(commands)),
        ("To go on", "" if measured.complete else going_on(measured)),
    ]


def going_on(measured: Measured, seeds: bool = True) -> str:
    """The command that goes on with a study as it was run, with all of its methods and, if told so, the same seeds."""
    results = measured.results
    given = shlex.split(results.command)
    if given[:2] == ["supple", "demo"]:
        return results.command
    if given[2:] != [results.name]:
        command = given[:3] + _without(given[3:], ("--seeds", "--methods", "--out"))
    else:
        command = ["supple", "run", results.name]
        for name in ("tasks", "data"):
            command += [f"--{name}", str(results.scaled[name][1])] if name in results.scaled else []
    if seeds and "seeds" in results.scaled:
        command += ["--seeds", seeds_option(results.scaled["seeds"][1])]
    if results.folder != Path("supple-results") / results.name:
        command += ["--out", str(results.folder)]
    return shlex.join(command)


def seeds_option(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them."""
    return str(len(seeds)) if list(seeds) == list(range(len(seeds))) else ",".join(map(str, seeds))


def _without(given: Sequence[str], options: Sequence[str]) -> list[str]:
    """The words of a command without some options and their values."""
    kept: list[str] = []
    skip = False
    for word in given:
        if not skip and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept


def _changed(name: str, file: Any, run: Any) -> str:
    """What differs from the study file."""
    if name == "methods":
        return f"methods: {', '.join(run)} instead of {len(file)}"
    before, after = (len(value) if isinstance(value, list) else value for value in (file, run))
    return f"{name}: {after} instead of {before}"


def _where(sessions: Sequence[Session]) -> Facts:
    """Where and when it was run."""
    if not sessions:
        return []
    machines, versions = [], []
    for one in sessions:
        machine = one.machine
        cores = f"{machine.cores} cores" if machine.cores else ""
        machines.append(", ".join(filter(None, [machine.system, machine.processor, cores, machine.device])))
        versions.append(", ".join(f"{name} {text}" for name, text in one.versions.items()))
    seconds = sum(one.seconds for one in sessions)
    hours, minutes = divmod(round(seconds / 60), 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
    begun = f" from {sessions[0].started}" if sessions[0].started else ""
    times = f" in {len(sessions)} sessions" if len(sessions) > 1 else ""
    return [
        ("Machine", "; ".join(dict.fromkeys(filter(None, machines)))),
        ("Versions", "; ".join(dict.fromkeys(filter(None, versions)))),
        ("Training", f"{took}{times}{begun}"),
    ]
