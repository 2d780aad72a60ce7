"""The description of a model's hidden units from what was seen while it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from supple.structure.description import Consumer, Excluded, Slice, UnitGroup, Units
from supple.structure.tracing.axis import Axis, Reading
from supple.structure.tracing.places import Places
from supple.structure.tracing.record import Record
from supple.structure.tracing.run import run
from supple.structure.tracing.union import UNREAD, Finding, unite


def trace(model: nn.Module, example: Any) -> Units:
    """Finds the hidden units of a model by running it; see :func:`supple.structure.tracing.run.run`.

    Layers whose outputs the model only gives out have no hidden units; they are left out by name, as is every other
    parameter of two dimensions or more that is in no group.

    Raises:
        ValueError: if the model does not run on the example.
    """
    records = run(model, example)
    groups, excluded = unite(records, [finding for record in records for finding in _findings(model, record)])
    for name, reason in (item for record in records for item in record.excluded.items()):
        excluded.setdefault(name, reason)
    for name, module in model.named_modules():
        used = any(record.calls[name] or record.uses(f"{name}.weight") for record in records)
        if isinstance(module, nn.Linear | _ConvNd) and not used:
            excluded.setdefault(name, "the model does not use it on the example")
    units = Units(groups, [Excluded(name, reason) for name, reason in excluded.items()])
    return units.completed(model, lambda name: _no_units(records, name))


def _no_units(records: Sequence[Record], name: str) -> str:
    """Why a parameter makes no hidden units."""
    used = [record.used_by[name] for record in records if record.uses(name)]
    if not used:
        return "the model does not use it on the example"
    if any(axis.incoming.tensor == name for record in records for axis in record.axes):
        return "the model gives its outputs out, so that they are not hidden"
    operation, place = used[0]
    if operation in ("embedding", "embedding_bag", "index", "index_select", "gather"):
        return f"{operation} in {place} looks its entries up"
    return f"{operation} in {place} uses it and makes no units of it that can be followed"


def _findings(model: nn.Module, record: Record) -> Iterator[Finding]:
    """What one pass tells."""
    places = Places(record)
    for members in _classes(record):
        # What is looked up is an input as numbers; it is a part of units where a layer's outputs are added to it.
        tables = all(axis.table for axis in members)
        names: dict[str, str] = {}
        for axis in members:
            names.setdefault(_name([axis]), axis.table if tables else axis.reason)
        outcome = members[0].table if tables else _group(model, record, places, members)
        yield Finding(record, places, members, names, outcome)


def _classes(record: Record) -> Iterator[list[Axis]]:
    """Axes that are the same units, each with its parts in its place."""
    classes: dict[Axis, list[Axis]] = {}
    for whole in record.axes:
        for axis in _apart(whole):
            classes.setdefault(axis.root(), []).append(axis)
    yield from classes.values()


def _apart(axis: Axis) -> list[Axis]:
    """The smallest parts that an axis was cut into; the axis itself if all are left out for the same reason."""
    if not axis.parts:
        return [axis]
    parts = [small for part in axis.parts.values() for small in _apart(part)]
    reasons = {part.reason for part in parts}
    if len(reasons) == 1 and "" not in reasons:
        axis.reason = axis.reason or reasons.pop()
        return [axis]
    return parts


def _name(members: list[Axis]) -> str:
    """The layer that produces units, or the layers of whose outputs they are products and sums."""
    wholes = {axis.whole for axis in members}
    if len(wholes) == 1 and (whole := wholes.pop()) is not None and len(whole.parts) == len(members):
        return whole.name
    name = members[0].name
    for axis in members[1:]:
        if axis.sign or axis.partner is None:
            name += f" {axis.sign or members[0].sign} {axis.name}"
    return name


def _group(model: nn.Module, record: Record, places: Places, members: list[Axis]) -> UnitGroup | str:
    """The group, or why its units cannot be replaced; "" where they are not hidden."""
    readings = [reading for axis in members for reading in axis.readings]
    output = any(axis.output for axis in members)
    if not readings and output and not any(axis.reason for axis in members):
        return ""
    if reason := _obstacle(record, members, readings, output):
        return reason
    keys, normed = {reading.key for reading in readings}, {reading.before_norm for reading in readings} - {()}
    for reading in sorted(readings, key=lambda reading: reading.weight.copies * reading.weight.repeat):
        after = places.find(members, reading.key, keys, reading.module)
        before = places.find(members, reading.before_norm, normed) if reading.before_norm else None
        if after is not None and (before is not None or not reading.before_norm):
            break
    else:
        return "no module takes in or gives out their features, so that these cannot be read"
    assert after is not None
    consumers: dict[Slice, str | None] = {}
    for other in readings:
        stands = not other.noise and _same_values(other, reading, after.layout)
        bias = _bias(model, other) if stands else None
        consumers.setdefault(other.weight, bias)
    return UnitGroup(
        name=_name(members),
        size=members[0].size,
        feature=before or after,
        feature_after_norm=after if before else None,
        incoming=tuple(dict.fromkeys(part for axis in members for part in (axis.incoming, *axis.noise))),
        bias=tuple(dict.fromkeys(bias for axis in members for bias in axis.bias)),
        consumers=tuple(Consumer(weight, bias) for weight, bias in consumers.items()),
        norms=tuple(dict.fromkeys(norm for axis in members for norm in axis.norms)),
    )


def _obstacle(record: Record, members: list[Axis], readings: list[Reading], output: bool) -> str:
    """Why units cannot be replaced; "" if they can."""
    if several := _several_uses(record, members, [part for axis in members for part in (axis.incoming, *axis.noise)]):
        return several
    for axis in members:
        if axis.reason:
            return axis.reason
    if not readings:
        return UNREAD
    if output:
        return "they are also an output of the model"
    made = {axis.incoming.tensor for axis in members}
    if tensor := next((reading.weight.tensor for reading in readings if reading.weight.tensor in made), ""):
        return f"{tensor} both makes them and reads them"
    # A layer that reads units several times does so for as many inputs as they are made of.
    times = max(Counter(axis.incoming for axis in members).values())
    return _several_uses(record, members, [reading.weight for reading in readings], times) or _several_uses(
        record, members, [part for axis in members for part in _own(axis)]
    )


def _own(axis: Axis) -> list[Slice]:
    """What belongs to units besides their weights, as often as it was used."""
    parts = [(norm.scale, norm.shift, norm.running_mean, norm.running_var) for norm in axis.norms]
    return [*axis.bias, *(part for four in parts for part in four if part is not None)]


def _several_uses(record: Record, members: list[Axis], parts: list[Slice], most: int | None = None) -> str:
    """Whether something else uses what units use, such as another layer with the same weight."""
    for part, times in Counter(parts).items():
        entries = range(part.start, part.start + part.copies * members[0].size * part.repeat)
        uses = record.uses(part.tensor, part.dim, entries)
        if uses > min(times, most or times):
            return f"{part.tensor} is used {uses} times in one forward pass"
    return ""


def _same_values(one: Reading, other: Reading, layout: Slice) -> bool:
    """Whether a layer receives what is read at a place, entry by entry; only then can its bias stand in for it."""
    return one.key == other.key and (one.weight.copies, one.weight.repeat) == (layout.copies, layout.repeat)


def _bias(model: nn.Module, reading: Reading) -> str | None:
    """Name of what is added to just the product of a layer that reads units, if it has one entry for each output."""
    for part in reading.out.direct:
        if model.get_parameter(part.tensor).shape == (reading.out.size,):
            return part.tensor
    return None
