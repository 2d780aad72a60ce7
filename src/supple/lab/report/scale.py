"""How much smaller than those of the paper some runs are, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supple.lab.report.drawing import number
from supple.lab.report.incremental.problem import classes_after
from supple.lab.report.variants import words

PAPER_TASKS = 1000
"""Permutations of a run in arXiv 2508.00212."""

PAPER_IMAGES = 60_000
"""Images of a permutation there."""

PAPER_BATCH = 30
"""Images of a batch there."""

PAPER_ADDITIONS = 20
"""Numbers of classes, one after the other, of a class-incremental run there."""

PAPER_CLASSES = 100
"""Classes in the end, there."""

PAPER_STEP = 5
"""Classes at first, and that each addition brings, there."""

PAPER_VALIDATION = 50
"""Training images of a class that are kept for validation there."""

PAPER_EPOCHS = 100
"""Epochs with each number of classes there."""

PAPER_INCREMENTAL_BATCH = 90
"""Images of a batch of a class-incremental run there."""

PAPER_TRANSFORMER = {"patch_size": 4, "depth": 8, "heads": 12, "width": 384, "hidden": 1536}
"""Sizes of the vision transformer there."""


def permuted_scale(problem: Mapping[str, Any], images: int, tasks: int) -> str:
    """What of a permuted study is smaller than the paper's.

    Args:
        problem: settings of the problem.
        images: images of a task; 0 where it is not known.
        tasks: tasks of a run that are counted.

    Returns:
        The words; empty if nothing is.
    """
    parts = []
    if tasks < PAPER_TASKS:
        parts.append(f"{tasks:,} of the paper's {PAPER_TASKS:,} tasks")
    if images and images != PAPER_IMAGES:
        parts.append(f"{images:,} instead of {PAPER_IMAGES:,} images a task")
    if problem.get("data", "") not in ("mnist", "mnist10k"):
        parts.append(f"images of {problem.get('data', '')}")
    return ", ".join([*parts, *_batches(problem, PAPER_BATCH)])


def incremental_scale(problem: Mapping[str, Any], network: Mapping[str, Any], additions: int) -> str:
    """What of a class-incremental study is smaller than the paper's.

    Args:
        problem: settings of the problem.
        network: settings of the network.
        additions: numbers of classes of a run that are counted.

    Returns:
        The words; empty if nothing is.
    """
    parts = []
    if additions < PAPER_ADDITIONS:
        parts.append(f"{additions} of the paper's {PAPER_ADDITIONS} additions")
    classes = classes_after(problem, additions) or PAPER_CLASSES
    if classes != PAPER_CLASSES:
        parts.append(f"{classes} instead of {PAPER_CLASSES} classes")
    first, step = problem.get("first", PAPER_STEP), problem.get("step", PAPER_STEP)
    if (first, step) != (PAPER_STEP, PAPER_STEP):
        parts.append(f"{first} classes at first and {step} at each addition instead of {PAPER_STEP}")
    if problem.get("data") != "cifar100":
        parts.append(f"images of {problem.get('data', '')}")
    for name, purpose in (("train_images", "training"), ("test_images", "test")):
        if problem.get(name) is not None:
            parts.append(f"{problem[name]:,} {purpose} images of a class instead of all")
    if problem.get("validation", PAPER_VALIDATION) != PAPER_VALIDATION:
        parts.append(f"{problem['validation'] or 0} instead of {PAPER_VALIDATION} validation images of a class")
    if problem.get("epochs") not in (None, PAPER_EPOCHS):
        parts.append(f"{problem['epochs']} instead of {PAPER_EPOCHS} epochs an addition")
    parts += [
        f"{words(name)} {number(network[name])} instead of {paper}"
        for name, paper in PAPER_TRANSFORMER.items()
        if network.get(name, paper) != paper
    ]
    return ", ".join([*parts, *_batches(problem, PAPER_INCREMENTAL_BATCH)])


def _batches(problem: Mapping[str, Any], paper: int) -> list[str]:
    size = problem.get("batch_size") or paper
    return [f"batches of {size} instead of {paper}"] if size != paper else []
