"""Operations on the entries of tensors at the same place."""

from __future__ import annotations

from torch import Tensor

from supple.structure.description import Norm
from supple.structure.tracing.axis import Axis
from supple.structure.tracing.call import Call
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Piece, Pieces, Value

# Multiplying by something else leaves a unit's output with the layers that read the product.
_SCALING = {"mul", "div", "masked_fill"}
_LINEAR = {*_SCALING, "neg", "add", "sub", "rsub", "native_dropout"}


def pointwise(record: Record, call: Call) -> Value:
    """An operation on entries at the same place: an activation, a gate, a bias, a scale, or a residual stream."""
    shape = call.outputs[0].shape
    dims: list[Pieces] = [()] * len(shape)
    loose: set[Axis] = set().union(*(value.loose for value in call.values))
    activations = [(t, v) for t, v in zip(call.tensors, call.values, strict=True) if v.kind == Kind.ACTIVATION]
    followed = [(t, v) for t, v in activations if v.axes()]
    places: list[set[int]] = []
    for tensor, value in followed:
        places.append({d for d, pieces in enumerate(value.dims, start=len(shape) - tensor.ndim) if pieces})
        for dim in sorted(places[-1]):
            pieces = value.dims[dim - len(shape)]
            if tensor.shape[dim - len(shape)] == shape[dim]:
                dims[dim] = together(record, call, dims[dim], pieces, loose)
            else:
                _lose(pieces, f"{call.name} in {record.place} applies one to many others", loose)
    if places and not set.intersection(*places):
        for pieces in dims:
            _lose(pieces, f"{call.name} in {record.place} combines each of them with many others", loose)
    others = [t for t, v in activations if not v.axes() and t.ndim > 0 and t is not call.arguments.get("condition")]
    if followed and others and call.name not in _SCALING:
        for pieces in dims:
            _lose(pieces, _added(record, call), loose)
    produced = {
        p.owner for pieces in dims for p in pieces if isinstance(p.owner, Axis) and p.state.token == p.owner.token
    }
    direct = produced if call.name == "add" and call.arguments.get("alpha", 1) == 1 else set()
    dims = [renewed(pieces, call.name not in _LINEAR, scaled=bool(others)) for pieces in dims]
    for tensor, value in zip(call.tensors, call.values, strict=True):
        if value.kind == Kind.PARAMETER:
            _with_parameter(record, call, dims, tensor, value, direct)
    return Value(call.kind, tuple(dims), frozenset(loose))


def _lose(pieces: Pieces, reason: str, loose: set[Axis]) -> None:
    axes = {piece.owner for piece in pieces if isinstance(piece.owner, Axis)}
    for axis in axes:
        axis.exclude(reason)
    loose |= axes


def _added(record: Record, call: Call) -> str:
    how = "adds them to" if call.name in ("add", "sub") else "combines them with"
    return f"{call.name} in {record.place} {how} other features, as a residual stream does"


def together(record: Record, call: Call, first: Pieces, second: Pieces, loose: set[Axis]) -> Pieces:
    """What lies along a dimension of the result of two tensors with units along it.

    Each has () where nothing is followed; ``loose`` takes units that have no known place any more.
    """
    if not first:
        return second
    pairs = list(zip(first, second, strict=False))
    alike = len(first) == len(second) and all(
        (a.owner is None, a.units, a.before, a.after) == (b.owner is None, b.units, b.before, b.after) for a, b in pairs
    )
    same = alike and all(_root(a) is _root(b) for a, b in pairs)
    if alike and not same and call.name == "mul":
        for a, b in pairs:
            if isinstance(a.owner, Axis) and isinstance(b.owner, Axis):
                _gate(record, a.owner, b.owner)
    # What was multiplied with other activations brings these into the sum.
    elif not same or (call.name not in _SCALING and any(p.state.scaled for p in (*first, *second))):
        for pieces in (first, second):
            _lose(pieces, _added(record, call), loose)
    return tuple(b if b.state.activated and not a.state.activated else a for a, b in pairs) if alike else first


def _root(piece: Piece) -> Axis | None:
    return piece.owner.root() if isinstance(piece.owner, Axis) else None


def _gate(record: Record, first: Axis, second: Axis) -> None:
    """A unit that is the product of two: both are the same unit, unless one is computed from the other."""
    first.touch()
    second.touch()
    if first.root() is second.root():
        return
    ones, others = first.same(), second.same()
    if any(a.comes_from(others) for a in ones) or any(b.comes_from(ones) for b in others):
        for axis in (*ones, *others):
            axis.exclude(f"{record.place} multiplies them with features that are computed from them")
    else:
        first.join(second)


def _with_parameter(
    record: Record, call: Call, dims: list[Pieces], tensor: Tensor, value: Value, direct: set[Axis]
) -> None:
    """A parameter that is added to units is a bias (to ``direct`` as it is), one they are multiplied with a scale."""
    offset = len(dims) - tensor.ndim
    for dim, pieces in enumerate(dims):
        for run in record.runs(pieces):
            lies = dim - offset
            # One number for all units belongs to none.
            if lies < 0 or tensor.shape[lies] != sum(p.length for p in pieces) or call.name == "_prelu_kernel":
                continue
            part = record.entries(value, lies, run)
            if part is None:
                what = "something that is computed or one of several in a parameter"
                run.axis.exclude(f"{call.name} in {record.place} combines them with {what}")
            elif call.name in ("add", "sub"):
                run.axis.bias.append(part)
                if run.axis in direct:
                    run.axis.direct.append(part)
            elif call.name == "mul":
                run.axis.norms.append(Norm(scale=part))
            else:
                run.axis.exclude(f"{call.name} in {record.place} combines them with {part.tensor}")
