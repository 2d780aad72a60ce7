"""Which rows of a class-incremental study are a network trained from scratch at each addition."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl


def whole(parts: str | None) -> bool:
    """Whether what the method "reset" draws again is the whole network.

    Args:
        parts: its setting ``parts``, joined by +; None: its default.

    Returns:
        Whether it is, whatever else is drawn again with it.
    """
    return parts is None or "network" in parts.split("+")


def partial_resets(folders: Iterable[pl.DataFrame]) -> dict[str, str]:
    """What the row that bears the name of "reset" is called where not all of its runs draw the whole network again.

    Args:
        folders: the runs of each, with "method", "kind" and, where it was given, "parts".

    Returns:
        For its name what people call it, such as "reset head", or "reset" if it draws several things; empty where it is
        the network trained from scratch, or is not there.
    """
    drawn: set[str | None] = set()
    for runs in folders:
        own = runs.filter(method="reset", kind="reset")
        drawn.update(own["parts"] if "parts" in own.columns else [None] * len(own))
    if all(map(whole, drawn)):
        return {}
    return {"reset": f"reset {drawn.pop()}" if len(drawn) == 1 else "reset"}
