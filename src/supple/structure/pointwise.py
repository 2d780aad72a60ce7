"""Which operations of PyTorch act on each entry by itself."""

from __future__ import annotations

from typing import Any

import torch

_UNTAGGED = {
    *("hardswish", "rrelu_with_noise", "log_sigmoid_forward", "native_dropout", "_prelu_kernel"),
    # Where they write in place; those of the second row, and leaky_relu in any case, in PyTorch 2.6 only.
    *("mish", "threshold"),
    *("leaky_relu", "hardtanh", "hardsigmoid", "elu", "celu"),
}
"""Operations that not every version of PyTorch marks as such."""


def is_pointwise(func: Any) -> bool:
    """Whether an entry of an operation's output depends on the entries at the same place of its inputs alone.

    Args:
        func: the operation, as ``__torch_dispatch__`` is given it.

    Returns:
        The answer.
    """
    schema = getattr(func, "_schema", None)  # which higher-order operators do not have
    name = "" if schema is None else schema.name.split("::")[-1].removesuffix("_")
    return torch.Tag.pointwise in getattr(func, "tags", ()) or name in _UNTAGGED
