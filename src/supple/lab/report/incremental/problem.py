"""The classes of a class-incremental problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supple.lab.data import DATA_SETS


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
    source = DATA_SETS.get(str(problem.get("data")))
    return classes if source is None else min(classes, source.classes)
