"""Random numbers against the published vectors and a slow integer reference."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from supple.functional import random

WORD = (1 << 32) - 1
CONVOLUTION = random.purpose("test", "convolution")
HEAD = random.purpose("test", "head")

repeatable = settings(deadline=None, derandomize=True)
words_32 = st.integers(0, WORD)
seeds = st.integers(-(1 << 63), (1 << 63) - 1)
purposes = st.integers(0, (1 << 48) - 1)
indices = st.one_of(st.integers(0, 40), st.integers((1 << 32) - 40, (1 << 34) + 40), st.integers(0, (1 << 50) - 1))


def normal(seed, purpose, step, count):
    return random.normal_quantile(random.uniform(seed, purpose, step, count))


def philox_reference(counter: tuple[int, ...], key: tuple[int, ...], rounds: int) -> tuple[int, ...]:
    """Philox4x32 in Python's integers, from the text of Salmon et al. (2011), section 4.4."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        high0, low0 = divmod(0xD2511F53 * c[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 1 << 32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % (1 << 32), (k[1] + 0xBB67AE85) % (1 << 32)]
    return tuple(c)


def word_reference(seed: int, purpose: int, step: int, index: int) -> int:
    """One word, from the layout of key and counter that the module's text gives."""
    block, word = divmod(index, 4)
    counter = (block % (1 << 32), step, purpose % (1 << 32), (purpose >> 32) * (1 << 16) + (block >> 32))
    unsigned = seed % (1 << 64)
    return philox_reference(counter, (unsigned % (1 << 32), unsigned >> 32), 10)[word]


def uniform_reference(word: int) -> float:
    return ((word >> 9) + 0.5) / 2**23


# Published values and the integer reference


ZEROS, ONES = (0,) * 6, (WORD,) * 6
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)
KNOWN_ANSWERS = [  # Random123, tests/kat_vectors
    (7, ZEROS, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    (7, ONES, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    (7, PI, (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A)),
    (10, ZEROS, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (10, ONES, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (10, PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def encrypt(counter, key, rounds):
    four = random.philox4x32(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)), rounds)
    return tuple(int(word) for word in four)


@pytest.mark.parametrize(("rounds", "inputs", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(rounds, inputs, answer):
    assert encrypt(inputs[:4], inputs[4:], rounds) == answer
    assert philox_reference(inputs[:4], inputs[4:], rounds) == answer


@repeatable
@given(st.tuples(*[words_32] * 4), st.tuples(*[words_32] * 2), st.integers(0, 16))
def test_philox_equals_the_integer_reference(counter, key, rounds):
    assert encrypt(counter, key, rounds) == philox_reference(counter, key, rounds)


def test_philox_broadcasts_and_leaves_its_arguments_alone():
    counter = (torch.arange(3), torch.tensor(5), torch.tensor([[6] * 3, [7] * 3]), torch.tensor(WORD))
    key = (torch.tensor([[8], [9]]), torch.tensor(10))
    before = [tensor.clone() for tensor in (*counter, *key)]
    four = random.philox4x32(counter, key)
    for row, column in itertools.product(range(2), range(3)):
        expected = philox_reference((column, 5, 6 + row, WORD), (8 + row, 10), 10)
        assert tuple(int(word[row, column]) for word in four) == expected
    assert all(torch.equal(tensor, old) for tensor, old in zip((*counter, *key), before, strict=True))


@repeatable
@given(seeds, purposes, words_32, st.lists(indices, min_size=1, max_size=6))
def test_words_at_equals_the_integer_reference(seed, purpose, step, index):
    expected = [word_reference(seed, purpose, step, i) for i in index]
    assert random.words_at(torch.tensor(seed), purpose, step, torch.tensor(index)).tolist() == expected
    uniforms = random.uniform_at(torch.tensor(seed), purpose, step, torch.tensor(index))
    assert uniforms.tolist() == [uniform_reference(word) for word in expected]


@repeatable
@given(st.lists(seeds, max_size=4), purposes, words_32, st.integers(0, 13))
def test_words_and_uniform_equal_the_integer_reference(seed, purpose, step, count):
    expected = [[word_reference(one, purpose, step, i) for i in range(count)] for one in seed]
    seed = torch.tensor(seed, dtype=torch.int64)
    words, uniforms = random.words(seed, purpose, step, count), random.uniform(seed, purpose, step, count)
    assert words.shape == uniforms.shape == (len(seed), count)
    assert words.tolist() == expected
    assert uniforms.tolist() == [[uniform_reference(word) for word in row] for row in expected]


@pytest.mark.parametrize("seed", [-1, -(1 << 63), (1 << 63) - 1, 1 << 32, -(1 << 32)])
def test_all_64_bits_of_the_seed_count(seed):
    neighbours = torch.tensor([seed, seed ^ 1, seed ^ (1 << 31), seed ^ (1 << 32), seed ^ (1 << 62), ~seed])
    rows = random.words(neighbours, HEAD, 0, 64)
    assert len({tuple(row) for row in rows.tolist()}) == len(neighbours)


# The same numbers in every company


COUNTS = [1, 6, 1023, 20_000, 4 * (1 << 16) + 7]  # one cut to rectangles of several replicas, and one within a replica


@pytest.mark.parametrize("draw", [random.words, random.uniform, random.permutation])
@pytest.mark.parametrize("count", COUNTS)
def test_replicas_draw_alone_what_they_draw_together(draw, count):
    seed = torch.tensor([11, -3, 1 << 40, 0, 7])
    together = draw(seed, CONVOLUTION, 12, count)
    assert together.shape == (5, count)
    assert together.is_contiguous()
    for replica in range(5):
        assert torch.equal(draw(seed[replica : replica + 1], CONVOLUTION, 12, count)[0], together[replica])
    subset = torch.tensor([4, 1, 1, 2])
    assert torch.equal(draw(seed[subset], CONVOLUTION, 12, count), together[subset])


@pytest.mark.parametrize("draw", [random.words, random.uniform])
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(draw):
    seed = torch.tensor([11, -3])
    longest = draw(seed, HEAD, 3, COUNTS[-1])
    for count in COUNTS:
        assert torch.equal(draw(seed, HEAD, 3, count), longest[:, :count])


@pytest.mark.parametrize("draw", [random.words, random.uniform])
@pytest.mark.parametrize("first", [1, 2, 7, 8, 131_069])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
def test_a_draw_may_start_anywhere(draw, first, count):
    seed = torch.tensor([1, -5])
    assert torch.equal(draw(seed, HEAD, 3, count, first), draw(seed, HEAD, 3, first + count)[:, first:])


@pytest.mark.parametrize(("draw", "draw_at"), [(random.words, random.words_at), (random.uniform, random.uniform_at)])
def test_single_entries_equal_the_whole_draw(draw, draw_at):
    seed, count = torch.arange(-3, 4), COUNTS[-1]
    whole = draw(seed, HEAD, (1 << 32) - 1, count)
    index = torch.randint(count, (7, 20_000), generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_at(seed[:, None], HEAD, (1 << 32) - 1, index), whole.gather(1, index))
    # The broadcast shape is kept, for indices in common and for one seed as well.
    assert torch.equal(
        draw_at(seed[:, None, None], HEAD, (1 << 32) - 1, index[:1, :6].view(2, 3)).flatten(1), whole[:, index[0, :6]]
    )
    assert draw_at(seed[2], HEAD, (1 << 32) - 1, index[0, 0]) == whole[2, index[0, 0]]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_does_not_matter(threads):
    seed, count = torch.tensor([5, 6]), 4 * (1 << 16) + 7
    expected = normal(seed, HEAD, 0, count)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(normal(seed, HEAD, 0, count), expected)
    finally:
        torch.set_num_threads(before)


def test_nothing_can_be_drawn_nowhere():
    none, seed = torch.empty(0, dtype=torch.int64), torch.tensor([1, 2])
    for draw in (random.words, random.uniform, random.permutation):
        assert draw(seed, HEAD, 0, 0).shape == (2, 0)
        assert draw(none, HEAD, 0, 5).shape == (0, 5)
    assert random.words_at(seed[:1], HEAD, 0, none).shape == (0,)
    assert random.uniform_at(seed[:, None], HEAD, 0, none).shape == (2, 0)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    normal(torch.tensor([1]), HEAD, 0, 100)
    assert torch.equal(torch.random.get_rng_state(), before)


# Uniform and normal numbers


def test_uniform_is_strictly_between_0_and_1():
    # Found by search: here the words are among the lowest 512, the highest 512, just below the middle and just above.
    index, step = [961_720, 3_260_034, 7_812_797, 5_626_287], 6
    assert [word_reference(0, HEAD, step, i) >> 9 for i in index] == [0, (1 << 23) - 1, (1 << 22) - 1, 1 << 22]
    ends = random.uniform_at(torch.tensor(0), HEAD, step, torch.tensor(index))
    assert ends.tolist() == [2**-24, 1 - 2**-24, 0.5 - 2**-24, 0.5 + 2**-24]
    lowest, highest, below, above = random.normal_quantile(ends).tolist()
    assert lowest == -highest
    assert 5.29 < highest < 5.3
    assert below == -above < 0


def test_normal_is_the_quantile_of_uniform():
    seed = torch.tensor([31, 32])
    expected = special.ndtri(random.uniform(seed, HEAD, 2, 9999).double().numpy())
    np.testing.assert_allclose(normal(seed, HEAD, 2, 9999).numpy(), expected, rtol=3e-7, atol=1e-9)


def test_normal_quantile_over_all_uniform_numbers():
    probability = ((torch.arange(0, 1 << 23, 7, dtype=torch.float64)) + 0.5) * 2.0**-23
    result = random.normal_quantile(probability.float()).double().numpy()
    np.testing.assert_allclose(result, special.ndtri(probability.numpy()), rtol=3e-7, atol=1e-9)
    known = {0.975: 1.959963984540054, 0.5: 0.0, 0.8413447460685429: 1.0}  # tables of the normal distribution
    for p, z in known.items():
        assert random.normal_quantile(torch.tensor(p, dtype=torch.float64)).item() == pytest.approx(z, abs=1e-12)


def test_no_block_comes_twice():
    """Philox is a bijection of the counter: a seed's four words do not return at another step, purpose or block."""
    blocks = [
        random.words(torch.tensor([3]), purpose, step, 4 * 5000).view(-1, 4)
        for purpose, step in itertools.product((HEAD, CONVOLUTION, 0, 1), (0, 1, 2, WORD))
    ]
    everything = torch.cat(blocks)
    assert len(everything.unique(dim=0)) == len(everything)


# Permutations


@repeatable
@given(st.integers(0, 300), st.lists(seeds, min_size=1, max_size=3), words_32)
def test_permutation_is_a_permutation(count, seed, step):
    orders = random.permutation(torch.tensor(seed), HEAD, step, count)
    assert orders.dtype == torch.int64
    assert orders.sort(dim=1).values.tolist() == [list(range(count))] * len(seed)
    for one, order in zip(seed, orders.tolist(), strict=True):
        keys = [word_reference(one, HEAD, step, i) for i in range(count)]
        assert order == sorted(range(count), key=lambda i: (keys[i], i))


# Purposes and refusals


def test_purposes_differ_and_stay():
    parts = [(), ("",), ("a",), ("a", "b"), ("ab",), ("b", "a"), ("a", "", "b"), *((str(n),) for n in range(5000))]
    numbers = [random.purpose(*words) for words in parts]
    # () and ("",) say the same: nothing.
    assert len(set(numbers)) == len(parts) - 1
    assert all(0 <= number < 1 << 48 for number in numbers)
    # Saved results depend on it: printf 'swr\0resample' | b2sum -l 48, from GNU coreutils, read as little-endian.
    assert random.purpose("swr", "resample").to_bytes(6, "little").hex() == "cc55196b89ba"


@pytest.mark.parametrize("step", [-1, 1 << 32])
@pytest.mark.parametrize("draw", [random.words, random.uniform, random.permutation])
def test_steps_out_of_range_are_refused(draw, step):
    with pytest.raises(ValueError, match=rf"step is {step}; .* 0 to 2\*\*32 - 1"):
        draw(torch.tensor([0]), HEAD, step, 4)
    with pytest.raises(ValueError, match=f"step is {step}"):
        draw(torch.tensor([0]), HEAD, step, 0)


@pytest.mark.parametrize("draw_at", [random.words_at, random.uniform_at])
def test_single_draws_refuse_the_same(draw_at):
    seed, index = torch.tensor(0), torch.tensor([1])
    with pytest.raises(ValueError, match="step is -1"):
        draw_at(seed, HEAD, -1, index)
    with pytest.raises(ValueError, match="purpose is -1"):
        draw_at(seed, -1, 0, index)
    with pytest.raises(TypeError, match=r"seed is torch.int32; .*seed.long\(\)"):
        draw_at(seed.int(), HEAD, 0, index)
    with pytest.raises(TypeError, match=r"index is torch.int32; .*index.long\(\)"):
        draw_at(seed, HEAD, 0, index.int())


def test_purposes_and_seeds_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"purpose is 281474976710656; .*random.purpose"):
        random.uniform(torch.tensor([0]), 1 << 48, 0, 4)
    with pytest.raises(TypeError, match=r"seed is torch\.float32"):
        random.uniform(torch.tensor([0.5]), HEAD, 0, 4)
