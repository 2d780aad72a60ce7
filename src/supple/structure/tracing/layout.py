"""How what lies along the dimensions of a tensor changes when the tensor is viewed, cut or joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from supple.structure.tracing.axis import Axis
from supple.structure.tracing.values import Piece, Pieces, State

Dims = tuple[Pieces, ...]


def padded(pieces: Pieces, length: int) -> Pieces:
    """The pieces of a dimension of this length, with one that is not followed in the place of none."""
    return pieces or (Piece(None, length),)


def tidy(pieces: Sequence[Piece]) -> Pieces:
    """The pieces along a dimension; none, (), where none of them is followed."""
    return tuple(pieces) if any(piece.owner is not None for piece in pieces) else ()


def renewed(pieces: Pieces, activated: bool = False, normalized: bool = False) -> Pieces:
    """The pieces behind an operation that keeps units apart, with new states; parts of the same values share one."""
    states: dict[State, State] = {}
    for piece in pieces:
        if piece.state not in states:
            states[piece.state] = piece.state.next(activated, normalized)
    return tuple(replace(piece, state=states[piece.state]) for piece in pieces)


def narrow(pieces: Pieces, start: int, length: int) -> Pieces | None:
    """Neighbouring entries of a dimension; None where a unit is cut, or units that appear several times."""
    kept: list[Piece] = []
    place = 0
    for piece in pieces:
        first, last = max(start - place, 0), min(start + length - place, piece.length)
        place += piece.length
        if first >= last:
            continue
        if last - first == piece.length:
            kept.append(piece)
        elif piece.owner is None:
            kept.append(Piece(None, last - first))
        elif piece.before == 1 and first % piece.after == last % piece.after == 0:
            units = (last - first) // piece.after
            kept.append(replace(piece, owner=piece.owner.part(first // piece.after, units), units=units))
        else:
            return None
    return tidy(kept)


def reshape(dims: Dims, old: Sequence[int], new: Sequence[int]) -> tuple[Dims, set[Axis]]:
    """What lies along the dimensions of a tensor of another shape with the same entries, and what has no place."""
    if prod(old) == 0:
        return ((),) * len(new), {p.owner for pieces in dims for p in pieces if isinstance(p.owner, Axis)}
    result: list[Pieces] = []
    lost: set[Axis] = set()
    for olds, news in matching(old, new):
        merged = _merge([dims[d] for d in olds], [old[d] for d in olds])
        split = None if merged is None else _split(merged, [new[d] for d in news])
        if split is None:
            lost |= {p.owner for d in olds for p in dims[d] if isinstance(p.owner, Axis)}
        result += split or [()] * len(news)
    return tuple(result), lost


def matching(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Neighbouring dimensions of two shapes that have the same entries, as few together as possible."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        olds, news = [i], [j]
        a, b = old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if (a < b and i < len(old)) or j >= len(new):
                olds.append(i)
                a *= old[i]
                i += 1
            else:
                news.append(j)
                b *= new[j]
                j += 1
        groups.append((olds, news))
    if not groups:
        groups.append(([], []))
    # What is left has one entry.
    groups[-1][0].extend(range(i, len(old)))
    groups[-1][1].extend(range(j, len(new)))
    return groups


def _merge(dims: Sequence[Pieces], sizes: Sequence[int]) -> Pieces | None:
    """What lies along several dimensions taken as one; None where that cannot be said."""
    followed = [d for d, pieces in enumerate(dims) if pieces]
    if not followed:
        return ()
    if len(followed) > 1:
        return None
    (place,) = followed
    before, after = prod(sizes[:place]), prod(sizes[place + 1 :])
    pieces = dims[place]
    if before > 1 and len(pieces) > 1:
        return None
    return tuple(
        replace(p, before=p.before * before, after=p.after * after)
        if p.owner is not None
        else Piece(None, p.length * before * after)
        for p in pieces
    )


def _split(pieces: Pieces, sizes: Sequence[int]) -> list[Pieces] | None:
    """What lies along each of several dimensions that were one; None where a unit has no place along one of them."""
    if not pieces:
        return [()] * len(sizes)
    if len(sizes) > 1 and len(pieces) == pieces[0].units == 1 and isinstance(pieces[0].owner, Axis):
        return None  # it may lie along each of them
    for place in range(len(sizes)):
        before, after = prod(sizes[:place]), prod(sizes[place + 1 :])
        if all(p.after % after == 0 if p.owner is not None else p.length % after == 0 for p in pieces) and (
            before == 1 or (len(pieces) == 1 and pieces[0].before % before == 0)
        ):
            result: list[Pieces] = [()] * len(sizes)
            result[place] = tuple(
                replace(p, before=p.before // before, after=p.after // after)
                if p.owner is not None
                else Piece(None, p.length // after)
                for p in pieces
            )
            return result
    return None
