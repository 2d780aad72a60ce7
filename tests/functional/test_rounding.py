"""Rounding by chance against a sorted list of all numbers that a type has."""

import bisect
import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.functional import random
from supple.functional.rounding import add_by_chance, perturbation, spacing

HALVES = [torch.bfloat16, torch.float16]
every_half = pytest.mark.parametrize("dtype", HALVES, ids=str)
# Levels in the middle of 4096 equal parts: as many of them lie below f as f is large, to a part.
LEVELS = (torch.arange(4096) + 0.5) / 4096


@cache
def numbers(dtype):
    """All finite numbers of a type, in order."""
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype).double()
    return sorted(set(every[every.isfinite()].tolist()))


def every_number(dtype):
    return torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)


@given(
    st.sampled_from(HALVES),
    st.integers(-(1 << 15), (1 << 15) - 1),
    st.one_of(st.floats(-(2**-10), 2**-10, width=32), st.floats(-2, 2, width=32), st.floats(width=32)),
    st.booleans(),
)
def test_a_sum_becomes_a_neighbour_with_the_probability_of_its_place(dtype, bits, change, relative):
    start = torch.tensor([bits]).to(torch.int16).view(dtype)
    if not math.isfinite(float(start)) or not math.isfinite(change):
        return
    if relative:
        change = float(torch.tensor(change * float(start)))
    total, finite = float(start) + change, numbers(dtype)
    found = add_by_chance(start.repeat(4096), torch.full((4096,), change), LEVELS)
    assert found.dtype == dtype
    if abs(total) >= finite[-1]:
        assert torch.equal(found, torch.tensor(total, dtype=torch.float64).to(dtype).expand(4096))
        return
    above = bisect.bisect_left(finite, total)
    if finite[above] == total:
        assert set(found.tolist()) == {total}
        return
    low, high = finite[above - 1], finite[above]
    assert set(found.tolist()) <= {low, high}
    up = sum(value == high for value in found.tolist()) / 4096
    assert up == pytest.approx((total - low) / (high - low), abs=1 / 4096)
    # The higher the level, the less is rounded up.
    assert found.double().diff().max() <= 0


@every_half
def test_what_a_type_has_stays_as_it_is(dtype):
    every = every_number(dtype)
    for level in (1e-7, 0.5, 1 - 1e-7):
        found = add_by_chance(every, torch.zeros(len(every)), torch.full((len(every),), level))
        torch.testing.assert_close(found, every, rtol=0, atol=0, equal_nan=True)


@every_half
def test_overflow_and_what_is_no_number(dtype):
    big = torch.finfo(dtype).max
    start = torch.tensor([big, big, -big, 1.0, 1.0, math.inf], dtype=dtype)
    change = torch.tensor([big / 1e4, big, -big, math.nan, -math.inf, 1.0])
    found = add_by_chance(start, change, torch.full((6,), 0.5))
    expected = torch.tensor([big, math.inf, -math.inf, math.nan, -math.inf, math.inf], dtype=dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@every_half
def test_spacing_is_the_distance_to_the_next_number(dtype):
    finite = numbers(dtype)
    positive = torch.tensor([value for value in finite if value >= 0], dtype=torch.float64)
    assert torch.equal(spacing(positive[:-1], dtype), positive.diff())
    assert torch.equal(spacing(-positive[:-1], dtype), positive.diff())


@every_half
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.9, 1.1, 2.0, 30.0])
def test_perturbations_have_the_variance_that_was_asked_for(dtype, ratio):
    """By the ratio of the noise to the distance between neighbours."""
    count, seed = 400_000, torch.tensor([1])
    value = torch.full((count,), 1.5, dtype=dtype)
    std = torch.tensor([ratio * torch.finfo(dtype).eps])
    noise = random.normal_quantile(random.uniform(seed, 1, 0, count)[0])
    found = add_by_chance(value, perturbation(value, noise, std), random.uniform(seed, 2, 0, count)[0])
    moved = (found.double() - 1.5) / std
    # The fourth moment of steps that are taken seldom is one over their probability.
    kurtosis = max(3.0, 1 / ratio**2)
    assert float(moved.mean()) == pytest.approx(0, abs=4 / count**0.5)
    assert float(moved.square().mean()) == pytest.approx(1, abs=4 * (kurtosis / count) ** 0.5)


def test_perturbations_of_what_is_no_number_are_none():
    value = torch.tensor([math.nan, math.inf, 0.0], dtype=torch.bfloat16)
    assert perturbation(value, torch.ones(3), torch.tensor([1e-3])).isfinite().all()
