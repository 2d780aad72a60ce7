"""What each operation of PyTorch does to the units in its inputs: keeps them apart, reads them, or mixes them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from supple.structure.tracing.call import Call, attend, mix
from supple.structure.tracing.elementwise import pointwise
from supple.structure.tracing.indexing import INDEXING, looked_up
from supple.structure.tracing.record import Record, layer_name
from supple.structure.tracing.shaping import shaping
from supple.structure.tracing.values import Entries, Kind, Pieces, Value
from supple.structure.tracing.views import VIEWS
from supple.structure.tracing.weights import WEIGHTS

_CONSTANT = re.compile(r"(\w+_like|new_\w+)")


def apply(record: Record, call: Call) -> list[Value]:
    """Notes in the record what an operation does to the units, and says what is known of each of its outputs."""
    if call.kind == Kind.CONSTANT or _CONSTANT.fullmatch(call.name):
        return [Value(Kind.CONSTANT, ((),) * out.ndim) for out in call.outputs]
    rule = VIEWS.get(call.name)
    if rule is None:
        if call.kind == Kind.PARAMETER:
            return _parameters(record, call)
        for value in call.values:
            record.use(value, call.name)
        rule = WEIGHTS.get(call.name) or INDEXING.get(call.name)
    if rule is None and call.pointwise:
        rule = pointwise
    if rule is None:
        rule = attend if "scaled_dot_product" in call.name else shaping(call) or mix
    result = rule(record, call)
    results = result if isinstance(result, list) else [result] * len(call.outputs)
    if call.kind == Kind.PARAMETER and not all(value.parameters() for value in results):
        record.use(call.values[0], call.name)  # it is not followed from here on
    return results


def _parameters(record: Record, call: Call) -> list[Value]:
    """An operation on parameters alone, such as a parametrization."""
    if call.pointwise and len(call.outputs) == 1 and (derived := _derived(call)) is not None:
        return [Value(Kind.PARAMETER, derived)]
    if call.name == "embedding" and (rows := looked_up(record, call)) is not None:
        return [rows]
    for value in call.values:
        record.use(value, call.name)
    if call.name in WEIGHTS:
        for name in {
            name for value in call.values if len(value.dims) > 1 and all(value.dims) for name in value.parameters()
        }:
            record.excluded.setdefault(layer_name(name), "it reads nothing that depends on the model's input")
    return [Value(Kind.PARAMETER, ((),) * out.ndim) for out in call.outputs]


def _derived(call: Call) -> tuple[Pieces, ...] | None:
    """What is known of a tensor whose entries are computed each from those of parameters at the same place."""
    shape = call.outputs[0].shape
    own = [(t, v) for t, v in zip(call.tensors, call.values, strict=True) if v.kind == Kind.PARAMETER]
    if any(tensor.shape != shape or not all(map(_simple, value.dims)) for tensor, value in own):
        return None
    owners = [[p[0].owner for p in value.dims if p and isinstance(p[0].owner, Entries)] for _, value in own]
    if not all(owners):
        return None
    forms = [entries[0].form for entries in owners]
    noise: tuple[str, ...] = ()
    form: Literal["itself", "scaled", "computed"] = "computed"
    chosen = 0
    if len(own) == 1:
        scales = call.name in ("mul", "neg") or (call.name == "div" and own[0][0] is call.tensors[0])
        form = "scaled" if scales and forms[0] != "computed" else "computed"
    elif call.name in ("add", "sub", "addcmul") and "itself" in forms and "computed" not in forms:
        # As in a layer with noise, whose size is learned.
        form, chosen = "itself", forms.index("itself")
        if len({tuple((entry.dim, entry.start) for entry in entries) for entries in owners}) > 1:
            return None
        others = [entries[0] for k, entries in enumerate(owners) if k != chosen]
        noise = tuple(name for entry in others for name in (entry.tensor, *entry.noise))
    else:
        return None
    return tuple(
        tuple(
            replace(piece, owner=replace(piece.owner, form=form, noise=piece.owner.noise + noise))
            for piece in pieces
            if isinstance(piece.owner, Entries)
        )
        for pieces in own[chosen][1].dims
    )


def _simple(pieces: Pieces) -> bool:
    """Whether entries of a parameter lie one by one along a dimension, or nothing."""
    one = len(pieces) == 1 and isinstance(pieces[0].owner, Entries) and pieces[0].length == pieces[0].units
    return one or not pieces
