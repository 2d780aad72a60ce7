"""Adding small changes to parameters in half precision, with random numbers that are drawn for many of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from supple.functional import random
from supple.functional.rounding import add_by_chance

if TYPE_CHECKING:
    from supple.methods.base import Method
    from supple.methods.weights import Weights

_CPU, _ACCELERATOR = 1 << 18, 1 << 22
"""How many entries are worked on at a time: a sum takes several times the memory of a weight, a call takes its time."""


class Chances:
    """The random numbers by which a method's sums are rounded, one for each entry of all its parameters.

    A number is a function of seed, purpose, step and the entry's index in all parameters together, one after the other.
    They are drawn some way ahead, since drawing for one small parameter takes as long as for a thousand.

    Args:
        method: the method.
    """

    def __init__(self, method: Method) -> None:
        self._starts, self._size = {}, 0
        for name, block in method.blocks.items():
            self._starts[name] = self._size
            self._size += block.whole.numel()
        self._drawn: dict[str, tuple[Any, Tensor]] = {}

    def add(self, w: Weights, tensor: Tensor, factor: Tensor, purpose: str) -> None:
        """Adds tensor * factor to a parameter in half precision, rounded by chance.

        Args:
            w: the parameter.
            tensor: [rows, ...].
            factor: [rows, 1, ...] or [1, 1, ...].
            purpose: what is done.
        """
        flat, changes, factors = (one.reshape(len(one), -1) for one in (w.value, tensor, factor))
        width = max(1, (_CPU if flat.device.type == "cpu" else _ACCELERATOR) // len(flat))
        start = self._starts[w.name] + (w.block.first or 0)
        left, size = 0, flat.shape[1]
        while left < size:
            # Cut where what is drawn ahead ends.
            part = slice(left, min(size, left + width - (start + left) % width))
            numbers = self._numbers(w, purpose, part, start, width)
            flat[:, part] = add_by_chance(flat[:, part], changes[:, part].float() * factors, numbers)
            left = part.stop
        w.method.stack(w.parameter)[w.rows] = flat.view(w.value.shape)

    def _numbers(self, w: Weights, purpose: str, part: slice, start: int, width: int) -> Tensor:
        """The numbers of some entries of a parameter's block, [rows, entries]."""
        method, first = w.method, start + part.start
        seed, key = method.seed[w.rows], random.purpose(*method.moment, purpose)
        if w.block.first is None:
            index = start + w.block.every_index(seed.device).flatten()[part]
            return random.uniform_at(seed.unsqueeze(1), key, method.time, index)
        if w.block.mesh is not None:
            return random.uniform(seed, key, method.time, part.stop - part.start, first)
        ahead = first // width * width
        about, drawn = self._drawn.get(purpose, (None, seed))
        if about is None or about[:-1] != (key, method.time, ahead) or about[-1] is not w.rows:
            drawn = random.uniform(seed, key, method.time, min(width, self._size - ahead), ahead)
            self._drawn[purpose] = ((key, method.time, ahead, w.rows), drawn)
        return drawn[:, first - ahead : start + part.stop - ahead]
