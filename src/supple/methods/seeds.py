"""The seed of a method for which none is stated: one of its own, which ``torch.manual_seed`` decides.

It is a function of ``torch.initial_seed()`` and of how many such methods were made before, and takes no number from
torch's generator. Processes that train one network together may be seeded differently and yet have to draw the same
numbers: there the first one tells the others its seed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

_QUIET, _PATIENCE = timedelta(seconds=10), timedelta(seconds=110)
"""How long to wait for the first process before a word, and after it."""


class _Order:
    """Counts the methods that are made, anew when torch's generator is seeded.

    That shows by another initial seed, or by a state that the generator had at an earlier time and then left: its state
    is noted when a method is made, and at its first step. Seeded with the same number as before, and nothing drawn
    since a method was made, the generator is as if nothing had happened, and counting goes on.
    """

    def __init__(self) -> None:
        self._initial: int | None = None
        self._state, self._number = b"", -1
        self._numbers: dict[bytes, int] = {}

    def note(self) -> bool:
        """Notes the generator's state; says whether it is another than at the last time."""
        state = hashlib.blake2b(torch.get_rng_state().numpy().tobytes(), digest_size=16).digest()
        differs, self._state = state != self._state, state
        return differs

    def next(self) -> int:
        """The number of the next method, from 0 on."""
        differs = self.note()
        if torch.initial_seed() != self._initial:
            self._initial, self._number, self._numbers = torch.initial_seed(), -1, {}
        self._number = self._numbers[self._state] if differs and self._state in self._numbers else self._number + 1
        self._numbers.setdefault(self._state, self._number)
        return self._number


_order = _Order()
_told: Counter[str] = Counter()


def note_first_step() -> None:
    """Notes that a method takes its first step: numbers drawn since it was made show later that time went back."""
    _order.note()


def next_seed() -> int:
    """The seed of the next method of this process.

    Returns:
        A signed 64-bit number.
    """
    number = _order.next()
    digest = hashlib.blake2b(f"supple method {torch.initial_seed()} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def processes(mesh: Any, group: Any) -> list[int]:
    """The processes that train a network together; all there are, unless something says which.

    Args:
        mesh: the devices that hold its sharded parameters, or None.
        group: their process group, or None.

    Returns:
        Their ranks, the first one first; [0] where there is only this one.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [0]
    if mesh is not None:
        return [int(rank) for rank in mesh.mesh.flatten()]
    if group is not None:
        return torch.distributed.get_process_group_ranks(group)
    return list(range(torch.distributed.get_world_size()))


def common_seed(ranks: Sequence[int], kind: str, network: object) -> int:
    """The seed of the next method, for all processes that train a network the one that the first of them has.

    It is told through the store by which the processes met, in which the first one leaves it: nobody waits where only
    the first one makes a method, and everybody can say for whom he waits.

    Args:
        ranks: these processes.
        kind: the method's class.
        network: what the network is told by; its ``repr`` is the same in all processes.

    Returns:
        A signed 64-bit number.

    Raises:
        RuntimeError: if the first process makes no such method.
    """
    own = next_seed()
    if len(ranks) == 1:
        return own
    what = hashlib.blake2b(repr((list(ranks), kind, network)).encode(), digest_size=16).hexdigest()
    key = f"supple/seed/{what}/{_told[what]}"
    _told[what] += 1
    store = torch.distributed.distributed_c10d._get_default_store()
    remedy = (
        f"Make the {kind} in every process that trains this network; where each trains a network of its own, or only "
        f"some make a method, state the seed: {kind}(..., seed=...)"
    )
    if store is None:
        raise RuntimeError(f"processes of this kind cannot tell each other the seed of a {kind}. State it: seed=...")
    if torch.distributed.get_rank() == ranks[0]:
        store.set(key, str(own))
        return own
    try:
        store.wait([key], _QUIET)
    except RuntimeError:
        warnings.warn(f"waiting for process {ranks[0]}, whose seed is that of the {kind}. {remedy}", stacklevel=5)
        try:
            store.wait([key], _PATIENCE)
        except RuntimeError as error:
            raise RuntimeError(
                f"process {ranks[0]}, whose seed is that of the {kind}, made none for this network in "
                f"{(_QUIET + _PATIENCE).seconds} seconds. {remedy}"
            ) from error
    return int(store.get(key))


@contextmanager
def aside() -> Iterator[None]:
    """Lets methods be made that later ones do not count: they get the seeds that they would have had without.

    Yields:
        Nothing.
    """
    global _order
    before, _order = _order, _Order()
    try:
        yield
    finally:
        _order = before
