"""Writing new values into chosen entries of a parameter, and into the optimizer's state of them."""

from __future__ import annotations

import torch
from torch import Tensor

from supple.methods.drawing import New, at, everywhere

FreshStates = list[tuple[Tensor, Tensor, Tensor]]
"""What :meth:`supple.methods.optimizer_state.FreshState.entries` gives, the states with the replicas in front."""

_FEW = 8
"""Up to one chosen entry in so many, looking the entries up is faster than going through all."""


def write(weight: Tensor, states: FreshStates, rows: slice | Tensor, chosen: Tensor, number: Tensor, new: New) -> None:
    """Gives chosen entries new values, and fresh optimizer state.

    Args:
        weight: [R, ...], written into.
        states: state tensors [R, ...], written into, with the offset and slope [R] of the fresh state of a value.
        rows: which replicas.
        chosen: bool [rows, ...], which of their entries.
        number: int64 [rows], how many these are.
        new: [rows, ...], a number, or a draw.
    """
    # On a CPU few entries are looked up; elsewhere their number would have to be waited for.
    if weight.device.type != "cpu" or (count := int(number.sum())) * _FEW >= chosen.numel():
        _write_all(weight, states, rows, chosen, new)
    elif count:
        _write_at(weight, states, rows, torch.where(chosen), new)


def _write_all(weight: Tensor, states: FreshStates, rows: slice | Tensor, chosen: Tensor, new: New) -> None:
    """Goes through all entries."""
    values = torch.where(chosen, everywhere(new, weight.dtype), weight[rows])
    weight[rows] = values
    shape = (-1,) + (1,) * (weight.ndim - 1)
    for state, offset, slope in states:
        fresh = offset[rows].view(shape) + slope[rows].view(shape) * values
        state[rows] = torch.where(chosen, fresh, state[rows])


def _write_at(weight: Tensor, states: FreshStates, rows: slice | Tensor, place: tuple[Tensor, ...], new: New) -> None:
    """Writes at (replica among the rows, index along each dimension)."""
    values = at(new, place, weight.dtype)
    replica = torch.arange(len(weight), device=weight.device)[rows][place[0]]
    where = (replica, *place[1:])
    weight[where] = values
    for state, offset, slope in states:
        state[where] = (offset[replica] + slope[replica] * values).to(state.dtype)
