"""One operation of a traced model, and what it does when nothing better is known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supple.structure.tracing.record import Record
from supple.structure.tracing.values import Kind, Value, mixed


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
        """An argument that names dimensions of the first tensor, as numbers from 0 on; none given: all of them."""
        given, ndim = self.arguments.get(name), len(self.shapes[0])
        if given is None or given == []:
            return list(range(ndim))
        return [d % max(ndim, 1) for d in (given if isinstance(given, Sequence) else [given])]


Rule = Callable[[Record, Call], Value | list[Value]]
"""Says what is known of the outputs of an operation: of each, or the same of all."""


def mix(record: Record, call: Call, reason: str | None = None) -> list[Value]:
    """An operation that may mix units, or that is not known; the reason is why they cannot be replaced."""
    for value in call.values:
        record.blame(value)
        for axis in value.axes():
            axis.exclude(reason or f"{call.name} in {record.place} may mix them")
    return _unknown(call)


def attend(record: Record, call: Call) -> list[Value]:
    """An operation of attention, which multiplies activations with each other."""
    name = "scaled_dot_product_attention" if "scaled_dot_product" in call.name else call.name
    if name.endswith("attention"):
        how = "they go into attention"
    elif name.endswith("softmax"):
        how = "they are weighed against each other, as in attention"
    else:
        how = "they are multiplied with other features, as in attention"
    for value in call.values:
        for axis in value.everything():
            axis.exclude(f"{how} ({name} in {record.place})", rank=2)
    return _unknown(call)


def _unknown(call: Call) -> list[Value]:
    loose = mixed(axis for value in call.values for axis in value.everything())
    return [Value(call.kind, ((),) * out.ndim, loose) for out in call.outputs]
