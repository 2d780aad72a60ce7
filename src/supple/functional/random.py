"""Random numbers as functions: Philox4x32-10 of (seed, purpose, step, index).

There is no generator and no state. The same four values give the same number on every device, in every order and in
every company, so what a network draws does not depend on its neighbours or on where a run was cut and resumed.

The bijection is that of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
section 4.4, and agrees with the known-answer vectors of their library Random123. Its key is the 64-bit seed; its
128-bit counter holds the index of a block of four words (48 bits), the step (32 bits) and the purpose (48 bits).
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encrypts counters with Philox4x32.

    One round maps (c0, c1, c2, c3) to (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)), where hi and lo
    are the upper and lower 32 bits of the 64-bit product; after each round the key moves on by the Weyl constants.

    Args:
        counter: four int64 tensors that broadcast together; the lower 32 bits of each entry are a word.
        key: two int64 tensors that broadcast with the counter; the lower 32 bits of each entry are a word.
        rounds: number of rounds; 10 is the published generator.

    Returns:
        Four int64 tensors of the broadcast shape, each entry an unsigned 32-bit word.

    Source: Salmon et al. (2011), section 4.4; constants of Random123.
    """
    k0, k1 = key
    c0, c1, c2, c3, *_ = map(torch.clone, torch.broadcast_tensors(*counter, k0, k1))
    high = torch.empty_like(c0)
    for _ in range(rounds):
        # The product of two 32-bit words wraps around int64, but its 64 bits are right. In every other operation the
        # lower 32 bits of a result depend on nothing but the lower 32 bits, so only factors need to be cut to words.
        c0.bitwise_and_(_MASK).mul_(_MULTIPLIERS[0])
        c2.bitwise_and_(_MASK).mul_(_MULTIPLIERS[1])
        torch.bitwise_right_shift(c2, 32, out=high)
        c1.bitwise_xor_(high).bitwise_xor_(k0)
        torch.bitwise_right_shift(c0, 32, out=high)
        c3.bitwise_xor_(high).bitwise_xor_(k1)
        c0, c1, c2, c3 = c1, c2, c3, c0
        k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return c0.bitwise_and_(_MASK), c1.bitwise_and_(_MASK), c2.bitwise_and_(_MASK), c3.bitwise_and_(_MASK)


@lru_cache(maxsize=4096)
def purpose(*parts: str) -> int:
    """A 48-bit number for what random numbers are for, from the words that say it.

    Args:
        parts: words, such as ``("swr", "resample", "layers.0.weight")``. Different words give different numbers but
            for a chance of 1 in 2**48 a pair.

    Returns:
        The number, 0 <= purpose < 2**48.
    """
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=6).digest(), "little")


def _words(seed: Tensor, purpose: int, step: int | Tensor, block: Tensor, uniform: bool) -> Tensor:
    """The four words of each block along a last dimension, int64 or as uniform float32; seed and block broadcast."""
    if seed.dtype != torch.int64:
        raise TypeError(f"seed is {seed.dtype}; it has to be torch.int64: pass seed.long()")
    if not isinstance(step, Tensor) and not 0 <= step <= _MASK:
        raise ValueError(f"step is {step}; random numbers are defined for steps from 0 to 2**32 - 1")
    if not 0 <= purpose < 1 << 48:
        raise ValueError(f"purpose is {purpose}; it has to be from 0 to 2**48 - 1: make it with random.purpose(...)")
    # new_full fills on the device; new_tensor would copy from the host and wait.
    high = (block >> 32) | (purpose >> 32 << 16)
    time = step.to(block) if isinstance(step, Tensor) else block.new_full((), step)
    counter = (block, time, block.new_full((), purpose), high)
    four = philox4x32(counter, (seed, seed >> 32))
    if uniform:
        # In (0, 1), both ends open: the upper 23 bits, plus a half, over 2**23; exact in float32.
        return torch.stack([(word >> 9).to(torch.float32).add_(0.5).mul_(2.0**-23) for word in four], dim=-1)
    return torch.stack(four, dim=-1)


def _draw(seed: Tensor, purpose: int, step: int, count: int, first: int, uniform: bool) -> Tensor:
    """``count`` numbers of each seed from index ``first`` on, [R, count].

    Drawn in rectangles of some rows and blocks, which the numbers do not depend on. On a CPU a rectangle has as many
    blocks as torch gives each thread at least, so that its rounds stay in the caches.
    """
    start = first >> 2
    rows, blocks = len(seed), -(-(first + count) // 4) - start
    out = torch.empty(rows, blocks, 4, dtype=torch.float32 if uniform else torch.int64, device=seed.device)
    size = torch.get_num_threads() << 15 if seed.device.type == "cpu" else 1 << 22
    height, width = max(1, size // max(1, blocks)), max(1, min(size, blocks))
    # Once also where nothing is drawn, so that what has no random numbers is refused.
    for row in range(0, max(1, rows), height):
        for left in range(0, max(1, blocks), width):
            block = torch.arange(start + left, start + min(left + width, blocks), device=seed.device)
            part = _words(seed[row : row + height, None], purpose, step, block, uniform)
            out[row : row + height, left : left + width] = part
    return out.flatten(1)[:, first & 3 :][:, :count].contiguous()


def _draw_at(seed: Tensor, purpose: int, step: int | Tensor, index: Tensor, uniform: bool) -> Tensor:
    """The numbers at given indices, of the broadcast shape of seed and index."""
    if index.dtype != torch.int64:
        raise TypeError(f"index is {index.dtype}; it has to be torch.int64: pass index.long()")
    seed, index = torch.broadcast_tensors(seed, index)
    flat_seed, flat_index = seed.reshape(-1), index.reshape(-1)
    out = torch.empty(flat_index.shape, dtype=torch.float32 if uniform else torch.int64, device=index.device)
    size = torch.get_num_threads() << 15 if index.device.type == "cpu" else 1 << 22
    for left in range(0, len(out), size):
        part = flat_index[left : left + size]
        four = _words(flat_seed[left : left + size], purpose, step, part >> 2, uniform)
        out[left : left + size] = four.gather(1, (part & 3).unsqueeze(1)).squeeze(1)
    return out.view(index.shape)


def words(seed: Tensor, purpose: int, step: int, count: int, first: int = 0) -> Tensor:
    """``count`` random 32-bit words of each seed.

    Args:
        seed: int64 [R], any 64-bit values.
        purpose: what the numbers are for, from :func:`purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32.
        count: how many words a seed.
        first: index of the first one.

    Returns:
        int64 [R, count], each entry an unsigned 32-bit word. The word of index i is word i % 4 of block i // 4.

    Raises:
        TypeError: if ``seed`` is not int64.
        ValueError: if ``purpose`` or ``step`` is out of range.
    """
    return _draw(seed, purpose, step, count, first, uniform=False)


def words_at(seed: Tensor, purpose: int, step: int, index: Tensor) -> Tensor:
    """Random 32-bit words at given indices: ``words_at(seed, ..., index)[m] == words(seed, ..., n)[m, index[m]]``.

    Args:
        seed: int64, broadcasts with ``index``.
        purpose: what the numbers are for, from :func:`purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32.
        index: int64, 0 <= index < 2**50.

    Returns:
        int64 of the broadcast shape, each entry an unsigned 32-bit word.

    Raises:
        TypeError: if ``seed`` or ``index`` is not int64.
        ValueError: if ``purpose`` or ``step`` is out of range.
    """
    return _draw_at(seed, purpose, step, index, uniform=False)


def uniform(seed: Tensor, purpose: int, step: int, count: int, first: int = 0) -> Tensor:
    """Uniform random numbers in the open interval (0, 1).

    Args:
        seed: int64 [R].
        purpose: what the numbers are for, from :func:`purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32.
        count: how many numbers a seed.
        first: index of the first one.

    Returns:
        float32 [R, count], multiples of 2**-23 plus 2**-24.

    Raises:
        TypeError: if ``seed`` is not int64.
        ValueError: if ``purpose`` or ``step`` is out of range.
    """
    return _draw(seed, purpose, step, count, first, uniform=True)


def uniform_at(seed: Tensor, purpose: int, step: int | Tensor, index: Tensor) -> Tensor:
    """Uniform random numbers at given indices; the same numbers as :func:`uniform`.

    Args:
        seed: int64, broadcasts with ``index``.
        purpose: what the numbers are for, from :func:`purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32; a tensor [] where only the device knows it.
        index: int64, 0 <= index < 2**50.

    Returns:
        float32 of the broadcast shape, in the open interval (0, 1).

    Raises:
        TypeError: if ``seed`` or ``index`` is not int64.
        ValueError: if ``purpose`` or ``step`` is out of range.
    """
    return _draw_at(seed, purpose, step, index, uniform=True)


def normal_quantile(probability: Tensor) -> Tensor:
    """The quantile function of the standard normal distribution, sqrt(2) erfinv(2 p - 1).

    Args:
        probability: in (0, 1), any shape.

    Returns:
        Same shape and dtype.
    """
    return (2 * probability).sub_(1).erfinv_().mul_(math.sqrt(2))


def permutation(seed: Tensor, purpose: int, step: int, count: int) -> Tensor:
    """A uniformly random order of 0, ..., count - 1 a seed: the stable order of its random words.

    Two things whose words are equal, which happens to one pair in 2**32, keep their order.

    Args:
        seed: int64 [R].
        purpose: what the order is for, from :func:`purpose`.
        step: which of the seed's orders, 0 <= step < 2**32.
        count: how many things are put in order.

    Returns:
        int64 [R, count], each row a permutation.

    Raises:
        TypeError: if ``seed`` is not int64.
        ValueError: if ``purpose`` or ``step`` is out of range.
    """
    return words(seed, purpose, step, count).argsort(dim=1, stable=True)
