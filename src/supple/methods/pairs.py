"""Units to replace as pairs of replica and unit, without waiting for the device to learn how many there are."""

from __future__ import annotations

import torch
from torch import Tensor


def chosen_pairs(mask: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """The entries of a mask as pairs, without waiting for the device.

    On a CPU the pairs that are chosen; elsewhere their number would have to be waited for, so all pairs come, with
    which of them are chosen.

    Args:
        mask: bool [R, n].

    Returns:
        (rows, columns, valid): int64 [M], int64 [M], and bool [M] or None where all are.
    """
    if mask.device.type == "cpu":
        rows, columns = torch.where(mask)
        return rows, columns, None
    rows = torch.arange(mask.shape[0], device=mask.device).repeat_interleave(mask.shape[1])
    columns = torch.arange(mask.shape[1], device=mask.device).repeat(mask.shape[0])
    return rows, columns, mask.flatten()


def unless_all(valid: Tensor) -> Tensor | None:
    """Which pairs are really to be replaced, or None where all are and nothing has to be waited for to see that.

    Args:
        valid: bool [M].

    Returns:
        The same, or None, which only a CPU can tell.
    """
    return None if valid.device.type == "cpu" and bool(valid.all()) else valid


def where_valid(
    view: Tensor, rows: Tensor, chosen: Tensor, value: Tensor | float, valid: Tensor | None
) -> Tensor | float:
    """What to write at [rows, chosen]: new values, or the old ones where a unit is not really to be replaced.

    Args:
        view: [R, n, ...].
        rows: int64 [M], the replica of each unit.
        chosen: int64 [M], the unit.
        value: [M, ...] or a number, the new values.
        valid: bool [M], whether it is really to be replaced; None: all are.

    Returns:
        [M, ...], or the number.
    """
    new = value.to(view.dtype) if isinstance(value, Tensor) else value
    if valid is None:
        return new
    old = view[rows, chosen]
    return torch.where(valid.view((-1,) + (1,) * (old.ndim - 1)), new, old)
