"""What several passes of one model have seen, taken together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from supple.structure.description import Consumer, Feature, Slice, UnitGroup
from supple.structure.tracing.axis import Axis
from supple.structure.tracing.places import Places
from supple.structure.tracing.record import Record

UNREAD = "no Linear or Conv reads them"


@dataclass(frozen=True)
class Finding:
    """What one pass tells of the outputs of a weight, or of several weights whose outputs are the same units.

    Args:
        record: of the pass.
        places: where features can be read in it.
        members: the outputs of each weight.
        names: of the layers, with what is known against each.
        outcome: the group; or why there is none; or "" where the model gives the outputs out and nothing reads them.
    """

    record: Record
    places: Places
    members: list[Axis]
    names: dict[str, str]
    outcome: UnitGroup | str

    @property
    def weights(self) -> set[tuple[Slice, int]]:
        """What makes the units."""
        return {(axis.incoming, axis.size) for axis in self.members}

    def reads(self, feature: Feature | None) -> bool:
        """Whether what is read at a place in this pass are the features, or nothing, as the module does not run."""
        if feature is None or not self.record.calls[feature.module]:
            return True
        readings = [one for axis in self.members for one in axis.readings]
        keys = ({one.key for one in readings}, {one.before_norm for one in readings})
        return any(self.places.have(feature, self.members, own) for own in keys)


def unite(records: Sequence[Record], findings: Sequence[Finding]) -> tuple[list[UnitGroup], dict[str, str]]:
    """Unites what was found in several passes.

    A unit is replaced for all passes, so all that reads it in any of them is one of its readers. Where a pass has a
    reason against a group, or uses something of it for anything else, that is a reason for all.

    Args:
        records: of the passes.
        findings: of all passes.

    Returns:
        The groups, and the reasons for the others by name of the layer.
    """
    groups: list[UnitGroup] = []
    excluded: dict[str, str] = {}
    for alike in _alike(findings):
        united = _united(records, alike)
        if isinstance(united, UnitGroup):
            groups.append(united)
        elif united:
            for finding in alike:
                own = isinstance(finding.outcome, str) and finding.outcome not in ("", UNREAD)
                for name, reason in finding.names.items():
                    excluded.setdefault(name, reason or (str(finding.outcome) if own else united))
    return groups, excluded


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of the same outputs of a weight, or of some of the same.

    They are in the order of the first pass; what another pass shows first stands behind what came before it there.
    """
    first = list(range(len(findings)))

    def class_of(number: int) -> int:
        while first[number] != number:
            number = first[number]
        return number

    made: defaultdict[tuple[str, int], list[tuple[range, int]]] = defaultdict(list)
    for number, finding in enumerate(findings):
        for weight, size in finding.weights:
            rows = range(weight.start, weight.start + size)
            for others, other in made[weight.tensor, weight.dim]:
                if max(rows.start, others.start) < min(rows.stop, others.stop):
                    low, high = sorted((class_of(number), class_of(other)))
                    first[high] = low
            made[weight.tensor, weight.dim].append((rows, number))
    classes: defaultdict[int, list[Finding]] = defaultdict(list)
    order: list[int] = []
    place, record = 0, None
    for number, finding in enumerate(findings):
        place, record = place if finding.record is record else 0, finding.record
        own = class_of(number)
        classes[own].append(finding)
        if own not in order:
            order.insert(place, own)
        place = order.index(own) + 1
    return [classes[own] for own in order]


def _united(records: Sequence[Record], alike: list[Finding]) -> UnitGroup | str:
    """The group, or why there is none; "" where the outputs are only given out."""
    outcomes = [finding.outcome for finding in alike]
    for reason in outcomes:
        if isinstance(reason, str) and reason not in ("", UNREAD):
            return reason
    found = [(finding, finding.outcome) for finding in alike if isinstance(finding.outcome, UnitGroup)]
    if not found:
        return "" if "" in outcomes else UNREAD
    if len(records) == 1:
        return found[0][1]
    if "" in outcomes:
        return "they are also an output of the model"
    if len({frozenset(finding.weights) for finding, _ in found}) > 1:
        return "they are one with other units in another forward pass"
    best = _most_read(found)
    if best is None:
        return "their features cannot be read at one place in all forward passes"
    consumers: dict[Slice, Consumer] = {}
    for _, group in found:
        for consumer in group.consumers:
            here = consumer if group.feature == best.feature else replace(consumer, bias=None)
            bias = consumers.get(consumer.weight, here).bias
            consumers[consumer.weight] = here if here.bias == bias else replace(here, bias=None)
    united = replace(
        best,
        consumers=tuple(consumers.values()),
        incoming=tuple(dict.fromkeys(part for _, group in found for part in group.incoming)),
        bias=tuple(dict.fromkeys(bias for _, group in found for bias in group.bias)),
        norms=tuple(dict.fromkeys(norm for _, group in found for norm in group.norms)),
    )
    return next(filter(None, (_other_use(record, united, alike) for record in records)), united)


def _most_read(found: list[tuple[Finding, UnitGroup]]) -> UnitGroup | None:
    """The group of the pass whose place of the features is there in most passes, and is not another's in any."""
    able = [
        group
        for _, group in found
        if all(finding.reads(place) for finding, _ in found for place in (group.feature, group.feature_after_norm))
    ]
    return max(able, key=lambda g: sum(f.record.calls[g.feature.module] for f, _ in found), default=None)


def _other_use(record: Record, group: UnitGroup, alike: list[Finding]) -> str:
    """What a pass uses of a group for anything else; "" if nothing."""
    here = [finding.outcome for finding in alike if finding.record is record]
    own = {part for outcome in here if isinstance(outcome, UnitGroup) for part in outcome.parts()}
    # Where nothing reads the units, all that makes them may run.
    parts = [consumer.weight for consumer in group.consumers] if UNREAD in here else group.parts()
    for part in parts:
        entries = range(part.start, part.start + part.copies * group.size * part.repeat)
        if part not in own and record.uses(part.tensor, part.dim, entries):
            return f"{part.tensor} is used for something else in another forward pass"
    return ""
