"""The schedule against a simulation with an age for each unit, and what it draws against its expectation."""

import copy

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from supple.functional import random
from supple.methods.when import Replacements

PAIRS = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 5, 13]), st.sampled_from([0.0, 1e-3, 0.01, 0.1, 1 / 3, 0.9, 1.0])),
    min_size=1,
    max_size=3,
)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def make(sizes, pairs, draw=None):
    maturity, rate = zip(*pairs, strict=True)
    return Replacements(sizes, torch.tensor(maturity), torch.tensor(rate, dtype=torch.float64), draw)


@given(SIZES, PAIRS, st.integers(0, 40))
def test_counts_equal_a_simulation_with_explicit_ages(sizes, pairs, cut):
    schedule = make(sizes, pairs)
    ages = [[reference.Ages(size, maturity, rate) for maturity, rate in pairs] for size in sizes]
    for step in range(60):
        if step == cut:  # saved, and taken up by another
            saved = copy.deepcopy(schedule.state_dict())
            schedule.advance()
            schedule = make(sizes, pairs)
            schedule.load_state_dict(saved)
        # Which units are chosen does not matter to the schedule: here an order that changes from step to step.
        chosen = [
            [account.choose([(unit * 7 + step * 3) % 11 for unit in range(size)], range(size)) for account in accounts]
            for size, accounts in zip(sizes, ages, strict=True)
        ]
        expected = [[len(units) for units in row] for row in chosen]
        assert schedule.counts.tolist() == expected
        assert schedule.due is any(any(row) for row in expected)
        assert schedule.step == step + 1
        schedule.advance()


def test_a_rate_of_zero_is_never_due():
    schedule = make([5], [(0, 0.0)], (torch.tensor([3]), [random.purpose("test")]))
    for _ in range(3000):
        assert not schedule.due
        schedule.advance()


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.7])
def test_drawn_numbers_are_right_on_average(rate):
    """Without maturity all units are eligible but those replaced in this very step, whose age is 1 in the next."""
    replicas, size, steps = 2000, 5, 20
    draw = (torch.arange(replicas), [random.purpose("test")])
    schedule = make([size], [(0, rate)] * replicas, draw)
    counts = []
    for _ in range(steps):
        counts.append(schedule.counts[0])
        schedule.advance()
    counts = torch.stack(counts).double()
    mean, whole = rate * size, int(rate * size)
    share = mean - whole
    error = (share * (1 - share) / counts.numel()) ** 0.5
    assert float(counts.mean()) == pytest.approx(mean, abs=4 * error)
    assert set(counts.unique().tolist()) == {whole, whole + 1}
    # Neither neighbouring steps nor neighbouring replicas know of each other.
    for one, other in ((counts[1:], counts[:-1]), (counts[:, 1:], counts[:, :-1])):
        covariance = ((one - mean) * (other - mean)).mean()
        assert abs(float(covariance)) < 5 * share * (1 - share) / one.numel() ** 0.5


def test_drawn_numbers_follow_the_ages():
    """With a rate of 1 every unit is replaced as soon as it is eligible, so the draw leaves nothing to chance."""
    schedule = make([3], [(4, 1.0)], (torch.tensor([3]), [random.purpose("test")]))
    for step in range(1, 30):
        assert schedule.counts.tolist() == [[3 if step % 5 == 0 else 0]]
        schedule.advance()


@pytest.mark.parametrize("cut", [3, 1010])  # random numbers are drawn in blocks of 1,024 steps
def test_drawn_numbers_do_not_depend_on_the_cut_nor_on_neighbours(cut):
    sizes, pairs = [4, 2], [(1, 0.3), (0, 0.01), (5, 0.9)]
    seeds, purposes = torch.tensor([7, 8, 2**62]), [random.purpose("a"), random.purpose("b")]
    whole = make(sizes, pairs, (seeds, purposes))
    alone = make(sizes, pairs[:1], (seeds[:1], purposes))
    for _ in range(cut):
        assert torch.equal(whole.counts[:, :1], alone.counts)
        whole.advance()
        alone.advance()
    resumed = make(sizes, pairs, (seeds, purposes))
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for _ in range(20):
        assert torch.equal(whole.counts, resumed.counts)
        whole.advance()
        resumed.advance()


def test_the_state_has_no_alias_of_what_goes_on():
    schedule = make([4], [(0, 0.3)])
    saved = schedule.state_dict()
    before = copy.deepcopy(saved)
    for _ in range(9):
        schedule.advance()
    assert saved["step"] == before["step"]
    for key in ("accumulator", "counts"):
        assert torch.equal(saved[key], before[key])
    assert torch.equal(saved["mature_at"][0], before["mature_at"][0])
