"""Operations in which a weight reads units and produces others."""

from __future__ import annotations

from dataclasses import replace

from supple.structure.tracing.axis import Axis
from supple.structure.tracing.call import Call, Rule, attend, mix
from supple.structure.tracing.elementwise import pointwise
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Value, mixed

FACTORS = {
    "mm": ("self", "mat2", ""),
    "bmm": ("self", "mat2", ""),
    "addmm": ("mat1", "mat2", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "_sparse_addmm": ("mat1", "mat2", "self"),
    "linear": ("input", "weight", "bias"),
}
"""Names of the two factors, and of what is added to their product."""


def _product(record: Record, call: Call) -> list[Value] | Value:
    """mm, bmm, and both with something added."""
    first, second, bias = FACTORS[call.name]
    a, b = call.arguments[first], call.arguments[second]
    x, weight = record.value(a), record.value(b)
    in_dim, out_dim = (1, 0) if call.name == "linear" else (b.ndim - 2, b.ndim - 1)
    if x.kind == weight.kind == Kind.ACTIVATION:
        chosen = [value for value in (x, weight) if sum(map(bool, value.dims)) > 1 and value.parameters()]
        if len(chosen) == 1:
            how = f"reads them with a part of {', '.join(chosen[0].parameters())} that is chosen for each input"
            return mix(record, call, f"{record.place} {how}")
        if any(axis.size for axis in x.everything()) or any(weight.dims[:-1]):
            return attend(record, call)
        # The model's input says whose features are added up, as the edges of a graph do.
        loose = frozenset(replace(item, mixed=True) for item in x.loose | weight.loose) | mixed([])
        return Value(call.kind, tuple(map(renewed, weight.dims)), loose)
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
    scaled = {call.arguments.get(name, 1) for name in ("alpha", "beta")} != {1}
    added = Call(
        "add",
        {"alpha": None} if scaled else {},
        [call.outputs[0], term],
        [call.outputs[0].shape, term.shape],
        [result, record.value(term)],
        call.outputs,
        pointwise=True,
    )
    return pointwise(record, added)


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
                run.axis.direct.append(part)
    return result


WEIGHTS: dict[str, Rule] = {**dict.fromkeys(FACTORS, _product), "convolution": _convolution}
"""Rules by name."""
