"""The classes of a class-incremental problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLASSES = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
"""Classes of a set of images."""


def classes_after(problem: Mapping[str, Any], additions: int) -> int | None:
    """Classes seen after some additions; the last one brings what is left of the set of images.

    Args:
        problem: settings of the problem.
        additions: how many, the first classes counting as one.

    Returns:
        The number; None where it is not known.
    """
    if not {"first", "step"} <= problem.keys():
        return None
    classes = int(problem["first"] + problem["step"] * (additions - 1))
    return min(classes, _CLASSES.get(str(problem.get("data")), classes))
