"""Operations on the entries of tensors at the same place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from supple.structure.description import Norm
from supple.structure.tracing.axis import Axis
from supple.structure.tracing.call import Call
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Lost, Pieces, Value, lost

_SCALING = {"mul", "div", "masked_fill"}
_LINEAR = {*_SCALING, "neg", "add", "sub", "rsub", "native_dropout"}
_ADDING = {"add", "sub", "rsub", "lerp", "addcmul"}
_VERBS = {"mul": "multiplies them with", **dict.fromkeys(_ADDING, "adds them to")}


def pointwise(record: Record, call: Call) -> Value:
    """An operation on entries at the same place: an activation, a gate, a bias, a scale, or a residual stream.

    Units stay whole as long as their own weights make all that their entries are made of, but for what is the same for
    all of them: other units become one with them, a parameter with an entry for each belongs to them, and what else is
    different for each of them would be cut off with them.
    """
    shape = call.outputs[0].shape
    dims: list[Pieces] = [()] * len(shape)
    loose: set[Lost] = set()
    activations = [(t, v) for t, v in zip(call.tensors, call.values, strict=True) if v.kind == Kind.ACTIVATION]
    places: list[set[int]] = []
    for tensor, value in activations:
        if not value.axes():
            continue
        places.append({d for d, pieces in enumerate(value.dims, start=len(shape) - tensor.ndim) if pieces})
        for dim in sorted(places[-1]):
            pieces = value.dims[dim - len(shape)]
            if tensor.shape[dim - len(shape)] == shape[dim]:
                dims[dim] = together(record, call, dims[dim], pieces, loose)
            else:
                loose |= _lose(pieces, f"{call.name} in {record.place} applies one to many others")
    if places and not set.intersection(*places):
        for pieces in dims:
            loose |= _lose(pieces, f"{call.name} in {record.place} combines each of them with many others")
        dims = [()] * len(shape)
    known = {root for _, value in activations if value.axes() for root in _roots(value.loose)}
    normalized: set[Axis] = set()
    for tensor, value in activations:
        entering = value.loose
        for dim, pieces in enumerate(dims):
            if not pieces or value.axes():
                continue
            own = {axis.root() for piece in pieces for axis in piece.axes()}
            alike = _alike(call, tensor, dim - len(shape))
            if alike and call.name == "sub" and value.mean and own <= _roots(value.loose) <= own | known:
                entering = frozenset(replace(item, centred=True) for item in entering)
            elif not alike or not (call.name in _SCALING or tensor is call.arguments.get("condition")):
                loose |= _lose(pieces, _others(record, call, pieces, value))
                dims[dim] = ()
            elif value.inverse or (call.name == "div" and tensor is call.tensors[1]):
                # Units that are divided by their own norm are normalized.
                entering = frozenset(item for item in entering if item.axis.root() not in own)
                normalized |= own
        loose |= entering
    loose -= {item for item in loose if item.centred and item.axis.root() in normalized}
    produced = {
        p.owner for pieces in dims for p in pieces if isinstance(p.owner, Axis) and p.state.token == p.owner.token
    }
    direct = produced if call.name == "add" and call.arguments.get("alpha", 1) == 1 else set()
    dims = [renewed(pieces, call.name not in _LINEAR) for pieces in dims]
    for tensor, value in zip(call.tensors, call.values, strict=True):
        if value.kind == Kind.PARAMETER:
            _with_parameter(record, call, dims, tensor, value, direct)
    values = [value for _, value in activations]
    inverse = call.name in ("rsqrt", "reciprocal") or (
        all(value.inverse for value in values) if call.name != "pow" else _negative(call.arguments.get("exponent"))
    )
    return Value(call.kind, tuple(dims), frozenset(loose), all(value.statistic for value in values), inverse)


def _negative(exponent: object) -> bool:
    return isinstance(exponent, int | float) and exponent < 0


def _lose(pieces: Pieces, reason: str) -> frozenset[Lost]:
    return lost((axis for piece in pieces for axis in piece.axes()), reason)


def _roots(loose: Iterable[Lost]) -> set[Axis]:
    return {item.axis.root() for item in loose}


def _alike(call: Call, tensor: Tensor, dim: int) -> bool:
    """Whether an operation combines all units along a dimension with the same numbers of a tensor."""
    return -dim > tensor.ndim or tensor.stride(dim) == 0 or tensor.shape[dim] < call.outputs[0].shape[dim]


def _others(record: Record, call: Call, pieces: Pieces, value: Value) -> str:
    """Why units that are combined with features that are not followed cannot be replaced."""
    axes, others = [axis for piece in pieces for axis in piece.axes()], value.unmixed()
    return _reason(record, call, call.name in _ADDING and any(axis.comes_from(others) for axis in axes))


def _reason(record: Record, call: Call, related: bool) -> str:
    """Why units that are combined with other features cannot be replaced; related: one is computed from the other."""
    how = f"{call.name} in {record.place} {_VERBS.get(call.name, 'combines them with')}"
    if not related:
        return f"{how} features that their own weights do not make"
    if call.name in _ADDING:
        return f"{how} other features, as a residual stream or a recurrence does"
    return f"{how} features that are computed from them"


def together(record: Record, call: Call, first: Pieces, second: Pieces, loose: set[Lost]) -> Pieces:
    """What lies along a dimension of the result of two tensors with units along it.

    Units at the same place are the same unit from here on, as in a gated layer, unless one is computed from the other.
    Each tensor has () where nothing is followed; ``loose`` takes units that have no known place any more.
    """
    if not first:
        return second
    pairs = list(zip(first, second, strict=False))
    alike = len(first) == len(second) and all(
        (isinstance(a.owner, Axis), a.length, a.after) == (isinstance(b.owner, Axis), b.length, b.after)
        for a, b in pairs
    )
    if reason := _apart(record, call, first, second, alike):
        loose |= _lose(first, reason) | _lose(second, reason)
        return ()
    result = []
    for a, b in pairs:
        piece = b if b.state.activated and not a.state.activated else a
        if isinstance(a.owner, Axis) and isinstance(b.owner, Axis):
            joined = a.state.joined or b.state.joined or a.owner.root() is not b.owner.root()
            a.owner.join(b.owner, "*" if call.name in ("mul", "glu") else "+")
            piece = replace(piece, state=replace(piece.state, joined=joined))
        result.append(piece)
    return tuple(result)


def _apart(record: Record, call: Call, first: Pieces, second: Pieces, alike: bool) -> str:
    """Why units at the same place of two tensors cannot be the same; "" if they can."""
    pairs = [(a.owner, b.owner) for a, b in zip(first, second, strict=False)] if alike else []
    related = False
    for a, b in ((a, b) for a, b in pairs if isinstance(a, Axis) and isinstance(b, Axis) and a.root() is not b.root()):
        a.touch()
        b.touch()
        related |= any(x.comes_from(b.same()) for x in a.same()) or any(x.comes_from(a.same()) for x in b.same())
    if alike and not related:
        return ""
    ones, others = ([axis for piece in pieces for axis in piece.axes()] for pieces in (first, second))
    related |= any(axis.comes_from(others) for axis in ones) or any(axis.comes_from(ones) for axis in others)
    return _reason(record, call, related)


def _with_parameter(
    record: Record, call: Call, dims: list[Pieces], tensor: Tensor, value: Value, direct: set[Axis]
) -> None:
    """A parameter that is added to units is a bias (to ``direct`` as it is); any other gets its initial value again."""
    offset = len(dims) - tensor.ndim
    for dim, pieces in enumerate(dims):
        for run in record.runs(pieces):
            lies = dim - offset
            # One number for all units belongs to none.
            if lies < 0 or tensor.shape[lies] != sum(p.length for p in pieces):
                continue
            owner = record.owner(value, lies)
            if owner is None:
                what = "something that is computed from parameters alone, or one of several in a parameter"
                run.axis.exclude(f"{call.name} in {record.place} combines them with {what}")
                continue
            part, *noise = (run.slice(name, owner.dim, owner.start) for name in (owner.tensor, *owner.noise))
            if call.name in ("add", "sub") and owner.form == "itself":
                run.axis.bias.append(part)
                if run.axis in direct:
                    run.axis.direct.append(part)
            else:
                noise.append(part)
            run.axis.norms += [Norm(scale=part) for part in noise]
