"""What is known of a tensor while a model is traced: the units, or entries of a parameter, along its dimensions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from enum import IntEnum

from supple.structure.description import Norm, Slice


class Kind(IntEnum):
    """What a tensor depends on; the result of an operation is of the highest kind of its inputs."""

    CONSTANT = 0
    PARAMETER = 1
    ACTIVATION = 2


@dataclass(frozen=True)
class Entries:
    """Neighbouring entries of a parameter along one of its dimensions.

    Args:
        tensor: name of the parameter.
        dim: the dimension.
        start: first entry.
    """

    tensor: str
    dim: int
    start: int = 0

    def part(self, start: int, size: int) -> Entries:
        """Some of the entries.

        Args:
            start: the first, counted from the first of these.
            size: how many.

        Returns:
            The entries.
        """
        return replace(self, start=self.start + start)


@dataclass(frozen=True)
class Reading:
    """That a weight reads units.

    Args:
        weight: the entries of the weight that leave them.
        module: name of the module the weight belongs to.
        key: which values it reads; see :class:`Run`.
        before_norm: which values a normalization behind the activation took in, or () where there is none.
        out: the units the weight produces.
    """

    weight: Slice
    module: str
    key: tuple[int, ...]
    before_norm: tuple[int, ...]
    out: Axis


@dataclass(eq=False)
class Axis:
    """The outputs of one weight at one place of the model, candidates for hidden units.

    Args:
        name: name of the layer.
        size: number of outputs.
        incoming: their entries of the weight.
        ancestors: the outputs of earlier weights that they are computed from.

    Attributes:
        bias: their biases.
        norms: normalizations of them.
        readings: the weights that read them.
        output: whether the model gives them out.
        reason: why they cannot be replaced; "" if they can.
        rank: how good the reason is.
        parts: neighbouring outputs that were cut out of these, by first output and number.
        whole: the axis that this was cut out of.
        partner: an axis that is one with this: unit i of both is the same unit.
    """

    name: str
    size: int
    incoming: Slice
    ancestors: frozenset[Axis] = frozenset()
    bias: list[Slice] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    output: bool = False
    reason: str = ""
    rank: int = 0
    parts: dict[tuple[int, int], Axis] = field(default_factory=dict)
    whole: Axis | None = None
    partner: Axis | None = None

    def exclude(self, reason: str, rank: int = 1) -> None:
        """Notes why these units cannot be replaced; of equally good reasons the first stays.

        Args:
            reason: why.
            rank: how good the reason is: 0 if it says no more than that they are not followed further, 2 if it says
                what they are for.
        """
        if not self.reason or rank > self.rank:
            self.reason, self.rank = reason, rank
        for part in self.parts.values():
            part.exclude(reason, rank)

    def root(self) -> Axis:
        """The axis that stands for all that are one with this."""
        return self if self.partner is None else self.partner.root()

    def join(self, other: Axis) -> None:
        """Makes unit i of both the same unit, as in a gated layer.

        Args:
            other: the other axis, of the same size.
        """
        mine, others = self.root(), other.root()
        if mine is not others:
            others.partner = mine

    def part(self, start: int, size: int) -> Axis:
        """Neighbouring outputs as an axis of their own, as in a layer whose output is split in two.

        Args:
            start: the first.
            size: how many.

        Returns:
            The same axis each time.
        """
        if size == self.size:
            return self
        if (start, size) not in self.parts:
            overlap = any(start < first + n and first < start + size for first, n in self.parts)
            part = Axis(
                f"{self.name}[{start}:{start + size}]",
                size,
                _shifted(self.incoming, start),
                self.ancestors,
                [_shifted(bias, start) for bias in self.bias],
                [_norm_part(norm, start) for norm in self.norms],
                output=self.output,
                whole=self,
            )
            self.parts[start, size] = part
            if self.reason:
                part.exclude(self.reason, self.rank)
            if overlap or self.readings:
                self.exclude("parts of them that overlap are read")
        return self.parts[start, size]

    def touch(self) -> None:
        """Has to be called before anything is noted of all units: where parts were cut out, that is one thing twice."""
        if self.parts:
            self.exclude("they are read both as a whole and in parts")


def _shifted(part: Slice, start: int) -> Slice:
    return replace(part, start=part.start + start * part.repeat)


def _norm_part(norm: Norm, start: int) -> Norm:
    parts = (norm.scale, norm.shift, norm.running_mean, norm.running_var)
    return Norm(*(part and _shifted(part, start) for part in parts))


_tokens = itertools.count(1)


@dataclass(frozen=True)
class State:
    """What happened to units since their weight produced them.

    Args:
        token: a number that only views of the same values share.
        activated: whether they went through an activation function.
        before_norm: the token of what a normalization behind the activation took in; 0 if there was none.
        scaled: whether they were multiplied with other activations.
    """

    token: int
    activated: bool = False
    before_norm: int = 0
    scaled: bool = False

    @staticmethod
    def new() -> State:
        """The state of units that were just produced."""
        return State(next(_tokens))

    def next(self, activated: bool = False, normalized: bool = False, scaled: bool = False) -> State:
        """The state behind one more operation.

        Args:
            activated: whether it is an activation function.
            normalized: whether it is a normalization.
            scaled: whether it multiplies them with other activations.

        Returns:
            The state, with a token of its own.
        """
        before = self.before_norm or (self.token if normalized and self.activated else 0)
        return State(next(_tokens), self.activated or activated, before, self.scaled or scaled)


@dataclass(frozen=True)
class Piece:
    """Neighbouring entries along a dimension of a tensor, laid out as [before, units, after].

    Args:
        owner: the units, or the entries of a parameter, that lie there; None: nothing that is followed.
        units: how many.
        before: how often all of them follow each other.
        after: how many neighbouring entries belong to each.
        state: what happened to them.
    """

    owner: Axis | Entries | None
    units: int
    before: int = 1
    after: int = 1
    state: State = State(0)

    @property
    def length(self) -> int:
        """Number of entries."""
        return self.before * self.units * self.after


Pieces = tuple[Piece, ...]
"""All entries along a dimension; () if nothing that is followed lies there."""


@dataclass(frozen=True)
class Value:
    """What is known of a tensor.

    Args:
        kind: what it depends on.
        dims: what lies along each dimension.
        loose: units that are in it at no known place.
    """

    kind: Kind
    dims: tuple[Pieces, ...]
    loose: frozenset[Axis] = frozenset()

    def settled(self) -> Value:
        """The same with units that cannot be replaced at no known place, as they need not be followed."""
        done = frozenset(axis for axis in self.axes() if axis.reason and axis.rank)
        if not done:
            return self
        dims = []
        for pieces in self.dims:
            left = tuple(Piece(None, p.length) if p.owner in done else p for p in pieces)
            dims.append(left if any(p.owner is not None for p in left) else ())
        return Value(self.kind, tuple(dims), self.loose | done)

    def axes(self) -> frozenset[Axis]:
        """All units that lie along its dimensions."""
        return frozenset(p.owner for pieces in self.dims for p in pieces if isinstance(p.owner, Axis))

    def everything(self) -> frozenset[Axis]:
        """All units in it, also those at no known place."""
        return self.axes() | self.loose

    def parameters(self) -> frozenset[str]:
        """Names of the parameters that lie along its dimensions."""
        return frozenset(p.owner.tensor for pieces in self.dims for p in pieces if isinstance(p.owner, Entries))


@dataclass(frozen=True)
class Run:
    """Units of one axis along a dimension: neighbouring copies of them, in words of :class:`Slice`.

    Args:
        axis: the units.
        start: first entry.
        copies: how often all of them follow each other.
        repeat: how many neighbouring entries belong to each.
        key: the tokens of the values.
        before_norm: the tokens of what a normalization behind the activation took in, or ().
    """

    axis: Axis
    start: int
    copies: int
    repeat: int
    key: tuple[int, ...]
    before_norm: tuple[int, ...]

    def slice(self, tensor: str, dim: int, start: int = 0) -> Slice:
        """The units' entries of a tensor that has one for each entry of the dimension.

        Args:
            tensor: its name.
            dim: its dimension.
            start: the entry that belongs to the first of the dimension.

        Returns:
            The entries.
        """
        return Slice(tensor, dim, start + self.start, self.copies, self.repeat)


def runs(pieces: Pieces) -> list[Run]:
    """The units along a dimension; copies that follow each other, as behind CReLU, are one run.

    Args:
        pieces: what lies along the dimension.

    Returns:
        The runs, in order.
    """
    found: list[Run] = []
    start = 0
    end = -1  # where the last run ends, if another copy may follow
    for piece in pieces:
        if isinstance(piece.owner, Axis):
            key = (piece.state.token,)
            before = (piece.state.before_norm,) if piece.state.before_norm else ()
            last = found[-1] if found else None
            if (
                last is not None
                and last.axis is piece.owner
                and (end, last.repeat, piece.before) == (start, piece.after, 1)
            ):
                found[-1] = replace(
                    last, copies=last.copies + 1, key=last.key + key, before_norm=last.before_norm + before
                )
            else:
                found.append(Run(piece.owner, start, piece.before, piece.after, key, before))
            end = start + piece.length if piece.before == 1 else -1
        start += piece.length
    return found
