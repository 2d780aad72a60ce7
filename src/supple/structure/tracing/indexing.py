"""Operations that choose positions by index: they read some, write some, or add up those with the same index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from supple.structure.tracing.call import Call, Rule, mix
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Lost, Pieces, Value


def _index(record: Record, call: Call) -> list[Value] | Value:
    """x[..., i, j, ...], where the units lie along other dimensions."""
    value, over = call.values[0], _indexed(call.arguments["indices"])
    _choose(record, call.values[1:])
    if over == [0] and (rows := looked_up(record, call)) is not None:
        return rows
    if any(piece.axes() for d in over for piece in value.dims[d]):
        return mix(record, call)
    kept = [renewed(pieces) for d, pieces in enumerate(value.dims) if d not in over]
    # Where the indexed dimensions do not lie side by side, the new ones come first.
    before = over[0] if over[-1] - over[0] < len(over) else 0
    new: list[Pieces] = [()] * (call.outputs[0].ndim - len(kept))
    return Value(call.kind, (*kept[:before], *new, *kept[before:]), value.loose)


def _embedding(record: Record, call: Call) -> list[Value] | Value:
    """Rows of a table; but a row for padding has to stay 0, and sparse gradients tell of some rows only."""
    _choose(record, call.values[1:])
    followed = call.arguments["padding_idx"] < 0 and not call.arguments["sparse"]
    rows = looked_up(record, call) if followed else None
    return mix(record, call) if rows is None else rows


def looked_up(record: Record, call: Call) -> Value | None:
    """What is known of rows of a table that are looked up; None where it is no parameter of two dimensions.

    They are the product of the table with what is 1 at the index and 0 elsewhere, so column i of the table makes unit
    i; where the index does not depend on the input they are biases, of each position its own.
    """
    table, out = call.values[0], call.outputs[0]
    columns = record.owner(table, 1) if len(table.dims) == 2 and table.kind == Kind.PARAMETER else None
    if columns is None or columns.form != "itself" or columns.noise:
        return None
    record.used_by.setdefault(columns.tensor, (call.name, record.place))
    before: tuple[Pieces, ...] = ((),) * (out.ndim - 1)
    if call.kind == Kind.PARAMETER:
        return Value(call.kind, (*before, table.dims[1]))
    inputs = {axis for value in call.values[1:] for axis in value.everything()}
    pieces = record.produce(columns, out.shape[-1], inputs)
    record.axes[-1].table = f"{call.name} in {record.place} looks its entries up"
    return Value(call.kind, (*before, pieces))


def _gather(record: Record, call: Call) -> list[Value] | Value:
    value, (dim,), old, new = call.values[0], call.dims("dim"), call.shapes[0], call.outputs[0].shape
    cut = any(pieces and (d == dim or old[d] != new[d]) for d, pieces in enumerate(value.dims))
    _choose(record, call.values[1:])
    if cut:
        return mix(record, call)
    return Value(call.kind, tuple(map(renewed, value.dims)), value.loose)


def _put(record: Record, call: Call) -> list[Value] | Value:
    """x[i, j, ...] = y, or += y, where the units lie along the dimensions behind."""
    over = _indexed(call.arguments["indices"])
    return _into(record, call, call.arguments["values"], range(over[-1] + 1))


def _scatter(record: Record, call: Call) -> list[Value] | Value:
    """Scatter and index_add, and their like."""
    source = call.arguments.get("source", call.arguments.get("src"))
    index = call.arguments["index"]
    units = [d for value in call.values for d, pieces in enumerate(value.dims) if pieces]
    if index.ndim > 1 and any(index.shape[d] != call.shapes[0][d] for d in units):
        return mix(record, call)
    return _into(record, call, source, call.dims("dim"))


def _choose(record: Record, indices: Sequence[Value]) -> None:
    """Units whose values say which positions are meant are read by that."""
    for axis in (axis for value in indices for axis in value.everything()):
        axis.exclude(f"{record.place} chooses positions by their values")


def _indexed(indices: Sequence[Tensor | None]) -> list[int]:
    """The dimensions that are indexed; a mask has as many as it indexes."""
    over: list[int] = []
    dim = 0
    for index in indices:
        many = 1 if index is None or index.dtype not in (torch.bool, torch.uint8) else index.ndim
        over += [] if index is None else range(dim, dim + many)
        dim += many
    return over


def _into(record: Record, call: Call, source: Tensor | None, over: Sequence[int]) -> list[Value] | Value:
    """At some positions, chosen along the dimensions ``over``, others are written or added."""
    target, shape = call.values[0], call.shapes[0]
    written = record.value(source) if isinstance(source, Tensor) else Value(Kind.CONSTANT, ())
    there: list[Pieces] = [()] * len(shape)
    for place, pieces in enumerate(reversed(written.dims), start=1):
        if pieces and (place > len(shape) or source is None or source.shape[-place] != shape[-place]):
            return mix(record, call)
        if pieces:
            there[-place] = pieces
    _choose(record, [record.value(tensor) for tensor in call.tensors[1:] if tensor is not source])
    if any(target.dims[d] or there[d] for d in over) or Kind.PARAMETER in (target.kind, written.kind):
        return mix(record, call)
    dims = list(target.dims) if target.kind == Kind.ACTIVATION else there
    if target.kind == written.kind == Kind.ACTIVATION and list(map(_owners, dims)) != list(map(_owners, there)):
        return mix(record, call, f"{call.name} in {record.place} puts other features in their place for some positions")
    loose = frozenset[Lost]().union(*(value.loose for value in call.values))
    return Value(call.kind, tuple(map(renewed, dims)), loose)


def _owners(pieces: Pieces) -> list[tuple[object, ...]]:
    return [(piece.owner, piece.units, piece.before, piece.after) for piece in pieces]


def _pack(record: Record, call: Call) -> list[Value]:
    """Sequences of different lengths, one step of all after the other."""
    value = call.values[0]
    if any(value.dims[:2]):
        return mix(record, call)
    packed = Value(call.kind, ((), *map(renewed, value.dims[2:])), value.loose)
    return [packed, *(Value(Kind.CONSTANT, ((),) * out.ndim) for out in call.outputs[1:])]


def _unpack(record: Record, call: Call) -> list[Value]:
    value = call.values[0]
    if value.dims[0]:
        return mix(record, call)
    unpacked = Value(call.kind, ((), (), *map(renewed, value.dims[1:])), value.loose)
    return [unpacked, *(Value(Kind.CONSTANT, ((),) * out.ndim) for out in call.outputs[1:])]


INDEXING: dict[str, Rule] = {
    "index": _index,
    "embedding": _embedding,
    "gather": _gather,
    "index_put": _put,
    "_index_put_impl": _put,
    **dict.fromkeys(
        ("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill", "index_reduce"), _scatter
    ),
    "_pack_padded_sequence": _pack,
    "_pad_packed_sequence": _unpack,
}
"""Rules by name."""
