"""Where activation functions are flat or straight lines, and which of them made the outputs of a model's units."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


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

_PASSING = {
    *("clone", "_to_copy", "index_select", "constant_pad_nd", "mean", "avg_pool2d", "avg_pool3d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
}
"""Operations that leave the range of values as it is; views do so anyway."""


class ShapesSeen(TorchDispatchMode):
    """Takes note, while a model runs, which activation function made the values of a tensor.

    What is known belongs to a tensor's memory, which its views share; every operation that makes or changes values says
    it anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, Shape] = {}

    def of(self, tensor: Tensor) -> Shape:
        """The activation function that a tensor comes from.

        Args:
            tensor: a tensor that was made while this was active.

        Returns:
            Its shape; unknown where something else came in between, as in a gate.
        """
        return self._seen.get(tensor.untyped_storage()._cdata, UNKNOWN)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation."""
        source = args[0] if args and isinstance(args[0], Tensor) else None
        before = UNKNOWN if source is None else self.of(source)
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple | list) and result else result
        if isinstance(output, Tensor):
            name = func.overloadpacket.__name__.removesuffix("_")
            shape = _shape(name, args) or (before if name in _PASSING else UNKNOWN)
            viewed = source is not None and output.untyped_storage()._cdata == source.untyped_storage()._cdata
            if not viewed or func._schema.is_mutable:
                self._seen[output.untyped_storage()._cdata] = shape
        return result


def _shape(name: str, args: Any) -> Shape | None:
    """The shape of an operation; None if it is no activation function."""
    if name in ("clamp", "clamp_min"):
        return SHAPES["relu"] if args[1:] in ((0,), (0.0,)) else None
    if name == "_prelu_kernel":
        return SHAPES["leaky_relu"]
    if name == "hardtanh" and args[1:]:
        return replace(SHAPES[name], saturated=tuple(map(float, args[1:3])))
    if name in ("elu", "celu"):
        alpha, scale = (*args[1:3], 1.0, 1.0)[:2] if len(args) > 1 else (1.0, 1.0)
        return replace(SHAPES["elu"], saturated=(-float(alpha) * float(scale),))
    return SHAPES.get(name)
