"""Views of tensors, of activations and of parameters alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import Tensor

from supple.structure.tracing.call import Call, Rule
from supple.structure.tracing.layout import matching, narrow, renewed, reshape
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Entries, Kind, Pieces, Value, lost


def _same(record: Record, call: Call) -> Value:
    if id(call.tensors[0]) in record.spread:
        record.spread[id(call.outputs[0])] = record.spread[id(call.tensors[0])]
    return call.values[0]


def _reshape(record: Record, call: Call) -> Value:
    value, shape = record.spread.get(id(call.tensors[0]), (call.values[0], call.shapes[0]))
    return _viewed(record, call, value, shape, call.outputs[0])


def _viewed(record: Record, call: Call, value: Value, shape: Sequence[int], out: Tensor) -> Value:
    """What is known of a view of a tensor with this value and shape."""
    dims, spread = reshape(value.dims, shape, out.shape)
    loose = value.loose
    if spread:
        record.spread[id(out)] = value, shape
    for axis in spread:
        how = "spreads them over several dimensions" if axis.size > 1 else "leaves open along which dimension it lies"
        loose |= lost([axis], f"{call.name} in {record.place} {how}", rank=0)
    return replace(value, dims=dims, loose=loose)


def _permute(record: Record, call: Call) -> Value:
    value, ndim = call.values[0], len(call.shapes[0])
    order = list(range(ndim))
    if call.name == "permute":
        order = call.dims("dims")
    elif ndim > 1:
        first, second = (0, 1) if call.name == "t" else (call.dims("dim0")[0], call.dims("dim1")[0])
        order[first], order[second] = order[second], order[first]
    return replace(value, dims=tuple(value.dims[d] for d in order))


def _expand(record: Record, call: Call) -> Value:
    value, old, new = call.values[0], call.shapes[0], call.outputs[0].shape
    added = len(new) - len(old)
    dims: list[Pieces] = [()] * added
    for pieces, before, after in zip(value.dims, old, new[added:], strict=True):
        dims.append(tuple(replace(p, after=p.after * after) for p in pieces) if before != after else pieces)
    return replace(value, dims=tuple(dims))


def _cut(record: Record, call: Call) -> list[Value]:
    """slice, select, split and unbind: parts of the entries along one dimension."""
    value, (dim,) = call.values[0], call.dims("dim")
    results = []
    place = int(call.arguments.get("start") or call.arguments.get("index") or 0)
    if place < 0:
        place += call.shapes[0][dim]
    for out in call.outputs:
        length = 1 if call.name in ("select", "unbind") else out.shape[dim]
        if (spread := _cut_spread(record, call, dim, place, length, out)) is not None:
            results.append(spread)
            place += length
            continue
        dims = list(value.dims)
        loose = value.loose
        kept: Pieces = ()
        if call.name in ("select", "unbind"):
            taken = dims[dim] != ()
        else:
            narrowed = narrow(dims[dim], place, length) if call.arguments.get("step", 1) == 1 else None
            taken, kept = narrowed is None and dims[dim] != (), narrowed or ()
        place += length
        if taken:
            loose |= lost(
                (a for p in dims[dim] for a in p.axes()), f"{call.name} in {record.place} takes some of them", 0
            )
        whole = out.ndim == len(dims) and out.shape[dim] == call.shapes[0][dim]
        if not dims[dim] and not whole:
            dims = [renewed(pieces) for pieces in dims]
        dims[dim : dim + 1] = [kept] if out.ndim == len(dims) else []
        if value.kind == Kind.PARAMETER and call.name in ("select", "unbind"):
            dims = [_selected(pieces) for pieces in dims]
        results.append(replace(value, dims=tuple(dims), loose=loose))
    return results


def _cut_spread(record: Record, call: Call, dim: int, place: int, length: int, out: Tensor) -> Value | None:
    """A part of a view that spreads units over several dimensions, where it is neighbouring units: one of two halves.

    None if the tensor is no such view, or the part is no such part.
    """
    if id(call.tensors[0]) not in record.spread or call.arguments.get("step", 1) != 1 or 0 in call.shapes[0]:
        return None
    value, shape = record.spread[id(call.tensors[0])]
    sizes = call.shapes[0]
    olds, news = next(both for both in matching(shape, sizes) if dim in both[1])
    if len(olds) > 1 or any(sizes[d] > 1 for d in news if d < dim):
        return None
    each = prod(sizes[d] for d in news if d > dim)
    pieces = value.dims[olds[0]]
    part = narrow(pieces, place * each, length * each)
    if part is None:
        return None
    dims = list(value.dims) if pieces else list(map(renewed, value.dims))
    dims[olds[0]] = part
    left = [length * each if d == olds[0] else size for d, size in enumerate(shape)]
    return _viewed(record, call, replace(value, dims=tuple(dims)), left, out)


def _selected(pieces: Pieces) -> Pieces:
    """The pieces of a parameter of which one index along another dimension was taken."""
    return tuple(
        replace(piece, owner=replace(piece.owner, selected=True)) if isinstance(piece.owner, Entries) else piece
        for piece in pieces
    )


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(
        ("clone", "_to_copy", "detach", "alias", "lift_fresh", "lift_fresh_copy", "contiguous"),
        _same,
    ),
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "squeeze_copy", "view_copy"),
        _reshape,
    ),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes", "swapdims", "movedim"), _permute),
    **dict.fromkeys(("slice", "select", "split", "split_with_sizes", "unbind"), _cut),
    "expand": _expand,
}
"""Rules by name. A view of a parameter does not count as a use of it."""
