"""What is said to lie along the dimensions of a tensor against a tensor that holds it."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from supple import Slice
from supple.structure.tracing.axis import Axis
from supple.structure.tracing.layout import narrow, reshape
from supple.structure.tracing.values import Piece, runs

OTHER = -1


def axis(size):
    return Axis("fc", size, Slice("fc.weight"))


def held(pieces):
    """The number of the unit at each entry, as pieces say it; units of a part by their number in the whole."""
    entries = []
    for piece in pieces:
        if piece.owner is None:
            entries += [OTHER] * piece.length
            continue
        first = piece.owner.incoming.start
        one = [first + unit for unit in range(piece.units) for _ in range(piece.after)]
        entries += one * piece.before
    return entries


def filled(shape, dim, pieces):
    """A tensor that holds along one dimension what pieces say."""
    along = torch.tensor(held(pieces)).view([-1 if d == dim else 1 for d in range(len(shape))])
    return along.expand(shape).contiguous()


def assert_holds(tensor, dims):
    for dim, pieces in enumerate(dims):
        if pieces:
            assert torch.equal(tensor, filled(tensor.shape, dim, pieces))


@st.composite
def tensors(draw):
    """A shape, the dimension along which units lie, and what lies there."""
    owner = axis(draw(st.integers(1, 4)))
    pieces = [
        Piece(None, draw(st.integers(1, 3)))
        if draw(st.booleans())
        else Piece(owner, owner.size, draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 3)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    assume(any(piece.owner for piece in pieces))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dim = draw(st.integers(0, len(shape) - 1))
    shape[dim] = sum(piece.length for piece in pieces)
    return shape, dim, tuple(pieces)


@st.composite
def other_shape(draw, entries):
    shape = []
    while entries > 1 and len(shape) < 4:
        divisors = [n for n in range(1, entries + 1) if entries % n == 0]
        shape.append(draw(st.sampled_from(divisors)))
        entries //= shape[-1]
    return [*shape, entries]


@given(tensors(), st.data())
def test_reshaping(tensor, data):
    shape, dim, pieces = tensor
    new = data.draw(other_shape(math.prod(shape)))
    dims = tuple(pieces if d == dim else () for d in range(len(shape)))
    result, lost = reshape(dims, shape, new)
    assert_holds(filled(shape, dim, pieces).view(new), result)
    assert bool(lost) != any(result)


@pytest.mark.parametrize(
    ("old", "new", "place", "before", "after"),
    [
        ((2, 6), (2, 6, 1, 1), 1, 1, 1),
        ((2, 6, 4, 4), (2, 96), 1, 1, 16),
        ((2, 5, 6), (10, 6), 1, 1, 1),
        ((2, 6, 5), (12, 5), 0, 2, 1),
        ((2, 6, 1), (2, 6), 1, 1, 1),
        ((3, 1, 6), (3, 6), 1, 1, 1),
    ],
)
def test_usual_reshapes_keep_units(old, new, place, before, after):
    owner = axis(6)
    dims, lost = reshape(tuple((Piece(owner, 6),) if n == 6 else () for n in old), old, new)
    assert not lost
    assert dims[place] == (Piece(owner, 6, before, after),)
    assert not any(pieces for d, pieces in enumerate(dims) if d != place)
    there, lost = reshape(dims, new, old)
    assert not lost
    assert [bool(pieces) for pieces in there] == [n == 6 for n in old]


def test_heads_have_no_place_for_units():
    owner = axis(6)
    dims, lost = reshape(((), (Piece(owner, 6),)), (4, 6), (4, 2, 3))
    assert lost == {owner}
    assert not any(dims)


@given(tensors(), st.data())
def test_cutting(tensor, data):
    shape, dim, pieces = tensor
    start = data.draw(st.integers(0, shape[dim] - 1))
    length = data.draw(st.integers(1, shape[dim] - start))
    cut = narrow(pieces, start, length)
    if cut:
        assert_holds(
            filled(shape, dim, pieces).narrow(dim, start, length),
            [cut if d == dim else () for d in range(3)][: len(shape)],
        )
    elif cut == ():
        assert set(held(pieces)[start : start + length]) == {OTHER}


@given(tensors())
def test_runs_say_the_same_in_words_of_slices(tensor):
    shape, dim, pieces = tensor
    whole = filled(shape, dim, pieces)
    seen = torch.full_like(whole, OTHER)
    for run in runs(pieces):
        part = run.slice("", dim)
        view = part.view(whole, run.axis.size)
        assert all(bool((view[unit] == unit).all()) for unit in range(run.axis.size))
        part.view(seen, run.axis.size).copy_(view)
    assert torch.equal(seen, whole)


def test_parts_are_the_same_each_time_and_know_their_entries():
    whole = axis(6)
    assert whole.part(0, 6) is whole
    assert whole.part(3, 3) is whole.part(3, 3)
    assert whole.part(3, 3).incoming == Slice("fc.weight", start=3)
    assert not whole.reason
    whole.part(2, 3)
    assert "overlap" in whole.part(3, 3).reason
