"""Errors in a study file, explained: the place, what is there, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


class StudyError(ValueError):
    """A study file that cannot be run; the message names the file and the key, and says what is allowed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of an unknown name, such as "there is no 'srw'. Did you mean swr? There are base, swr."."""
    known = list(known)
    return f"there is no {name!r}.{did_you_mean(name, known)} There are {', '.join(known)}."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Such as " Did you mean swr?"; empty where no known name is near."""
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    return f" Did you mean {near[0]}?" if near else ""


_FIXED = {
    "problem": "all networks of a study see the same tasks",
    "run": "all runs of a study are equally long and have the same seeds",
    "measure": "the same is measured in all runs of a study",
}
"""Sections whose settings cannot be a grid, and why."""


def explain(error: ValidationError, section: type[BaseModel], where: str = "") -> list[str]:
    """What is wrong with a section, a line a mistake.

    ``where`` is its place in the file, such as "methods.tanh.network"; empty for the whole file.
    """
    lines = []
    for mistake in error.errors():
        (*path, last), inner = _keys(section, mistake["loc"])
        place = ".".join(filter(None, (where, *path, last)))
        value, first = mistake.get("input"), (path or [last])[0]
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            lines.append(f"{place}: {nearest(last, inner.model_fields)}")
        elif mistake["type"] == "missing":
            lines.append(f"{place} is missing")
        elif isinstance(value, list) and first in _FIXED and last != "seeds":
            lines.append(
                f"{place} is {value}; it cannot be a grid, because {_FIXED[first]}. Write a study file for each value"
            )
        elif isinstance(value, list) and first in ("network", "optimizer") and last != "betas":
            lines.append(
                f"{place} is {value}; a grid belongs to a method, as in [methods.base] {place} = {value}, so that it "
                "is known which methods it is for"
            )
        else:
            shown = "" if isinstance(value, dict) or str(value) in message else f" is {value!r}"
            lines.append(f"{place}{shown}: {message}".removeprefix(": "))
    return lines


def _keys(section: Any, place: Iterable[int | str]) -> tuple[list[str], Any]:
    """The keys of a place within a section, without the names of alternatives, and the section of the last key."""
    keys: list[str] = []
    inner = here = section
    for part in map(str, place):
        alternatives = [get_args(one) for one in get_args(here) if get_origin(one) is Annotated]
        chosen = [one for one, tag in alternatives if tag.tag == part]
        if chosen:
            here = chosen[0]
            continue
        keys.append(part)
        known = getattr(here, "model_fields", {})
        inner, here = here, known[part].annotation if part in known else None
    return keys or [""], inner
