"""Where the features of units can be read: what modules take in and give out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from supple.structure.description import Feature
from supple.structure.tracing.axis import Axis
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Run, runs

Key = tuple[int, ...]


class Places:
    """Where modules take in or give out units in one pass.

    Args:
        record: what was seen.
    """

    def __init__(self, record: Record) -> None:
        self._calls = record.calls
        self._seen: defaultdict[Feature, list[tuple[Run, int]]] = defaultdict(list)
        self._by_key: defaultdict[Key, set[Feature]] = defaultdict(set)
        for number, boundary in enumerate(record.boundaries):
            for dim, pieces in enumerate(boundary.value.dims):
                for found in runs(pieces):
                    layout = found.slice("", -1 if dim == len(boundary.value.dims) - 1 else dim)
                    place = Feature(boundary.module, boundary.where, layout)
                    self._seen[place].append((found, number))
                    self._by_key[found.key].add(place)

    def have(self, place: Feature, members: list[Axis], keys: Collection[Key]) -> bool:
        """Whether nothing but these units, with these values, is read at a place.

        A module that is called several times is read each time, so that each time has to be one of the same units.
        """
        seen = self._seen.get(place, [])
        whole = all(found.axis in members and found.key in keys for found, _ in seen)
        return place.module != "" and whole and len(seen) == self._calls[place.module]

    def find(self, members: list[Axis], key: Key, others: Collection[Key], reader: str = "") -> Feature | None:
        """Finds where values can be read: the input of the layer that reads them, or else the last place that has them.

        Args:
            members: the units.
            key: the values.
            others: other values of the same units that are as good.
            reader: the layer that reads them.
        """
        best: tuple[tuple[int, bool, bool, int], Feature] | None = None
        for place in self._by_key[key]:
            if self.have(place, members, others):
                seen = self._seen[place]
                taken = place.where == "input"
                keys = {found.key for found, _ in seen}
                rank = (len(keys), taken and place.module == reader, taken, seen[-1][1])
                if best is None or rank > best[0]:
                    best = rank, place
        return None if best is None else best[1]
