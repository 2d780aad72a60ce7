"""The tables that ``population.py`` prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from timing import ends, spread, table

from supple.methods.registry import METHODS

LOOPS = {"plain": "plain loop", "careful": "careful loop", "jax": "JAX scan"}


def show(found: dict[str, Any], console: Console) -> None:
    """Prints all of it."""
    plan, here = found["plan"], found["machine"]
    console.print(
        f"{here.get('gpu', here['cpu'])}, {here['cores']} cores, torch {here['torch']}, Python {here['python']}\n"
        f"Permuted MNIST, 784-h-h-h-10, batch 30; medians and ranges of {plan['repeats']} x {plan['seconds']:g} s\n"
        f"Large matrix products in float32: {found['peak']['median']:.0f} GFLOP/s ({ends(found['peak'], '{:.0f}')})",
        highlight=False,
    )
    if plan["precision"] != ["float32"]:
        console.print("Loops, memory and scaling in float32; peak is that of the precision")
    tables = [_engine(found["engine"]), _contenders(found["contenders"])]
    tables += [_memory(found["footprints"])] if found["footprints"] else []
    tables += [_scaling(found["scaling"])] if found["scaling"] else []
    for one in tables:
        console.print("", one)
    for note in found["notes"]:
        console.print(f"\nNote: {note}", style="dim", highlight=False)


def _rate(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Rate, half of its range, GFLOP/s, and share of the peak."""
    rate = row["steps_per_second"]
    return (
        f"{rate['median']:,.0f}",
        f"{50 * (rate['high'] - rate['low']) / rate['median']:.0f}%",
        f"{row['gflops']['median']:.1f}",
        f"{100 * row['of_peak']['median']:.0f}%",
    )


def _label(method: str) -> str:
    return METHODS[method].about.label if method in METHODS else method


def _engine(rows: list[dict[str, Any]]) -> Table:
    caption = (
        "networks: processes x networks in each. steps/s: of one network, all networks together; ±: half of the range "
        "over repeats. overhead: by how much a step takes longer than one of base, actions included as often as they "
        "come in a long run."
    )
    plain = all(row["precision"] == "float32" and not row["graphs"] for row in rows)
    how = () if plain else ("products",)
    found = table(
        ("h", "optimizer", *how, "method"), ("networks", "steps/s", "±", "GFLOP/s", "peak", "overhead"), caption
    )
    for row in rows:
        over = spread([100 * value for value in row["overhead"]["values"]])
        found.add_row(
            str(row["hidden"]),
            {"sgd": "SGD", "adamw": "AdamW"}[row["optimizer"]],
            *(row["precision"] + ", graphs" * row["graphs"] for _ in how),
            _label(row["method"]),
            f"{row['workers']} x {row['replicas']}",
            *_rate(row),
            "" if row["method"] == "base" else f"{over['median']:+.1f}% ({ends(over, '{:+.0f}')})",
            end_section=row["method"] == rows[-1]["method"],
        )
    return found


def _contenders(rows: list[dict[str, Any]]) -> Table:
    caption = "engine is: rate of the populations with SGD and no method over this one's, within each repeat."
    found = table(("h", "loop"), ("networks", "steps/s", "±", "GFLOP/s", "peak", "engine is"), caption)
    for row in rows:
        over = row["engine_over"]
        found.add_row(
            str(row["hidden"]),
            LOOPS[row["name"]],
            f"{row['workers']} x 1",
            *_rate(row),
            f"{over['median']:.1f} x ({ends(over, '{:.1f}')})",
            end_section=row["name"] == rows[-1]["name"],
        )
    return found


def _memory(rows: list[dict[str, Any]]) -> Table:
    found = table(("memory, MB",), ("networks", "parameters", "data", "peak - idle process", "without data"))
    for row in rows:
        known = row["extra"] is not None
        found.add_row(
            f"h = {row['hidden']}, {_label(row['method'])}",
            str(row["replicas"]),
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['data'] / 1e6:.1f}",
            f"{row['extra'] / 1e6:.1f}" if known else "unknown",
            f"{row['times_the_parameters']:.2f} x parameters" if known else "unknown",
        )
    return found


def _scaling(rows: list[dict[str, Any]]) -> Table:
    each = [sum(row["seconds"]) / row["replicas"] for row in rows]
    tasks = max(max(first, second) / min(first, second) for first, second in (row["seconds"] for row in rows))
    caption = (
        f"Tasks of 100 steps on one core. Where time is linear, time a network and task is the same everywhere: the "
        f"largest is {max(each) / min(each):.2f} x the smallest over networks, and {tasks:.2f} x over tasks. Memory is "
        "without data."
    )
    found = table((), ("networks", "one task, s", "two tasks, s", "ms a network and task", "memory, MB"), caption)
    for row, seconds in zip(rows, each, strict=True):
        found.add_row(
            str(row["replicas"]),
            f"{row['seconds'][0]:.2f}",
            f"{sum(row['seconds']):.2f}",
            f"{1e3 * seconds / 2:.2f}",
            "unknown" if row["extra"] is None else f"{(row['extra'] - row['data']) / 1e6:.1f}",
        )
    return found
