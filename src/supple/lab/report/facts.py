"""What exactly was run, as a report says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supple.lab.report.attribution import attribution
from supple.lab.report.drawing import number
from supple.lab.report.incremental.facts import length_text, problem_texts, transformer_text
from supple.lab.report.measured import Measured
from supple.lab.report.section import setting_words
from supple.lab.report.settings import going_on, image_count
from supple.lab.report.variants import words


def study_facts(measured: Measured) -> list[tuple[str, str]]:
    """What exactly was run, as pairs of a name and a text.

    Args:
        measured: the numbers of a folder.

    Returns:
        The pairs; what the folder does not know is left out.
    """
    manifest = measured.results.manifest
    study = manifest.get("study") or {}
    problem, incremental = measured.problem, measured.incremental
    images = image_count(manifest)
    sessions = manifest.get("sessions") or []
    data = str(problem.get("data", ""))
    about = attribution(data, own=any("--no-verify" in str(one.get("command", "")) for one in sessions)) or data
    count = f"{images:,} images{'' if incremental else ' a task'}" if images else ""
    facts = [
        ("Study", measured.name),
        *(problem_texts(problem) if incremental else [("Problem", _problem(problem))]),
        ("Data", ": ".join(filter(None, (count, about)))),
        ("Network", network_text(study.get("network") or {})),
        ("Optimizer", optimizer_text(study.get("optimizer") or {}, problem)),
        ("Length", _length(manifest, problem, incremental)),
        ("Runs", f"{len(measured.results.runs):,}, {measured.results.runs['seed'].n_unique()} seeds a method"),
        ("Scaled", _scaled(manifest.get("scaled") or {})),
        *_where(sessions),
        ("Folder", str(measured.results.folder)),
        ("Command", "; ".join(dict.fromkeys(str(one["command"]) for one in sessions if one.get("command")))),
        ("To go on", "" if measured.complete else going_on(measured)),
    ]
    return [(name, text) for name, text in facts if text]


def network_text(network: Mapping[str, Any]) -> str:
    """A network in words.

    Args:
        network: its settings.

    Returns:
        Such as "3 hidden layers of 10, ReLU, layer norm after the activation".
    """
    if not network:
        return ""
    if "patch_size" in network:
        return transformer_text(network)
    parts = [f"{network.get('depth', '?')} hidden layers of {network.get('hidden', '?')}"]
    parts.append(words(str(network.get("activation") or "relu")))
    if network.get("layer_norm"):
        form = "reparameterized layer norm" if network.get("reparameterized") else "layer norm"
        parts.append(f"{form} {network['layer_norm']} the activation")
    if network.get("skip"):
        parts.append(f"skip connections {network['skip']} the activation")
    return ", ".join(parts)


def optimizer_text(optimizer: Mapping[str, Any], problem: Mapping[str, Any]) -> str:
    """An optimizer in words.

    Args:
        optimizer: its settings.
        problem: the settings of the problem.

    Returns:
        Such as "SGD, step size 0.05, batches of 30".
    """
    if not optimizer:
        return ""
    parts = [words(str(optimizer.get("name", "sgd")))]
    for name, value in optimizer.items():
        if name == "betas":
            if optimizer.get("name") != "sgd":
                parts.append(f"betas {', '.join(map(number, value))}")
        elif name == "cycle_momentum" and value:
            parts.append("momentum cycled from 0.95 down to 0.85 and back")
        elif name != "name" and value:
            parts.append(f"{setting_words(name)} {number(value)}")
    if problem.get("kind") == "class_incremental":
        parts.append("one-cycle schedule at each addition")
    if problem.get("batch_size"):
        parts.append(f"batches of {problem['batch_size']}")
    return ", ".join(parts)


def _problem(problem: Mapping[str, Any]) -> str:
    if problem.get("kind") == "permuted":
        return "permuted images: each task has its own random order of the pixels, and shows every image once"
    return words(str(problem.get("kind", "")))


def _length(manifest: Mapping[str, Any], problem: Mapping[str, Any], incremental: bool) -> str:
    steps, tasks = manifest.get("steps") or 0, manifest["tasks"]
    if incremental:
        return length_text(problem, steps, tasks)
    return f"{tasks:,} tasks" + (f" of {steps:,} steps: {tasks * steps:,} steps a network" if steps else "")


def _scaled(scaled: Mapping[str, Any]) -> str:
    """What differs from the study file."""
    texts = []
    for name, (file, run) in scaled.items():
        both = [f"{len(value)}" if isinstance(value, list) else str(value) for value in (run, file)]
        if name == "methods":
            both[0] = ", ".join(run)
        texts.append(f"{name}: {both[0]} instead of {both[1]}")
    return "; ".join(texts)


def _where(sessions: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Where and when it was run."""
    if not sessions:
        return []
    machines, versions = [], []
    for one in sessions:
        machine = one.get("machine") or {}
        cores = f"{machine['cores']} cores" if machine.get("cores") else ""
        known = [str(machine.get(key) or "") for key in ("system", "processor")]
        machines.append(", ".join(filter(None, [*known, cores, str(machine.get("device") or "")])))
        versions.append(", ".join(f"{name} {text}" for name, text in (one.get("versions") or {}).items()))
    seconds = sum(float(one.get("seconds") or 0) for one in sessions)
    hours, minutes = divmod(round(seconds / 60), 60)
    took = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
    begun = f"from {sessions[0].get('started')}" if sessions[0].get("started") else ""
    plural = f" in {len(sessions)} sessions" if len(sessions) > 1 else ""
    return [
        ("Machine", "; ".join(dict.fromkeys(filter(None, machines)))),
        ("Versions", "; ".join(dict.fromkeys(filter(None, versions)))),
        ("Training", f"{took}{plural} {begun}".strip()),
    ]
