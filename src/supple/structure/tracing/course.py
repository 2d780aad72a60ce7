"""Which way a forward pass goes where random numbers or the values of a tensor decide."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Lean = Literal["", "low", "high"]
Decision = tuple[str, int]
"""The module in which something is decided, and how often it decided before in the same pass."""

_UNIFORM = (
    torch.ops.aten.rand.default,
    torch.ops.aten.rand.generator,
    torch.ops.aten.rand_like.default,
    torch.ops.aten.uniform_.default,
)


class Course:
    """One way through a model.

    What is done with a small probability, as leaving out a layer, would be missed by a few passes. So there are passes
    in which random numbers are nearly as small as they get, and nearly as large: then a comparison of one with a
    threshold goes both ways. A decision that is made in PyTorch can also be turned into its opposite.

    Args:
        seed: of the random numbers.
        lean: whether single random numbers are small or large, the first few hundred.
        turned: a decision that is to go the other way.

    Attributes:
        decisions: how each was made, in order.
        chance: whether random numbers were drawn.
    """

    def __init__(self, seed: int = 0, lean: Lean = "", turned: Decision | None = None) -> None:
        self.seed, self.lean, self.turned = seed, lean, turned
        self.decisions: dict[Decision, bool] = {}
        self.chance = False
        self._leant = 0
        self._made: Counter[str] = Counter()
        self._generators: list[tuple[torch.Generator, Tensor]] = []

    def run(self, func: Any, args: Any, kwargs: dict[str, Any], place: str) -> Any:
        """Runs an operation of ATen in a module, and gives out what it gives out on this way."""
        generator = kwargs.get("generator")
        if generator is not None:
            self._generators.append((generator, generator.get_state()))
        output = func(*args, **kwargs)
        if isinstance(output, bool) and torch.Tag.data_dependent_output in func.tags:
            decision = (place, self._made[place])
            self._made[place] += 1
            self.decisions[decision] = output = output != (decision == self.turned)
        elif self.lean and func in _UNIFORM and output.numel() == 1 and len(args) == 1 and self._leant < 512:
            self._leant += 1  # a loop may wait for another number
            output.fill_(2.0**-8 if self.lean == "low" else 1 - 2.0**-8)
        return output

    @contextlib.contextmanager
    def random_numbers(self, model: nn.Module) -> Iterator[None]:
        """Gives PyTorch, Python and NumPy the random numbers of this way, and afterwards back what they had."""
        kinds = {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} - {"cpu", "meta"}
        devices = [module for module in map(torch.get_device_module, kinds) if hasattr(module, "get_rng_state_all")]
        before = _states(devices)
        # Not torch.manual_seed, which is remembered for devices that are not in use yet.
        torch.default_generator.manual_seed(self.seed)
        for device in devices:
            device.manual_seed_all(self.seed)
        words = _words(self.lean, self.seed)
        random.setstate((3, (*words.tolist(), 0), None))
        if before[1]["bit_generator"] == "MT19937":
            np.random.set_state({"bit_generator": "MT19937", "state": {"key": words, "pos": 0}})  # noqa: NPY002
        started = _contents(_states(devices))
        try:
            yield
        finally:
            self.chance = bool(self._generators) or _contents(_states(devices)) != started
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch.default_generator.set_state(before[2])
            for device, states in zip(devices, before[3], strict=True):
                device.set_rng_state_all(states)
            for generator, state in reversed(self._generators):
                generator.set_state(state)


def _states(devices: list[Any]) -> tuple[Any, dict[str, Any], Tensor, list[list[Tensor]]]:
    """The states of all generators that nobody has to name."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), numpy_state, torch.default_generator.get_state(), [d.get_rng_state_all() for d in devices]


def _contents(states: tuple[Any, dict[str, Any], Tensor, list[list[Tensor]]]) -> list[bytes]:
    """What can be compared of them."""
    python, numpy, cpu, devices = states
    return [pickle.dumps((python, numpy))] + [bytes(one.numpy()) for one in [cpu, *itertools.chain(*devices)]]


def _words(lean: Lean, seed: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The state of a Mersenne Twister, which Python and NumPy have, whose next 624 numbers lean to one side."""
    numbers = np.random.Generator(np.random.PCG64(seed)).integers(2**32, size=624, dtype=np.uint32)
    if lean:
        numbers = numbers >> np.uint32(8)
    if lean == "high":
        numbers = ~numbers
    # A number is a word of the state after four steps, which are undone here.
    numbers = numbers ^ (numbers >> np.uint32(18))
    numbers = numbers ^ ((numbers << np.uint32(15)) & np.uint32(0xEFC60000))
    word = numbers
    for _ in range(4):
        word = numbers ^ ((word << np.uint32(7)) & np.uint32(0x9D2C5680))
    numbers = word
    for _ in range(2):
        word = numbers ^ (word >> np.uint32(11))
    return word
