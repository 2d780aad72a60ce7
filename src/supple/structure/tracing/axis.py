"""The outputs of one weight, candidates for hidden units, and what is noted of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from supple.structure.description import Norm, Slice


@dataclass(frozen=True)
class Reading:
    """That a weight reads units.

    Args:
        weight: the entries of the weight that leave them.
        module: name of the module the weight belongs to.
        key: which values it reads; see :class:`Run`.
        before_norm: which values a normalization behind the activation took in, or () where there is none.
        out: the units the weight produces.
        noise: whether the weight is only added to the one that reads them, multiplied with random numbers.
    """

    weight: Slice
    module: str
    key: tuple[int, ...]
    before_norm: tuple[int, ...]
    out: Axis
    noise: bool = False


@dataclass(eq=False)
class Axis:
    """The outputs of one weight at one place of the model, candidates for hidden units.

    Args:
        name: name of the layer.
        size: number of outputs.
        incoming: their entries of the weight.
        ancestors: the outputs of earlier weights that they are computed from.
        token: of the values that the weight produced; see :class:`State`.

    Attributes:
        table: how the weight is looked up, where it is a table of which each input takes a row; "" where it is not.
        noise: their entries of what is added to the weight, multiplied with random numbers.
        bias: their biases.
        direct: the biases that were added to just these values.
        norms: normalizations of them.
        readings: the weights that read them.
        output: whether the model gives them out.
        reason: why they cannot be replaced; "" if they can.
        rank: how good the reason is.
        parts: neighbouring outputs that were cut out of these, by first output and number.
        whole: the axis that this was cut out of.
        first: the first of them, counted in the outputs of the weight.
        partner: an axis that is one with this: unit i of both is the same unit.
        joined: the axes whose partner this is.
        sign: how they are combined with the partner, "*" or "+"; "" where they are the same outputs of another input.
    """

    name: str
    size: int
    incoming: Slice
    ancestors: frozenset[Axis] = frozenset()
    token: int = 0
    table: str = ""
    noise: list[Slice] = field(default_factory=list)
    bias: list[Slice] = field(default_factory=list)
    direct: list[Slice] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    output: bool = False
    reason: str = ""
    rank: int = 0
    parts: dict[tuple[int, int], Axis] = field(default_factory=dict)
    whole: Axis | None = None
    first: int = 0
    partner: Axis | None = None
    joined: list[Axis] = field(default_factory=list)
    sign: str = ""

    def exclude(self, reason: str, rank: int = 1) -> None:
        """Notes why these units cannot be replaced; of equally good reasons the first stays.

        Rank 0 says no more than that they are not followed further, rank 2 what they are for.
        """
        if not self.reason or rank > self.rank:
            self.reason, self.rank = reason, rank
        for part in self.parts.values():
            part.exclude(reason, rank)

    def root(self) -> Axis:
        """The axis that stands for all that are one with this."""
        return self if self.partner is None else self.partner.root()

    def join(self, other: Axis, sign: str) -> None:
        """Makes unit i of this and of another axis of the same size the same unit, as in a gated layer."""
        mine, others = self.root(), other.root()
        if mine is not others:
            others.partner, others.sign = mine, sign
            mine.joined.append(others)

    def same(self) -> list[Axis]:
        """All axes that are one with this, with itself."""
        found = [self.root()]
        for axis in found:  # it grows
            found += axis.joined
        return found

    def comes_from(self, others: Collection[Axis]) -> bool:
        """Whether these outputs are computed from any of others."""
        earlier = set(others)
        for axis in others:
            # What is computed from all outputs of a layer is computed from each part of them.
            while axis.whole is not None:
                axis = axis.whole
                earlier.add(axis)
        return not earlier.isdisjoint(self.ancestors)

    def part(self, start: int, size: int) -> Axis:
        """Neighbouring outputs as an axis of their own, the same each time, as where a layer's output is cut in two."""
        if size == self.size:
            return self
        if (start, size) not in self.parts:
            first, *others = self.same()
            part = first._cut(start, size)
            for axis in others:
                part.join(axis._cut(start, size), axis.sign)
        return self.parts[start, size]

    def _cut(self, start: int, size: int) -> Axis:
        if (start, size) in self.parts:
            return self.parts[start, size]
        overlap = any(start < first + n and first < start + size for first, n in self.parts)
        first = self.first + start
        layer = self.name if self.whole is None else self.name.rpartition("[")[0]
        part = Axis(
            f"{layer}[{first}:{first + size}]",
            size,
            _shifted(self.incoming, start),
            self.ancestors,
            noise=[_shifted(noise, start) for noise in self.noise],
            bias=[_shifted(bias, start) for bias in self.bias],
            norms=[_norm_part(norm, start) for norm in self.norms],
            table=self.table,
            output=self.output,
            whole=self,
            first=first,
        )
        self.parts[start, size] = part
        if self.reason:
            part.exclude(self.reason, self.rank)
        if overlap or self.readings:
            self.exclude("parts of them that overlap are read")
        return part

    def give_out(self) -> None:
        """Notes that the model gives these units out."""
        self.output = True
        for part in self.parts.values():
            part.give_out()

    def touch(self) -> None:
        """Has to be called before anything is noted of all units: where parts were cut out, that is one thing twice."""
        if self.parts:
            self.exclude("they are read both as a whole and in parts")


def _shifted(part: Slice, start: int) -> Slice:
    return replace(part, start=part.start + start * part.repeat)


def _norm_part(norm: Norm, start: int) -> Norm:
    parts = (norm.scale, norm.shift, norm.running_mean, norm.running_var)
    return Norm(*(part and _shifted(part, start) for part in parts))
