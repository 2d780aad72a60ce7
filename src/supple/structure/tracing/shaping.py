"""Operations along whole dimensions: reductions, pooling, joining, padding."""

from __future__ import annotations

import re
from dataclasses import replace

from supple.structure.tracing.call import Call, Rule, attend, mix
from supple.structure.tracing.elementwise import together
from supple.structure.tracing.layout import narrow, padded, renewed, tidy
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Lost, Piece, Value, lost

_SPATIAL = re.compile(r"(?:(?<!un)pool|upsample_\w*?|_pad)(\d)d")


def _reduce(record: Record, call: Call) -> list[Value]:
    value = call.values[0]
    over = set(call.dims("dim")) if len(call.tensors) == 1 else set(range(len(call.shapes[0])))
    summed = [axis for d in over for p in value.dims[d] for axis in p.axes()]
    loose = value.loose | lost(summed, f"{call.name} in {record.place} may mix them", mixed=True)
    # Either the units are summed up or, for each of them, all else.
    known = value.statistic or not any(item.reason for item in value.loose)
    result = []
    for out in call.outputs:
        dims = [() if d in over else renewed(p) for d, p in enumerate(value.dims)]
        whole = all(d in over or pieces for d, pieces in enumerate(value.dims))
        if out.ndim != len(dims):
            dims = [pieces for d, pieces in enumerate(dims) if d not in over]
        statistic = whole or value.statistic or (known and bool(summed) and not any(dims))
        mean = bool(summed) and call.name in ("mean", "var_mean", "std_mean") and out is call.outputs[-1]
        result.append(Value(call.kind, tuple(dims), loose, statistic, mean=mean))
    return result


def _along(record: Record, call: Call) -> list[Value] | Value:
    value = call.values[0]
    names = [name for name in ("dim", "dims") if name in call.arguments]
    over = call.dims(names[0]) if names else list(range(len(value.dims)))
    if call.name == "_softmax" and value.loose:
        attend(record, replace(call, values=[replace(value, dims=((),) * len(value.dims))]))
    if any(value.dims[d] for d in over):
        return mix(record, call)
    activated = "softmax" in call.name
    return replace(value, dims=tuple(renewed(pieces, activated) for pieces in value.dims))


def _spatial(record: Record, call: Call) -> list[Value]:
    """Pooling, resizing and padding of the last dimensions."""
    value, found = call.values[0], _SPATIAL.search(call.name)
    assert found is not None
    if any(value.dims[-int(found[1]) :]):
        return mix(record, call)
    return [replace(value, dims=tuple(map(renewed, value.dims)))] * len(call.outputs)


def _glu(record: Record, call: Call) -> list[Value] | Value:
    value, (dim,) = call.values[0], call.dims("dim")
    half = call.outputs[0].shape[dim]
    dims = list(map(renewed, value.dims))
    if dims[dim]:
        halves = [narrow(dims[dim], start, half) for start in (0, half)]
        if not all(halves):
            return mix(record, call)
        loose = set[Lost](value.loose)
        product = replace(call, name="mul")
        dims[dim] = renewed(together(record, product, halves[0] or (), halves[1] or (), loose), activated=True)
        return replace(value, dims=tuple(dims), loose=frozenset(loose))
    return replace(value, dims=tuple(dims))


def _join(record: Record, call: Call) -> list[Value] | Value:
    """cat, and stack as cat along a dimension of one."""
    ndim = call.outputs[0].ndim
    dim = int(call.arguments.get("dim", 0)) % ndim
    pairs = [(t, v) for t, v in zip(call.tensors, call.values, strict=True) if t.ndim + (call.name == "stack") == ndim]
    alike = []
    for _, value in pairs:
        dims = list(value.dims)
        if call.name == "stack":
            dims.insert(dim, ())
        alike.append(dims)
    for other in (d for d in range(ndim) if d != dim):
        owners = {tuple((p.owner, p.units, p.before, p.after) for p in dims[other]) for dims in alike}
        if len(owners) > 1:
            reason = f"{call.name} in {record.place} puts other features in their place for some positions"
            return mix(record, call, reason)
    first = list(alike[0])
    if call.name == "cat" and any(dims[dim] for dims in alike):
        joined: list[Piece] = []
        for dims, (tensor, _) in zip(alike, pairs, strict=True):
            joined += padded(dims[dim], tensor.shape[dim])
        first[dim] = tuple(joined)
    elif len(pairs) > 1:
        first = [renewed(pieces) for pieces in first]
    loose = frozenset[Lost]().union(*(value.loose for value in call.values))
    statistic = all(value.statistic for value in call.values if value.kind == Kind.ACTIVATION)
    return Value(call.kind, tuple(first), loose, statistic)


def _repeat(record: Record, call: Call) -> Value:
    value, times = call.values[0], call.arguments["repeats"]
    added = len(times) - len(value.dims)
    dims = [pieces * n for pieces, n in zip(value.dims, times[added:], strict=True)]
    return replace(value, dims=((),) * added + tuple(dims))


def _pad(record: Record, call: Call) -> list[Value] | Value:
    value, pad = call.values[0], call.arguments["pad"]
    dims = list(value.dims)
    for place, (left, right) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        pieces = dims[-place]
        if not pieces and (left or right):
            dims = [renewed(others) for others in dims]
        elif pieces and min(left, right) < 0:
            return mix(record, call)
        elif pieces:
            dims[-place] = tidy([p for p in (Piece(None, left), *pieces, Piece(None, right)) if p.length])
    return replace(value, dims=tuple(dims))


SHAPING: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("sum", "mean", "prod", "amax", "amin", "max", "min", "median", "var", "std", "var_mean", "std_mean"),
            *("norm", "linalg_vector_norm", "logsumexp", "nansum", "nanmean", "all", "any", "argmax", "argmin"),
            "aminmax",
        ),
        _reduce,
    ),
    **dict.fromkeys(
        (
            *("_softmax", "_log_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "flip"),
            *("roll", "topk", "index_select"),
        ),
        _along,
    ),
    "glu": _glu,
    "repeat": _repeat,
    "constant_pad_nd": _pad,
    "cat": _join,
    "stack": _join,
}
"""Rules by name."""


def shaping(call: Call) -> Rule | None:
    """The rule of an operation along whole dimensions; None if it is no such operation."""
    rule = SHAPING.get(call.name) or (_spatial if _SPATIAL.search(call.name) else None)
    # An index or a mask may be computed from units too.
    several = rule is not None and rule is not _join and any(value.axes() for value in call.values[1:])
    return mix if several else rule
