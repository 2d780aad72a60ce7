"""Selections against loops and sorted lists, and their properties."""

import math
from fractions import Fraction

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.functional.utility import (
    _by_words,
    accumulated_count,
    below_threshold,
    lowest,
    lowest_order,
    proportional_count,
)

# Few different values, so that ties and zeros are common; all exact in every precision.
VALUES = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0])
ROWS = st.integers(1, 12).flatmap(lambda n: st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=1, max_size=4))
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def places(mask):
    return [torch.where(row)[0].tolist() for row in mask]


@given(ROWS, st.data(), DTYPES)
def test_threshold_equals_a_loop(rows, data, dtype):
    factors = data.draw(st.lists(st.sampled_from([0.0, 1e-6, 0.3, 2.3]), min_size=len(rows), max_size=len(rows)))
    mask = below_threshold(torch.tensor(rows, dtype=dtype), torch.tensor(factors, dtype=torch.float64))
    assert mask.dtype == torch.bool
    for row, factor, chosen in zip(rows, factors, places(mask), strict=True):
        bound = factor * reference.mean(row)
        tolerance = 0.02 * bound  # bfloat16 has eight bits
        sure = {i for i, u in enumerate(row) if u <= bound - tolerance} if factor else set()
        possible = {i for i, u in enumerate(row) if u <= bound + tolerance} if factor else set()
        assert sure <= set(chosen) <= possible
        if dtype == torch.float64 and not any(math.isclose(u, bound, rel_tol=1e-12) for u in row):
            assert chosen == reference.below_threshold(row, factor)


def test_threshold_of_zero_utilities_selects_all_but_where_the_factor_is_zero():
    mask = below_threshold(torch.zeros(3, 5), torch.tensor([1e-300, 0.0, 7.0], dtype=torch.float64))
    assert mask.all(dim=1).tolist() == [True, False, True]
    assert mask.any(dim=1).tolist() == [True, False, True]


def test_threshold_selects_nothing_where_utilities_are_not_numbers():
    utility = torch.tensor([[0.0, math.nan, 1.0], [0.0, 1.0, 5.0]])
    assert places(below_threshold(utility, torch.tensor([1.0, 1.0], dtype=torch.float64))) == [[], [0, 1]]


def drawn(data, rows):
    """Words for each entry, few different ones so that they too are equal now and then."""
    row = st.lists(st.sampled_from([0, 1, 2, 3, 2**32 - 1]), min_size=len(rows[0]), max_size=len(rows[0]))
    return data.draw(st.lists(row, min_size=len(rows), max_size=len(rows)))


@given(ROWS, st.data(), DTYPES)
def test_lowest_equals_a_shuffled_list_that_is_sorted(rows, data, dtype):
    counts = data.draw(st.lists(st.integers(0, len(rows[0])), min_size=len(rows), max_size=len(rows)))
    words = drawn(data, rows)
    asked = []

    def give(which):
        asked.extend(which.tolist())
        return torch.tensor(words)[which]

    utility = torch.tensor(rows, dtype=dtype)
    expected = [reference.lowest(*row) for row in zip(rows, counts, words, strict=True)]
    assert places(lowest(utility, torch.tensor(counts), give)) == [sorted(row) for row in expected]
    orders = lowest_order(utility, torch.tensor(counts), give).tolist()
    for row, count, order, first in zip(rows, counts, orders, expected, strict=True):
        assert [row[place] for place in order] == sorted(row)
        assert set(order[:count]) == set(first)
        # What an accelerator does, which draws for all.
        everywhere = _by_words(torch.tensor([row], dtype=dtype), torch.tensor([words[rows.index(row)]]))[0].tolist()
        assert everywhere[:count] == reference.lowest(row, count, words[rows.index(row)])
    # Nothing is drawn but where an entry just in and one just out are equal.
    tied = [r for r, (row, c) in enumerate(zip(rows, counts, strict=True)) if 0 < c < len(row) and equal_at(row, c)]
    assert asked == tied * 2


def equal_at(row, count):
    ordered = sorted(row)
    return ordered[count - 1] == ordered[count]


def test_without_ties_no_words_are_asked_for():
    utility = torch.tensor([[3.0, 1.0, 2.0], [0.0, 0.0, 5.0]])
    assert lowest_order(utility, torch.tensor([2, 2]), lambda rows: None).tolist() == [[1, 2, 0], [0, 1, 2]]


def test_nan_comes_last():
    utility = torch.tensor([[math.nan, 2.0, math.inf, 1.0]])
    assert lowest_order(utility, torch.tensor([2]), lambda rows: None).tolist() == [[3, 1, 2, 0]]


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1, exclude_min=True, exclude_max=True)), min_size=1, max_size=5),
)
def test_proportional_count_equals_the_formula(size, pairs):
    factors, uniforms = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    counts = proportional_count(size, factors, uniforms)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [reference.share_of(size, factor, uniform) for factor, uniform in pairs]
    assert bool((counts <= size).all())
    assert bool((counts >= 0).all())


def test_proportional_count_is_right_on_average():
    grid = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    for factor in (0.0, 0.001, 0.25, 0.4, 0.99, 1.0):
        counts = proportional_count(7, torch.full_like(grid, factor), grid)
        assert float(counts.double().mean()) == pytest.approx(7 * factor, abs=2e-5)
        assert float(counts.max() - counts.min()) <= 1


@given(
    st.floats(0, 1, exclude_max=True),
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1, max_size=30),
)
def test_accumulated_count_keeps_the_books(start, steps):
    accumulator = torch.tensor([start], dtype=torch.float64)
    for eligible, rate in steps:
        before = float(accumulator)
        rates = torch.tensor([rate], dtype=torch.float64)
        count, accumulator = accumulated_count(accumulator, torch.tensor([eligible]), rates)
        taken, left = int(count), float(accumulator)
        assert 0 <= taken <= eligible
        exact = Fraction(before) + Fraction(rate) * eligible
        assert abs(exact - taken - Fraction(left)) <= Fraction(1, 2**45)
        assert 0 <= left <= 1


def test_accumulated_count_never_passes_the_number_eligible():
    almost = math.nextafter(1.0, 0.0)
    count, rest = accumulated_count(
        torch.tensor([almost, almost], dtype=torch.float64),
        torch.tensor([4, 0]),
        torch.ones(1, dtype=torch.float64),
    )
    assert count.tolist() == [4, 0]
    assert rest.tolist() == pytest.approx([1.0, 1.0])
