"""Probes of a network that was changed: one block fresh at a time, or treated by a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from supple.methods.base import Method
from supple.probing.curves import Interval
from supple.probing.networks import seeded
from supple.structure.description import format_row, html_table
from supple.structure.wrapping import unwrapped

if TYPE_CHECKING:
    from supple.probing.probe import Probe

Make = Callable[[nn.Module, torch.optim.Optimizer], Method]
"""Makes a method for a model and its optimizer."""

AS_IT_IS, TRAINED_ON = "as it is", "trained on"


class Variant(NamedTuple):
    """What was found of a network that was changed.

    Attributes:
        name: what was changed.
        slowdown: how many more steps it needs than fresh networks, as a share, with its 98% interval.
        change: how many more steps it needs than the network as it is (fewer are below 0), with its 98% interval.
        verdict: what is to be said, compared with fresh networks.
    """

    name: str
    slowdown: Interval
    change: Interval
    verdict: str


class Variants(NamedTuple):
    """Several changes of one network, a row each; printed as a table.

    Attributes:
        rows: the changes.
    """

    rows: list[Variant]

    def _cells(self) -> list[tuple[str, ...]]:
        """The table that is printed, with its headings."""
        cells: list[tuple[str, ...]] = [("", "steps, as it is 100%", "compared with fresh")]
        for row in self.rows:
            mean, low, high = (f"{100 * (1 + end):.0f}" for end in row.change)
            change = "100%" if row.name == AS_IT_IS else f"{mean}% ({low} to {high}%)"
            cells.append((row.name, change, row.verdict))
        return cells

    def __str__(self) -> str:
        cells = self._cells()
        return "\n".join(format_row(row, cells) for row in cells)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._cells())


def by_layer(probe: Probe, blocks: Iterable[str] | None = None) -> Variants:
    """Does what :meth:`supple.probing.Probe.by_layer` says.

    Args:
        probe: the probe of the network as it is.
        blocks: names of modules, or None.

    Returns:
        The table.

    Raises:
        ValueError: if a name is none of a module with parameters.
    """
    network = unwrapped(probe.origin.fresh(0))[0]
    names = [name for name, _ in network.named_parameters()]
    found = list(_blocks(network)) if blocks is None else list(blocks)
    for block in found:
        if not any(name.startswith(f"{block}.") for name in names):
            near = ", ".join(_blocks(network))
            raise ValueError(f"{block!r} is no module of the network that has parameters; there are {near}")

    def student(block: str) -> Callable[[int], nn.Module]:
        return lambda number: probe.origin.partly_trained(number, lambda name: not name.startswith(f"{block}."))

    return _table(probe, {f"{block} fresh": student(block) for block in found})


def cures(probe: Probe, methods: Iterable[Make] | Mapping[str, Make]) -> Variants:
    """Does what :meth:`supple.probing.Probe.cures` says.

    Args:
        probe: the probe of the network as it is.
        methods: what makes them, perhaps by name.

    Returns:
        The table, the fastest first.

    Raises:
        TypeError: if one of them makes no method.
    """
    makes = list(methods.values() if isinstance(methods, Mapping) else methods)
    first = [_made(probe, make, 0)[1] for make in makes]
    names = list(methods) if isinstance(methods, Mapping) else [repr(method) for method in first]
    students = {name: _student(probe, make) for name, make in zip(names, makes, strict=True)}
    if not all(method.acts_at_boundary for method in first if method is not None):
        students[TRAINED_ON] = _student(probe, None)
    return Variants(sorted(_table(probe, students).rows, key=lambda row: row.slowdown.mean))


def _student(probe: Probe, make: Make | None) -> Callable[[int], nn.Module]:
    """What makes a copy of the network that a method was applied to, or that learned one more task without any."""

    def student(number: int) -> nn.Module:
        network, method, optimizer = _made(probe, make, number)
        probe.origin.load(network, number)
        if method is not None and method.acts_at_boundary:
            method.boundary()
        else:
            if method is not None:
                method.attach()
            probe.learning.curve(network, optimizer, -1 - probe.origin.seeds[number])
        if method is not None:
            method.close()
        return network

    return student


def _made(probe: Probe, make: Make | None, number: int) -> tuple[nn.Module, Method | None, torch.optim.Optimizer]:
    """A fresh network of a seed, a method for it, if one is wanted, and its optimizer."""
    network = probe.origin.fresh(number)
    optimizer = probe.learning.optimizer(network.parameters())
    if make is None:
        return network, None, optimizer
    with seeded(probe.origin.seeds[number]):
        method = make(network, optimizer)
    if not isinstance(method, Method):
        raise TypeError(f"a cure gave a {type(method).__name__}; it has to make a method from model and optimizer")
    return network, method, optimizer


def _table(probe: Probe, students: dict[str, Callable[[int], nn.Module]]) -> Variants:
    """Probes changed networks, after a row for the network as it is."""
    losses = {AS_IT_IS: probe.losses["model"]} | probe.learning.losses(students)
    judge, rows = probe.judge, []
    for name, ours in losses.items():
        against = judge.change(ours, probe.losses["fresh"])
        change = judge.share(judge.change(ours, losses[AS_IT_IS]), single=False)
        rows.append(Variant(name, judge.share(against), change, judge.verdict(against, probe.budget)))
    return Variants(rows)


def _blocks(network: nn.Module, prefix: str = "") -> Iterator[str]:
    """The modules that make up a network: its children with parameters, those of containers in their place."""
    for name, child in network.named_children():
        if next(child.parameters(), None) is None:
            continue
        if isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
