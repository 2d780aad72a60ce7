"""Where images come from, as a report says it."""

from __future__ import annotations

from supple.lab.data import DATA_SETS, DataSet


def attribution(name: str, own: bool = False) -> str:
    """Title, authors and licence of a data set.

    Args:
        name: its name.
        own: whether the images come from files that were not compared with those of the data set.

    Returns:
        The text; empty for a name that is not known.
    """
    known = source(name)
    if known is None:
        return ""
    if own:
        return f"files in the form of {known.title}, not compared with it"
    part = "the first 10,000 training images of " if name == "mnist10k" else ""
    return f"{part}{known.title} ({'; '.join(filter(None, (known.reference, known.licence)))})"


def source(name: str) -> DataSet | None:
    """The data set that images come from.

    Args:
        name: its name, or mnist10k.

    Returns:
        The data set; None for a name that is not known.
    """
    return DATA_SETS.get("mnist" if name == "mnist10k" else name)
