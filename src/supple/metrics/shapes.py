"""Where activation functions are flat or straight lines, and which of them made the outputs of a model's units."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from supple.structure.pointwise import is_pointwise


@dataclass(frozen=True)
class Shape:
    """What can be told from the outputs of an activation function.

    Args:
        name: its name.
        saturated: outputs near which it is flat; a unit is dead that gives nothing else, on any example.
        tolerance: how near counts.
        zero: the output at 0, above which the input is positive; None: the input's sign cannot be told.
        above: outputs above this are on a straight line with a slope; None: there is none.
        below: outputs below this are on another.
    """

    name: str
    saturated: tuple[float, ...] = (0.0,)
    tolerance: float = 0.0
    zero: float | None = 0.0
    above: float | None = None
    below: float | None = None


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("relu", above=0.0),
        Shape("leaky_relu", above=0.0, below=0.0),
        Shape("elu", (-1.0,), 0.01, above=0.0),
        Shape("selu", (-1.7580993408473766,), 0.01, above=0.0),
        Shape("tanh", (-1.0, 1.0), 0.01),
        Shape("sigmoid", (0.0, 1.0), 0.01, zero=0.5),
        # Within 0.01 of the straight line from there on.
        Shape("silu", (0.0,), 0.01, above=7.0),
        Shape("gelu", (0.0,), 0.01, above=3.0),
        Shape("mish", (0.0,), 0.01, above=4.0),
        Shape("softplus", (0.0,), 0.01, zero=math.log(2), above=5.0),
        Shape("hardswish", (0.0,), above=3.0),
        Shape("hardtanh", (-1.0, 1.0)),
    )
}
"""The usual activation functions by name."""

UNKNOWN = Shape("unknown", zero=None)
"""Of what is not known, exactly 0 on all examples is dead."""

_GRID = torch.linspace(-40, 40, 1281, dtype=torch.float64)
"""Inputs at which functions are looked at; the middle one is 0."""

_NEAR = 0.01
"""What is as near to a value, or to a straight line, counts as being there."""

_PASSING = {
    *("_to_copy", "index_select", "constant_pad_nd", "mean", "avg_pool2d", "avg_pool3d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
}
"""Operations that leave the range of values as it is; views do so anyway."""


def shape_of(values: Tensor, name: str = "other") -> Shape:
    """The shape of a function, from its values: that of the table if it is one of these.

    Args:
        values: float64 [1281], at inputs evenly from -40 to 40.
        name: what it is called if it is none of the table.

    Returns:
        The shape; unknown for a straight line, which is no activation function.
    """
    for shape in SHAPES.values():
        if float((values - getattr(nn.functional, shape.name)(_GRID)).abs().max()) < 1e-3:
            return shape
    flat: dict[float, bool] = {}
    bounds: dict[bool, float] = {}
    for end in (values.flip(0), values):
        rise = end[-1] - end[-2]
        off = ~((end - end[-1] - rise * torch.arange(1 - len(end), 1)).abs() <= _NEAR)
        start = int(off.nonzero().max()) + 1 if bool(off.any()) else 0
        if start == 0:
            return UNKNOWN
        if start > 0.75 * len(end):
            continue
        if abs(rise) < 1e-6:
            # Not only as far out as what comes near rounds to it.
            flat[round(float(end[-1]), 6) + 0.0] = bool((end[int(0.6 * len(end)) :] == end[-1]).all())
        elif not off[end > end[start] if rise > 0 else end < end[start]].any():
            bounds[bool(rise > 0)] = float(end[start]) + 0.0
    middle = values[len(values) // 2]
    follows = (values[len(values) // 2 + 1 :] > middle).all() and (values[: len(values) // 2] <= middle).all()
    return Shape(
        name,
        tuple(flat) or (0.0,),
        0.0 if all(flat.values()) else _NEAR,
        zero=float(middle) if follows else None,
        above=bounds.get(True),
        below=bounds.get(False),
    )


class ShapesSeen(TorchDispatchMode):
    """Takes note, while a model runs, which activation function made the values of a tensor, however it is written.

    Operations on each entry by itself are also done with some numbers, so that what they make of an input together is
    known as a function of one number: of ``0.5 * x * (1 + tanh(...))`` as well as of ``relu(x)``. Of two different
    inputs, as in a gate or a sum, nothing is known. What is known belongs to a tensor's memory, which its views share;
    every operation that makes or changes values says it anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[Hashable, Tensor, str]] = {}
        self._numbers = count()

    def of(self, tensor: Tensor) -> Shape:
        """The activation function that a tensor comes from.

        Args:
            tensor: a tensor that was made while this was active.

        Returns:
            Its shape; unknown where something else came in between, as in a gate.
        """
        _, values, name = self._source(tensor)
        return shape_of(values, name if name in SHAPES else "other")

    def _source(self, tensor: Tensor) -> tuple[Hashable, Tensor, str]:
        """What the tensor is a function of, its values at the inputs of the grid, and the last operation."""
        memory = tensor.untyped_storage()
        source, values, name = self._known.setdefault(memory._cdata, (next(self._numbers), _GRID, ""))
        if tensor.numel() * tensor.element_size() != memory.nbytes():
            # Other parts of this memory, such as the other half of a gate, are other inputs.
            source = (source, tensor.storage_offset(), tensor.shape, tensor.stride())
        return source, values, name

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation."""
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.ndim]
        found = self._found(func, tensors, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(output, Tensor):
            memory = output.untyped_storage()._cdata
            viewed = any(memory == one.untyped_storage()._cdata for one in tensors)
            if not viewed or func._schema.is_mutable:
                self._known[memory] = found or (next(self._numbers), _GRID, "")
        return result

    def _found(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> tuple[Hashable, Tensor, str] | None:
        """What is known of an operation's result."""
        name = func.overloadpacket.__name__.removesuffix("_")
        if not tensors:
            return None
        source, values, last = self._source(tensors[0])
        if name in _PASSING:
            return (source if name == "_to_copy" else next(self._numbers)), values, last
        if name == "_prelu_kernel":  # whose slopes differ from channel to channel
            return source, nn.functional.leaky_relu(values), name
        sources = [self._source(one) for one in tensors]
        alike = {(own, one.shape) for (own, *_), one in zip(sources, tensors, strict=True)}
        if len(alike) > 1 or not is_pointwise(func):
            return None
        numbers = iter([values.clone() for _, values, _ in sources])
        own = tree_map_only(Tensor, lambda one: next(numbers) if one.ndim else one.cpu().double(), (args, kwargs))
        made = func(*own[0], **own[1])
        return (source, made, name) if isinstance(made, Tensor) else None
