"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from supple.lab.bench.memory import linear
from supple.lab.bench.results import ContenderResult, EngineResult, FootprintResult, Results, Spread
from supple.lab.report.style import method_style

_NAMES = {
    "plain": "plain loop",
    "careful": "careful loop",
    "jax": "JAX scan",
}


def show(results: Results) -> Group:
    """All results: machine, rates, memory, scaling, notes.

    Args:
        results: what a run found.

    Returns:
        What :meth:`rich.console.Console.print` takes.
    """
    machine, plan = results.machine, results.plan
    where = machine.get("gpu", machine["cpu"])
    head = (
        f"{where}, {machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}\n"
        f"Permuted MNIST, 784-h-h-h-10, batch 30; medians and ranges of {plan.repeats} x {plan.seconds:g} s\n"
        f"Large matrix products in float32: {results.peak.median:.0f} GFLOP/s ({_ends(results.peak, '{:.0f}')})\n"
    )
    if plan.precision != "float32":
        head += f"Products of the engine in {plan.precision}; the other contenders, memory and scaling in float32\n"
    if plan.graphs:
        head += "Steps of the engine with SGD replayed as CUDA graphs; AdamW, memory and scaling without\n"
    parts: list[Text | Table] = [Text(head), engine_rates(results), Text(), contender_rates(results)]
    if results.footprints:
        parts += [Text(), footprints(results.footprints)]
    if results.scaling:
        parts += [Text(), scaling(results.scaling)]
    parts += [Text(f"\nNote: {note}", style="dim") for note in results.notes]
    return Group(*parts)


def engine_rates(results: Results) -> Table:
    """The table of the engine: each width, optimizer and method."""
    table = _table(("h", "optimizer", "method"), ("networks", "steps/s", "±", "GFLOP/s", "peak", "overhead"))
    for one in results.engine:
        table.add_row(
            str(one.hidden),
            {"sgd": "SGD", "adamw": "AdamW"}[one.optimizer],
            method_style(one.method).label,
            f"{one.workers} x {one.replicas}",
            *_cells(one),
            "" if one.method == "base" else _overhead(one.overhead),
            end_section=one.method == results.plan.methods[-1],
        )
    table.caption = (
        "networks: processes x networks in each. steps/s: of one network, all networks together; ±: half "
        "of the range over repeats. overhead: by how much "
        "a step takes longer than one of base, actions included as often as they come in a long run."
    )
    return table


def contender_rates(results: Results) -> Table:
    """The table of the other contenders, and how they compare with the engine."""
    table = _table(("h", "loop"), ("networks", "steps/s", "±", "GFLOP/s", "peak", "engine is"))
    for one in results.contenders:
        table.add_row(
            str(one.hidden),
            _NAMES[one.name],
            f"{one.workers} x 1",
            *_cells(one),
            f"{one.engine_over.median:.1f} x ({_ends(one.engine_over, '{:.1f}')})",
            end_section=one.name == results.plan.contenders[-1],
        )
    table.caption = "engine is: rate of the engine with SGD and no method over this one's, within each repeat."
    return table


def footprints(found: Sequence[FootprintResult]) -> Table:
    """The table of memory."""
    table = _table(("memory, MB",), ("networks", "parameters", "data", "peak - idle process", "without data"))
    for one in found:
        times = one.times_the_parameters
        table.add_row(
            f"h = {one.hidden}, {method_style(one.method).label}",
            str(one.replicas),
            f"{one.parameters / 1e6:.1f}",
            f"{one.data / 1e6:.1f}",
            "unknown" if one.extra is None else f"{one.extra / 1e6:.1f}",
            "unknown" if times is None else f"{times:.2f} x parameters",
        )
    return table


def scaling(found: Sequence[FootprintResult]) -> Table:
    """The table of time and memory for several numbers of replicas, on one core.

    Args:
        found: one an entry, of two tasks each; at least one.

    Returns:
        The table.
    """
    table = _table((), ("networks", "one task, s", "two tasks, s", "ms a network and task", "memory, MB"))
    for one in found:
        table.add_row(
            str(one.replicas),
            f"{one.seconds[0]:.2f}",
            f"{sum(one.seconds):.2f}",
            f"{1e3 * sum(one.seconds) / len(one.seconds) / one.replicas:.2f}",
            "unknown" if one.extra is None else f"{(one.extra - one.data) / 1e6:.1f}",
        )
    each = linear([one.replicas for one in found], [sum(one.seconds) for one in found])
    tasks = max(linear([1, 2], [one.seconds[0], sum(one.seconds)]) for one in found)
    table.caption = (
        f"Tasks of 100 steps on one core. Where time is linear, time a network and task is the same everywhere: the "
        f"largest is {each:.2f} x the smallest over networks, and {tasks:.2f} x over tasks. Memory is without data."
    )
    return table


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, header_style="bold")
    table.caption_justify, table.caption_style = "left", "dim"
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(one: EngineResult | ContenderResult) -> tuple[str, str, str, str]:
    """Rate, half of its range, GFLOP/s, and share of the peak."""
    rate = one.steps_per_second
    return (
        f"{rate.median:,.0f}",
        f"{50 * (rate.high - rate.low) / rate.median:.0f}%",
        f"{one.gflops.median:.1f}",
        f"{100 * one.of_peak.median:.0f}%",
    )


def _overhead(spread: Spread) -> str:
    ends = Spread.of([100 * value for value in spread.values])
    return f"{ends.median:+.1f}% ({_ends(ends, '{:+.0f}')})"


def _ends(spread: Spread, form: str) -> str:
    """The range of a spread; a hyphen between numbers that may have signs would be read as one."""
    return f"{form.format(spread.low)}..{form.format(spread.high)}"
