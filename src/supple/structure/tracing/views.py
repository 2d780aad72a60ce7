"""Views of tensors, of activations and of parameters alike."""

from __future__ import annotations

from dataclasses import replace

from supple.structure.tracing.call import Call, Rule
from supple.structure.tracing.layout import narrow, renewed, reshape
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Entries, Kind, Pieces, Value, lost


def _same(record: Record, call: Call) -> Value:
    return call.values[0]


def _reshape(record: Record, call: Call) -> Value:
    value, old, new = call.values[0], call.shapes[0], call.outputs[0].shape
    dims, spread = reshape(value.dims, old, new)
    loose = value.loose
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
    place = int(call.arguments.get("start") or 0)
    if place < 0:
        place += call.shapes[0][dim]
    for out in call.outputs:
        dims = list(value.dims)
        loose = value.loose
        kept: Pieces = ()
        if call.name in ("select", "unbind"):
            taken = dims[dim] != ()
        else:
            length = out.shape[dim]
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
