"""Initial distributions against scipy's, and whole draws against single ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from supple.functional import random
from supple.functional.initial import (
    Constant,
    Distribution,
    Each,
    Fixed,
    Normal,
    TruncatedNormal,
    Uniform,
    from_dict,
    sample,
    sample_at,
    to_dict,
)

WEIGHT = random.purpose("test", "weight")
repeatable = settings(deadline=None, derandomize=True)
P_VALUE = 1e-4


def truncated(location, std, low, high):
    return stats.truncnorm((low - location) / std, (high - location) / std, location, std)


PAIRS = [  # ours, scipy's
    (Normal(0.0, 1.0), stats.norm()),
    (Normal(-1.5, 0.05), stats.norm(-1.5, 0.05)),
    (Uniform(0.0, 1.0), stats.uniform()),
    (Uniform(-0.3, 0.1), stats.uniform(-0.3, 0.4)),
    (TruncatedNormal(0.0, 1.0, -2.0, 2.0), truncated(0.0, 1.0, -2.0, 2.0)),
    (TruncatedNormal(0.0, 0.144, -2.0, 2.0), truncated(0.0, 0.144, -2.0, 2.0)),
    (TruncatedNormal(1.0, 0.5, 0.0, 1.2), truncated(1.0, 0.5, 0.0, 1.2)),
    (TruncatedNormal(0.0, 1.0, -math.inf, 0.5), truncated(0.0, 1.0, -math.inf, 0.5)),
    (TruncatedNormal(0.0, 1.0, 5.0, 6.0), truncated(0.0, 1.0, 5.0, 6.0)),
    (TruncatedNormal(0.0, 1.0, -9.0, -8.0), truncated(0.0, 1.0, -9.0, -8.0)),
    (TruncatedNormal(0.0, 1.0, 8.0, math.inf), truncated(0.0, 1.0, 8.0, math.inf)),
]
OURS = [ours for ours, _ in PAIRS]
with_scipy = pytest.mark.parametrize(("ours", "scipys"), PAIRS, ids=map(str, OURS))
every = pytest.mark.parametrize("ours", [*OURS, Constant(0.25)], ids=str)


def grid(number=20_001):
    """Numbers that random.uniform can give, both ends among them."""
    steps = torch.linspace(0, (1 << 23) - 1, number, dtype=torch.float64).round()
    return ((steps + 0.5) * 2.0**-23).float()


@with_scipy
def test_quantile_equals_scipys(ours, scipys):
    probability = grid()
    result = ours.quantile(probability)
    assert result.dtype == torch.float32
    assert result.shape == probability.shape
    expected = scipys.ppf(probability.double().numpy())
    spread = np.ptp(expected)
    np.testing.assert_allclose(result.numpy(), expected, rtol=5e-7, atol=5e-7 * spread)


@with_scipy
def test_mean_equals_scipys(ours, scipys):
    assert ours.mean == pytest.approx(scipys.mean(), rel=1e-9, abs=1e-12)


@every
def test_quantile_never_falls_and_keeps_its_argument(ours):
    probability = grid()
    before = probability.clone()
    assert (ours.quantile(probability).diff() >= 0).all()
    assert torch.equal(probability, before)


@with_scipy
def test_samples_follow_the_distribution(ours, scipys):
    values = sample(ours, torch.tensor([17]), WEIGHT, 3, torch.Size([100, 300]))[0].double().numpy().ravel()
    assert stats.kstest(values, scipys.cdf).pvalue > P_VALUE
    mean, variance, fourth = scipys.mean(), scipys.var(), scipys.expect(lambda x: (x - scipys.mean()) ** 4)
    count = len(values)
    assert abs(values.mean() - mean) < 4 * math.sqrt(variance / count)
    assert abs(((values - mean) ** 2).mean() - variance) < 4 * math.sqrt((fourth - variance**2) / count)


def test_truncated_normal_agrees_with_torch():
    theirs = torch.nn.init.trunc_normal_(
        torch.empty(30_000), 0.3, 0.8, -0.5, 1.0, generator=torch.Generator().manual_seed(1)
    )
    ours = sample(TruncatedNormal(0.3, 0.8, -0.5, 1.0), torch.tensor([5]), WEIGHT, 0, theirs.shape)[0]
    assert stats.ks_2samp(ours.numpy(), theirs.numpy()).pvalue > P_VALUE


finite = st.floats(-1e3, 1e3, allow_subnormal=False)


@repeatable
@given(finite, st.floats(0, 1e3))
def test_uniform_stays_between_its_bounds(low, width):
    high = low + width
    values = Uniform(low, high).quantile(grid(3001))
    assert values.min() >= torch.tensor(low)
    assert values.max() <= torch.tensor(high)


@repeatable
@given(finite, st.floats(1e-3, 1e3), st.floats(-30, 30), st.floats(1e-3, 60))
def test_truncated_normal_stays_between_its_bounds(location, std, below, width):
    low = location + below * std
    high = low + width * std
    distribution = TruncatedNormal(location, std, low, high)
    values = distribution.quantile(grid(301))
    assert values.isfinite().all()
    assert values.min() >= torch.tensor(low)
    assert values.max() <= torch.tensor(high)
    slack = 1e-6 * (std + abs(location))
    assert low - slack <= distribution.mean <= high + slack


def test_rounding_does_not_cross_a_bound_at_0():
    """Here the values come so close to 0 that location + std z rounds to either side of it."""
    assert TruncatedNormal(0.3, 0.7, 0.0, 1e-13).quantile(grid()).min() >= 0
    assert TruncatedNormal(0.3, 0.7, -1e-13, 0.0).quantile(grid()).max() <= 0


@repeatable
@given(finite, st.floats(1e-2, 1e2), st.floats(-8, 8), st.floats(0.1, 10))
def test_truncated_normal_mirrors(location, std, below, width):
    """Values between bounds are the negatives of those between the mirrored bounds, in both tails alike."""
    low, high = location + below * std, location + (below + width) * std
    one, other = TruncatedNormal(location, std, low, high), TruncatedNormal(-location, std, -high, -low)
    probability = grid(301)
    torch.testing.assert_close(
        one.quantile(probability), -other.quantile(1 - probability), rtol=1e-6, atol=1e-6 * (std + abs(location))
    )
    assert one.mean == pytest.approx(-other.mean, rel=1e-9, abs=1e-9 * std)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e30])
def test_constant_is_exact(value):
    drawn = sample(Constant(value), torch.tensor([1, 2]), WEIGHT, 0, torch.Size([3, 4]))
    assert torch.equal(drawn, torch.full((2, 3, 4), value))
    assert Constant(value).mean == value


def test_no_spread_is_the_mean():
    probability = grid(101)
    assert (Normal(0.7, 0.0).quantile(probability) == torch.tensor(0.7)).all()
    assert (Uniform(0.7, 0.7).quantile(probability) == torch.tensor(0.7)).all()


# Whole draws and single ones


@every
@pytest.mark.parametrize("shape", [(), (7,), (10, 13), (3, 5, 2, 2), (0,), (50, 61)])
def test_single_entries_equal_the_whole_draw(ours, shape):
    seed, shape = torch.tensor([3, -9, 1 << 50]), torch.Size(shape)
    whole = sample(ours, seed, WEIGHT, 8, shape)
    assert whole.shape == (3, *shape)
    assert whole.dtype == torch.float32
    entries = whole.reshape(3, shape.numel())
    every_index = torch.arange(shape.numel()).flip(0)
    assert torch.equal(sample_at(ours, seed[:, None], WEIGHT, 8, every_index), entries.flip(1))
    for index in every_index[:3]:
        assert sample_at(ours, seed[1], WEIGHT, 8, index) == entries[1, index]


@every
def test_a_replica_draws_alone_what_it_draws_among_others(ours):
    seed, shape = torch.arange(5) - 2, torch.Size([30, 784])
    together = sample(ours, seed, WEIGHT, 8, shape)
    for replica in range(5):
        assert torch.equal(sample(ours, seed[replica : replica + 1], WEIGHT, 8, shape)[0], together[replica])
    if not isinstance(ours, Constant):
        assert len({tuple(row) for row in together.flatten(1)[:, :20].tolist()}) == 5


def test_networks_that_differ_draw_each_from_its_own():
    fixed, shape, seed = torch.arange(6.0).view(2, 3), torch.Size([2, 3]), torch.tensor([5, 6, 7, 5])
    members = Normal(0.0, 1.0), Uniform(0.0, 1.0), Fixed(fixed)
    each = Each(members, torch.tensor([1, 0, 2, 1]))
    drawn = sample(from_dict(to_dict(each)), seed, WEIGHT, 3, shape)
    for row, number in enumerate(each.which.tolist()):
        assert torch.equal(drawn[row], sample(members[number], seed[row : row + 1], WEIGHT, 3, shape)[0])
    index, network = torch.tensor([4, 4, 4]), torch.tensor([0, 1, 2])
    assert each.at(index, network).tolist() == [0.5, 0.0, 4.0]
    assert each.mean == (0.5 + 0.0 + 2.5 + 0.5) / 4


def test_entries_use_the_random_number_of_their_row_major_index():
    drawn = sample(Uniform(0.0, 1.0), torch.tensor([6]), WEIGHT, 2, torch.Size([4, 5]))
    assert torch.equal(drawn.view(1, 20), random.uniform(torch.tensor([6]), WEIGHT, 2, 20))


# What is refused, and what is printed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(math.nan), "value of a constant is nan; it has to be finite"),
        (lambda: Constant(-math.inf), "value of a constant is -inf; it has to be finite"),
        (lambda: Normal(0.0, -1.0), r"std of a normal distribution is -1\.0.*0 or more"),
        (lambda: Normal(0.0, math.nan), "std of a normal distribution is nan"),
        (lambda: Normal(0.0, math.inf), "std of a normal distribution is inf"),
        (lambda: Normal(math.nan, 1.0), "mean of a normal distribution is nan"),
        (lambda: Uniform(1.0, 0.0), r"low=1\.0 and high=0\.0.*high may not be below low"),
        (lambda: Uniform(math.nan, 0.0), "low=nan"),
        (lambda: Uniform(-math.inf, 0.0), "low=-inf.*finite"),
        (lambda: TruncatedNormal(0.0, 0.0, -1.0, 1.0), r"std of a truncated normal distribution is 0\.0.*above 0"),
        (lambda: TruncatedNormal(0.0, 1.0, 1.0, 1.0), r"low=1\.0 and high=1\.0; high has to be above low"),
        (lambda: TruncatedNormal(0.0, 1.0, math.nan, 1.0), "low=nan"),
        (lambda: TruncatedNormal(math.nan, 1.0, -1.0, 1.0), "mean nan"),
        (lambda: TruncatedNormal(0.0, 1.0, 50.0, 51.0), r"no probability between low=50\.0 and high=51\.0; move"),
        (lambda: TruncatedNormal(0.0, 1.0, -51.0, -50.0), "no probability"),
        (lambda: TruncatedNormal(0.0, 1.0, -math.inf, -38.0), "no probability"),
    ],
)
def test_meaningless_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_out_of_range_are_refused():
    with pytest.raises(ValueError, match="step is -1"):
        sample(Normal(0.0, 1.0), torch.tensor([0]), WEIGHT, -1, torch.Size([2]))
    with pytest.raises(ValueError, match="step is 4294967296"):
        sample_at(Normal(0.0, 1.0), torch.tensor([0]), WEIGHT, 1 << 32, torch.tensor([1]))


def test_distributions_are_values():
    """They are compared, put in sets and printed in tables."""
    assert Normal(0.0, 0.1) == Normal(0.0, 0.1) != Normal(0.0, 0.2)
    assert len({Constant(0.0), Constant(0.0), Uniform(0.0, 1.0)}) == 2
    assert all(isinstance(distribution, Distribution) for distribution in (*OURS, Constant(0.0)))
    assert not isinstance("normal", Distribution)
    assert str(Normal(0.0, 0.05)) == "normal(mean 0, std 0.05)"
    assert str(Uniform(-0.25, 0.25)) == "uniform(-0.25, 0.25)"
    assert str(Constant(1.0)) == "constant 1"
    assert str(TruncatedNormal(0.0, 0.02, -2.0, 2.0)) == "truncated normal(mean 0, std 0.02, from -2 to 2)"
