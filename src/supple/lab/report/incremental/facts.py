"""What a class-incremental study was run with, as a report says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supple.lab.report.drawing import number
from supple.lab.report.incremental.problem import classes_after


def problem_texts(problem: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The problem in words.

    Args:
        problem: its settings.

    Returns:
        Pairs of a name and a text; what is not known is left out.
    """
    parts = ["class-incremental images"]
    if {"first", "step"} <= problem.keys():
        parts.append(f"{problem['first']} classes at first, {problem['step']} more at each addition")
    if problem.get("epochs"):
        parts.append(f"{counted(problem['epochs'], 'epoch')} with each number of classes")
    restored = problem.get("restore")
    if restored is not None:
        kept = "that of the best validation accuracy" if restored else "the last one"
        parts.append(f"the network kept at the end of an addition is {kept}")
    return [
        ("Problem", ", ".join(parts)),
        ("Images of a class", _images(problem)),
        ("Augmentation", _augmentation(problem)),
    ]


def _images(problem: Mapping[str, Any]) -> str:
    parts = []
    for name, words in (("train_images", "for training"), ("test_images", "for test")):
        if name in problem:
            parts.append(f"all {words}" if problem[name] is None else f"{problem[name]:,} {words}")
    if problem.get("validation"):
        parts.append(f"{problem['validation']:,} of those for training kept for validation")
    return ", ".join(parts)


def _augmentation(problem: Mapping[str, Any]) -> str:
    if not {"flip", "padding", "rotation"} & problem.keys():
        return ""
    parts = []
    if problem.get("flip"):
        parts.append(f"flip with probability {number(problem['flip'])}")
    if problem.get("padding"):
        parts.append(f"crop after padding by {counted(problem['padding'], 'pixel')}")
    if problem.get("rotation"):
        parts.append(f"rotation by up to {number(problem['rotation'])} degrees")
    return ", ".join(parts) or "none"


def length_text(problem: Mapping[str, Any], steps: Any, additions: int) -> str:
    """How long a network learns, in words.

    Args:
        problem: settings of the problem.
        steps: optimizer steps of each addition, or of all where they are alike; 0 where they are not known.
        additions: numbers of classes, one after the other.

    Returns:
        Such as "20 numbers of classes, 5 to 100: 2,000 epochs, 1,050,000 steps a network".
    """
    text = counted(additions, "number") + " of classes"
    last = classes_after(problem, additions)
    if last is not None:
        text += f", {problem['first']} to {last}" if additions > 1 else f", {last}"
    parts = [counted(additions * problem["epochs"], "epoch")] if problem.get("epochs") else []
    if steps:
        parts.append(counted(sum(steps) if isinstance(steps, list) else steps * additions, "step"))
    return f"{text}: {', '.join(parts)} a network" if parts else text


def transformer_text(network: Mapping[str, Any]) -> str:
    """A vision transformer in words.

    Args:
        network: its settings.

    Returns:
        Such as "vision transformer, 8 layers of width 384 with 12 heads, 1536 hidden units, patches of 4 x 4".
    """
    patch = network.get("patch_size", "?")
    parts = [
        "vision transformer",
        f"{counted(network.get('depth', '?'), 'layer')} of width {network.get('width', '?')} with "
        f"{counted(network.get('heads', '?'), 'head')}",
        f"{network.get('hidden', '?')} hidden units a layer",
        f"patches of {patch} x {patch}",
        f"dropout {number(network['dropout'])}" if network.get("dropout") else "no dropout",
        "reparameterized layer norm" if network.get("reparameterized") else "layer norm",
    ]
    if network.get("precision", "float32") != "float32":
        parts.append(f"products in {network['precision']}")
    return ", ".join([*parts, *(["compiled"] if network.get("compiled") else [])])


def counted(count: Any, what: str) -> str:
    """A number of things in words.

    Args:
        count: how many; anything else than a number is taken as it is.
        what: one of them.

    Returns:
        Such as "1 epoch" or "3 epochs".
    """
    return f"{count:,} {what}{'s' * (count != 1)}" if isinstance(count, int) else f"{count} {what}s"
