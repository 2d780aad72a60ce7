"""What each operation of PyTorch does to the units in its inputs: keeps them apart, reads them, or mixes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supple.structure.description import Norm
from supple.structure.tracing.layout import narrow, padded, renewed, reshape, tidy
from supple.structure.tracing.record import Record, layer_name
from supple.structure.tracing.values import Axis, Kind, Piece, Pieces, Value


@dataclass(frozen=True)
class Call:
    """One operation.

    Args:
        name: its name in ATen, without the underscore that writing in place has at the end.
        arguments: its arguments by name.
        tensors: the tensors among them.
        shapes: what their shapes were before it.
        values: what is known of these.
        outputs: the tensors it gives out.
        pointwise: whether an entry of the output depends on the entries at the same place of the inputs alone.
    """

    name: str
    arguments: dict[str, Any]
    tensors: list[Tensor]
    shapes: list[torch.Size]
    values: list[Value]
    outputs: list[Tensor]
    pointwise: bool

    @property
    def kind(self) -> Kind:
        """What the outputs depend on."""
        return max((value.kind for value in self.values), default=Kind.CONSTANT)

    def dims(self, name: str) -> list[int]:
        """An argument that names dimensions of the first tensor, as numbers from 0 on; none given: all of them.

        Args:
            name: the argument.

        Returns:
            The dimensions.
        """
        given, ndim = self.arguments.get(name), len(self.shapes[0])
        if given is None or given == []:
            return list(range(ndim))
        return [d % max(ndim, 1) for d in (given if isinstance(given, Sequence) else [given])]


Rule = Callable[[Record, Call], Value | list[Value]]

# Multiplying by something else leaves a unit's output with the layers that read the product.
_SCALING = {"mul", "div", "masked_fill"}
_LINEAR = {*_SCALING, "neg", "add", "sub", "rsub", "native_dropout"}
# Pointwise, but without PyTorch's tag for it.
_POINTWISE = {"hardswish", "log_sigmoid_forward", "rrelu_with_noise", "_prelu_kernel", "native_dropout"}
_REDUCING = {
    *("sum", "mean", "prod", "amax", "amin", "max", "min", "median", "var", "std", "var_mean", "std_mean", "norm"),
    *("linalg_vector_norm", "logsumexp", "nansum", "nanmean", "all", "any", "argmax", "argmin", "aminmax"),
}
_ALONG = {
    *("_softmax", "_log_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "sort", "flip", "roll"),
    *("topk", "index_select"),
}
_SPATIAL = re.compile(r"(?:(?<!un)pool|upsample_\w*?|_pad)(\d)d")
_SAME = {"clone", "_to_copy", "detach", "alias", "lift_fresh", "lift_fresh_copy", "contiguous"}
_RESHAPING = {"view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "squeeze_copy", "view_copy"}
_CONSTANT = re.compile(r"(\w+_like|new_\w+)")


def apply(record: Record, call: Call) -> list[Value]:
    """What is known of the outputs of an operation; notes in the record what it does to the units.

    Args:
        record: of the trace.
        call: the operation.

    Returns:
        A value for each output.
    """
    if call.kind == Kind.CONSTANT or _CONSTANT.fullmatch(call.name):
        return [Value(Kind.CONSTANT, ((),) * out.ndim) for out in call.outputs]
    rule = _RULES.get(call.name)
    if rule is None:
        for value in call.values:
            record.use(value)
        if call.kind == Kind.PARAMETER:
            for name in {name for value in call.values if len(value.dims) > 1 for name in value.parameters()}:
                if call.name in _CONTRACTIONS:
                    record.excluded.setdefault(layer_name(name), "it reads nothing that depends on the model's input")
            return [Value(Kind.PARAMETER, ((),) * out.ndim) for out in call.outputs]
        if call.name in _CONTRACTIONS:
            rule = _CONTRACTIONS[call.name]
        elif call.pointwise or call.name in _POINTWISE:
            rule = _pointwise
        elif call.name in _REDUCING:
            rule = _reduce
        elif call.name in _ALONG:
            rule = _along
        elif "scaled_dot_product" in call.name:
            rule = attend
        elif found := _SPATIAL.search(call.name):
            return _spatial(record, call, int(found[1]))
        else:
            rule = _OTHERS.get(call.name, mix)
        # An index or a mask may be computed from units too.
        if rule in (_reduce, _along, _repeat, _pad, _glu) and any(value.axes() for value in call.values[1:]):
            rule = mix
    result = rule(record, call)
    return result if isinstance(result, list) else [result] * len(call.outputs)


def mix(record: Record, call: Call, reason: str | None = None) -> list[Value]:
    """An operation that may mix units, or that is not known.

    Args:
        record: of the trace.
        call: the operation.
        reason: why its inputs' units cannot be replaced, if there is more to say.

    Returns:
        Values of its outputs.
    """
    for value in call.values:
        for axis in value.axes():
            axis.exclude(reason or f"{call.name} in {record.place} may mix them")
    return _unknown(call)


def attend(record: Record, call: Call) -> list[Value]:
    """An operation of attention, which multiplies activations with each other.

    Args:
        record: of the trace.
        call: the operation.

    Returns:
        Values of its outputs.
    """
    name = "scaled_dot_product_attention" if "scaled_dot_product" in call.name else call.name
    for value in call.values:
        for axis in value.everything():
            axis.exclude(f"they go into attention ({name} in {record.place})", rank=2)
    return _unknown(call)


def _unknown(call: Call) -> list[Value]:
    loose = frozenset[Axis]().union(*(value.everything() for value in call.values))
    return [Value(call.kind, ((),) * out.ndim, loose) for out in call.outputs]


# Views.


def _same(record: Record, call: Call) -> Value:
    return call.values[0]


def _reshape(record: Record, call: Call) -> Value:
    value, old, new = call.values[0], call.shapes[0], call.outputs[0].shape
    dims, lost = reshape(value.dims, old, new)
    for axis in lost:
        axis.exclude(f"{call.name} in {record.place} spreads them over several dimensions", rank=0)
    return replace(value, dims=dims, loose=value.loose | lost)


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
            lost = dims[dim] != ()
        else:
            length = out.shape[dim]
            narrowed = narrow(dims[dim], place, length) if call.arguments.get("step", 1) == 1 else None
            lost, kept = narrowed is None and dims[dim] != (), narrowed or ()
            place += length
        if lost:
            axes = {p.owner for p in dims[dim] if isinstance(p.owner, Axis)}
            for axis in axes:
                axis.exclude(f"{call.name} in {record.place} takes some of them", rank=0)
            loose = loose | axes
        whole = out.ndim == len(dims) and out.shape[dim] == call.shapes[0][dim]
        if not dims[dim] and not whole:
            dims = [renewed(pieces) for pieces in dims]
        dims[dim : dim + 1] = [kept] if out.ndim == len(dims) else []
        results.append(Value(value.kind, tuple(dims), loose))
    return results


# Operations that keep units apart.


def _pointwise(record: Record, call: Call) -> Value:
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
                dims[dim] = _together(record, call, dims[dim], pieces, loose)
            else:
                _lose(pieces, f"{call.name} in {record.place} applies one to many others", loose)
    if places and not set.intersection(*places):
        for pieces in dims:
            _lose(pieces, f"{call.name} in {record.place} combines each of them with many others", loose)
    others = [t for t, v in activations if not v.axes() and t.numel() > 1 and t is not call.arguments.get("condition")]
    if followed and others and call.name not in _SCALING:
        for pieces in dims:
            _lose(pieces, _added(record, call), loose)
    dims = [renewed(pieces, call.name not in _LINEAR, scaled=bool(others)) for pieces in dims]
    for tensor, value in zip(call.tensors, call.values, strict=True):
        if value.kind == Kind.PARAMETER:
            _with_parameter(record, call, dims, tensor, value)
    return Value(call.kind, tuple(dims), frozenset(loose))


def _lose(pieces: Pieces, reason: str, loose: set[Axis]) -> None:
    axes = {piece.owner for piece in pieces if isinstance(piece.owner, Axis)}
    for axis in axes:
        axis.exclude(reason)
    loose |= axes


def _added(record: Record, call: Call) -> str:
    how = "adds them to" if call.name in ("add", "sub") else "combines them with"
    return f"{call.name} in {record.place} {how} other features, as a residual stream does"


def _together(record: Record, call: Call, first: Pieces, second: Pieces, loose: set[Axis]) -> Pieces:
    """What lies along a dimension of the result of two tensors with units along it."""
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
    if first in second.ancestors or second in first.ancestors:
        for axis in (first, second):
            axis.exclude(f"{record.place} multiplies them with features that are computed from them")
    else:
        first.join(second)


def _with_parameter(record: Record, call: Call, dims: list[Pieces], tensor: Tensor, value: Value) -> None:
    """A parameter that is added to units is a bias, one they are multiplied with a scale."""
    offset = len(dims) - tensor.ndim
    for dim, pieces in enumerate(dims):
        for run in record.runs(pieces):
            lies = dim - offset
            if tensor.numel() == 1 or call.name == "_prelu_kernel" or lies < 0 or tensor.shape[lies] == 1:
                continue
            part = record.entries(value, lies, run)
            if part is None:
                run.axis.exclude(f"{call.name} in {record.place} combines them with something that is computed")
            elif call.name in ("add", "sub"):
                run.axis.bias.append(part)
            elif call.name == "mul":
                run.axis.norms.append(Norm(scale=part))
            else:
                run.axis.exclude(f"{call.name} in {record.place} combines them with {part.tensor}")


def _reduce(record: Record, call: Call) -> list[Value]:
    value = call.values[0]
    over = set(call.dims("dim")) if len(call.tensors) == 1 else set(range(len(call.shapes[0])))
    if any(value.dims[d] for d in over):
        return mix(record, call)
    result = []
    for out in call.outputs:
        dims = [renewed(p) for d, p in enumerate(value.dims) if d not in over or out.ndim == len(value.dims)]
        result.append(Value(call.kind, tuple(dims), value.loose))
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
    return Value(call.kind, tuple(renewed(pieces, activated) for pieces in value.dims), value.loose)


def _spatial(record: Record, call: Call, positions: int) -> list[Value]:
    """Pooling, resizing and padding of the last dimensions."""
    value = call.values[0]
    if any(value.dims[-positions:]) or any(other.axes() for other in call.values[1:]):
        return mix(record, call)
    return [Value(call.kind, tuple(map(renewed, value.dims)), value.loose) for _ in call.outputs]


def _glu(record: Record, call: Call) -> list[Value] | Value:
    value, (dim,) = call.values[0], call.dims("dim")
    half = call.outputs[0].shape[dim]
    dims = list(map(renewed, value.dims))
    if dims[dim]:
        halves = [narrow(dims[dim], start, half) for start in (0, half)]
        if not all(halves):
            return mix(record, call)
        loose = set(value.loose)
        product = replace(call, name="mul")
        dims[dim] = renewed(_together(record, product, halves[0] or (), halves[1] or (), loose), activated=True)
        return Value(call.kind, tuple(dims), frozenset(loose))
    return replace(value, dims=tuple(dims))


# Joining tensors.


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
    loose = frozenset[Axis]().union(*(value.loose for value in call.values))
    return Value(call.kind, tuple(first), loose)


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


# Weights.

_FACTORS = {
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
}
"""Names of the two factors, and of what is added to their product."""


def _product(record: Record, call: Call) -> list[Value] | Value:
    """mm, bmm, and both with something added."""
    first, second, bias = _FACTORS[call.name]
    a, b = call.arguments[first], call.arguments[second]
    x, weight = record.value(a), record.value(b)
    in_dim, out_dim = (1, 0) if call.name == "linear" else (b.ndim - 2, b.ndim - 1)
    if x.kind == weight.kind == Kind.ACTIVATION:
        return attend(record, call)
    if x.kind == Kind.ACTIVATION:
        result = record.contract(x, a.ndim - 1, weight, in_dim, out_dim)
    else:
        # The weight stands in front of what it reads.
        result = record.contract(weight=x, x=weight, x_dim=b.ndim - 2, in_dim=a.ndim - 1, out_dim=a.ndim - 2)
    batched = b.ndim == 3 and a.shape[0] > 1 and any(v.kind != Kind.ACTIVATION and v.dims[0] for v in (x, weight))
    if batched:
        for axis in result.axes() | x.axes() | weight.axes():
            axis.exclude(f"{call.name} in {record.place} applies several weights at once")
    term = call.arguments.get(bias)
    if term is None:
        return result
    added = Call(
        "add",
        {},
        [call.outputs[0], term],
        [call.outputs[0].shape, term.shape],
        [result, record.value(term)],
        call.outputs,
        pointwise=True,
    )
    return _pointwise(record, added)


def _convolution(record: Record, call: Call) -> list[Value] | Value:
    given = call.arguments
    x, weight, transposed = record.value(given["input"]), record.value(given["weight"]), given["transposed"]
    if weight.kind == Kind.ACTIVATION:
        return mix(record, call)
    for axis in (p.owner for pieces in (x.dims[0], *x.dims[2:]) for p in pieces if isinstance(p.owner, Axis)):
        axis.exclude(f"{call.name} in {record.place} takes them for positions")
    result = record.contract(x, 1, weight, *((0, 1) if transposed else (1, 0)), groups=int(given["groups"]))
    result = replace(result, dims=tuple(pieces if d == 1 else () for d, pieces in enumerate(result.dims)))
    bias = given.get("bias")
    if bias is not None:
        for run in record.runs(result.dims[1]):
            part = record.entries(record.value(bias), 0, run)
            if part is None:
                run.axis.exclude("its bias is computed, not a parameter")
            else:
                run.axis.bias.append(part)
    return result


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_RESHAPING, _reshape),
    **dict.fromkeys(("permute", "transpose", "t", "swapaxes", "swapdims", "movedim"), _permute),
    **dict.fromkeys(("slice", "select", "split", "split_with_sizes", "unbind"), _cut),
    "expand": _expand,
}
"""Views, also of parameters: they do not count as a use."""
_CONTRACTIONS: dict[str, Rule] = {
    **dict.fromkeys(_FACTORS, _product),
    "convolution": _convolution,
}
_OTHERS: dict[str, Rule] = {"cat": _join, "stack": _join, "repeat": _repeat, "constant_pad_nd": _pad, "glu": _glu}
