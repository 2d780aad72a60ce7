"""What each operation of PyTorch does to the units in its inputs: keeps them apart, reads them, or mixes them."""

from __future__ import annotations

import re

from supple.structure.tracing.call import Call, attend, mix
from supple.structure.tracing.elementwise import pointwise
from supple.structure.tracing.indexing import INDEXING
from supple.structure.tracing.record import Record, layer_name
from supple.structure.tracing.shaping import shaping
from supple.structure.tracing.values import Kind, Value
from supple.structure.tracing.views import VIEWS
from supple.structure.tracing.weights import WEIGHTS

# Pointwise, but without PyTorch's tag for it.
_POINTWISE = {"hardswish", "log_sigmoid_forward", "rrelu_with_noise", "_prelu_kernel", "native_dropout"}
_CONSTANT = re.compile(r"(\w+_like|new_\w+)")


def apply(record: Record, call: Call) -> list[Value]:
    """Notes in the record what an operation does to the units, and says what is known of each of its outputs."""
    if call.kind == Kind.CONSTANT or _CONSTANT.fullmatch(call.name):
        return [Value(Kind.CONSTANT, ((),) * out.ndim) for out in call.outputs]
    rule = VIEWS.get(call.name)
    if rule is None:
        for value in call.values:
            record.use(value)
        if call.kind == Kind.PARAMETER:
            return _parameters(record, call)
        rule = WEIGHTS.get(call.name) or INDEXING.get(call.name)
    if rule is None and (call.pointwise or call.name in _POINTWISE):
        rule = pointwise
    if rule is None:
        rule = attend if "scaled_dot_product" in call.name else shaping(call) or mix
    result = rule(record, call)
    return result if isinstance(result, list) else [result] * len(call.outputs)


def _parameters(record: Record, call: Call) -> list[Value]:
    """An operation on parameters alone, such as a parametrization."""
    if call.name in WEIGHTS:
        for name in {name for value in call.values if len(value.dims) > 1 for name in value.parameters()}:
            record.excluded.setdefault(layer_name(name), "it reads nothing that depends on the model's input")
    return [Value(Kind.PARAMETER, ((),) * out.ndim) for out in call.outputs]
