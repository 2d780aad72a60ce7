"""What is known of a tensor while a model is traced: the units, or entries of a parameter, along its dimensions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Literal

from supple.structure.description import Slice
from supple.structure.tracing.axis import Axis


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
        selected: whether they are those of one index along another dimension, as of one of several experts.
        form: "itself"; "scaled", multiplied with constants; or "computed", another function of each entry alone.
        noise: parameters whose entries at the same places, multiplied with constants, are added to these.
    """

    tensor: str
    dim: int
    start: int = 0
    selected: bool = False
    form: Literal["itself", "scaled", "computed"] = "itself"
    noise: tuple[str, ...] = ()

    def part(self, start: int, size: int) -> Entries:
        """Some of the entries, ``start`` counted from the first of these."""
        return replace(self, start=self.start + start)


_tokens = itertools.count(1)


@dataclass(frozen=True)
class State:
    """What happened to units since their weight produced them.

    Args:
        token: a number that only views of the same values share.
        activated: whether they went through an activation function.
        before_norm: the token of what a normalization behind the activation took in; 0 if there was none.
        joined: whether they are a combination of several axes that are one, as a product of two is.
    """

    token: int
    activated: bool = False
    before_norm: int = 0
    joined: bool = False

    @staticmethod
    def new() -> State:
        """The state of units that were just produced."""
        return State(next(_tokens))

    def next(self, activated: bool = False, normalized: bool = False) -> State:
        """The state behind one more operation, with a token of its own."""
        before = self.before_norm or (self.token if normalized and self.activated else 0)
        return State(next(_tokens), self.activated or activated, before, self.joined)


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

    def axes(self) -> list[Axis]:
        """The units that lie there, those of all axes they are a combination of."""
        if not isinstance(self.owner, Axis):
            return []
        return self.owner.same() if self.state.joined else [self.owner]

    def settled(self) -> list[Axis]:
        """The units that lie there if it is known of all of them that they cannot be replaced."""
        axes = self.axes()
        return axes if all(axis.reason and axis.rank for axis in axes) else []


Pieces = tuple[Piece, ...]
"""All entries along a dimension; () if nothing that is followed lies there."""


@dataclass(frozen=True)
class Lost:
    """Units that are in a tensor at no known place.

    Args:
        axis: the units.
        reason: why they cannot be replaced if something goes on from there; "" where that is noted already.
        rank: how good the reason is.
        mixed: whether the tensor has but something computed of many of them, and not the units themselves.
        centred: whether it is only their mean that was subtracted from them, as in a normalization, if they are divided
            by their spread next.
        number: counts what was lost, so that the first reason can be told.
    """

    axis: Axis
    reason: str = ""
    rank: int = 1
    mixed: bool = False
    centred: bool = False
    number: int = field(default_factory=lambda: next(_tokens), compare=False)


def lost(axes: Iterable[Axis], reason: str = "", rank: int = 1, mixed: bool = False) -> frozenset[Lost]:
    """Units that have no known place any more."""
    return frozenset(Lost(axis, reason, rank, mixed) for axis in axes)


def mixed(axes: Iterable[Axis]) -> frozenset[Lost]:
    """Units of which something is computed that is not followed: new features, which others may be computed from."""
    return lost(axes, mixed=True) | lost([Axis("features that are not followed", 0, Slice(""))])


@dataclass(frozen=True)
class Value:
    """What is known of a tensor.

    Args:
        kind: what it depends on.
        dims: what lies along each dimension.
        loose: units that are in it at no known place.
        statistic: whether it is a number that sums units up, or one for each of them that sums up all else. As long as
            no more than that is given out or kept, the units are as hidden as before.
        inverse: whether it is 1 divided by something, as what a normalization multiplies with.
        mean: whether it is a mean over units, as what a normalization subtracts.
    """

    kind: Kind
    dims: tuple[Pieces, ...]
    loose: frozenset[Lost] = frozenset()
    statistic: bool = False
    inverse: bool = False
    mean: bool = False

    def settled(self) -> Value:
        """The same with units that cannot be replaced at no known place, as they need not be followed."""
        done = {axis for pieces in self.dims for p in pieces for axis in p.settled()}
        if not done:
            return self
        dims = []
        for pieces in self.dims:
            left = tuple(Piece(None, p.length) if p.owner in done else p for p in pieces)
            dims.append(left if any(p.owner is not None for p in left) else ())
        return replace(self, dims=tuple(dims), loose=self.loose | lost(done))

    def axes(self) -> frozenset[Axis]:
        """All units that lie along its dimensions."""
        return frozenset(p.owner for pieces in self.dims for p in pieces if isinstance(p.owner, Axis))

    def everything(self) -> frozenset[Axis]:
        """All units in it, also those at no known place."""
        return self.axes().union(item.axis for item in self.loose)

    def unmixed(self) -> frozenset[Axis]:
        """The units in it that are there themselves, and not only what was computed of many of them."""
        return self.axes().union(item.axis for item in self.loose if not item.mixed)

    def parameters(self) -> frozenset[str]:
        """Names of the parameters that lie along its dimensions."""
        entries = {p.owner for pieces in self.dims for p in pieces if isinstance(p.owner, Entries)}
        return frozenset(name for owner in entries for name in (owner.tensor, *owner.noise))


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
        """The units' entries of a tensor that has one for each entry of the dimension, from ``start`` on."""
        return Slice(tensor, dim, start + self.start, self.copies, self.repeat)


def runs(pieces: Pieces) -> list[Run]:
    """The units along a dimension, in order; copies that follow each other, as behind CReLU, are one run."""
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
                and last.axis.root() is piece.owner.root()
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
