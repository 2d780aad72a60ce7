"""Grids: tables in which a list stands for each of its values in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """One choice of a value from each list.

    Args:
        values: the table with a value in place of each list.
        text: the chosen values, such as "factor=1e-05, frequency=256".
    """

    values: Mapping[str, Any]
    text: str


def expand(table: Mapping[str, Any]) -> list[Point]:
    """Each value of each list with each value of the others; the first list changes slowest.

    Args:
        table: values, and tables of them. A list that stands for itself, betas of an optimizer, is a grid only where
            it is a list of lists.

    Returns:
        The points; one where there is no list.

    Raises:
        ValueError: if a list is empty.
    """
    axes = list(_axes(table, ()))
    for path, values in axes:
        if not values:
            raise ValueError(f"{'.'.join(path)}: the list is empty; give one value or more")
    points = []
    for chosen in itertools.product(*(values for _, values in axes)):
        point = _copy(table)
        for (path, _), value in zip(axes, chosen, strict=True):
            target = point
            for part in path[:-1]:
                target = target[part]
            target[path[-1]] = value
        text = ", ".join(f"{'.'.join(path)}={_show(value)}" for (path, _), value in zip(axes, chosen, strict=True))
        points.append(Point(point, text))
    return points


def _axes(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _axes(value, (*path, name))
        elif isinstance(value, list) and (name != "betas" or any(isinstance(entry, list) for entry in value)):
            yield (*path, name), value


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, Mapping) else value for name, value in table.items()}


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
