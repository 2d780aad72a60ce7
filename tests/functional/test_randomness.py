"""Tests of randomness: uniform and normal numbers, their independence, permutations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from supple.functional import random

CONVOLUTION = random.purpose("test", "convolution")
HEAD = random.purpose("test", "head")
# Below this a test fails: once in 10,000 for a perfect generator, and never again since seeds are fixed.
P_VALUE = 1e-4


def numbers(count=1 << 19, seed=2024, purpose=CONVOLUTION, step=0):
    return random.uniform(torch.tensor([seed]), purpose, step, count)[0].double().numpy()


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_every_word_is_uniform(position, shift):
    words = random.words(torch.tensor([-77]), CONVOLUTION, 5, 1 << 20)[0]
    counts = torch.bincount(words[position::4] >> shift & 0xFF, minlength=256)
    assert stats.chisquare(counts.numpy()).pvalue > P_VALUE


@pytest.mark.parametrize("step", [0, 1, 1 << 20, (1 << 32) - 1])
def test_uniform_is_uniform(step):
    values = numbers(step=step)
    assert stats.kstest(values, "uniform").pvalue > P_VALUE
    counts, _ = np.histogram(values, bins=1000, range=(0, 1))
    assert stats.chisquare(counts).pvalue > P_VALUE


def test_normal_is_normal():
    count = 1 << 19
    values = random.normal_quantile(random.uniform(torch.tensor([31]), CONVOLUTION, 9, count))[0].double().numpy()
    assert stats.kstest(values, "norm").pvalue > P_VALUE
    # Moments 1 to 6, in standard errors: 4 of them are exceeded once in 16,000.
    for power in range(1, 7):
        expected, squared = (float(stats.norm.moment(n)) for n in (power, 2 * power))
        error = math.sqrt((squared - expected**2) / count)
        assert abs((values**power).mean() - expected) < 4 * error
    beyond = int((abs(values) > 4).sum())
    assert stats.binomtest(beyond, count, 2 * stats.norm.sf(4)).pvalue > P_VALUE


# Independence


def independent(columns):
    """p-value that the columns of [observations, variables] are uncorrelated: Fisher's z of every pair, chi-square."""
    observations, variables = columns.shape
    pairs = np.corrcoef(columns, rowvar=False)[np.triu_indices(variables, 1)]
    return stats.chi2.sf((np.arctanh(pairs) ** 2).sum() * (observations - 3), len(pairs))


def test_neighbouring_indices_are_independent():
    values = numbers()
    assert independent(values.reshape(-1, 32)) > P_VALUE
    for lag in (1, 2, 3, 4, 5, 8, 16, 784, 1 << 14, 1 << 16):
        correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
        assert abs(correlation) * math.sqrt(len(values) - lag) < stats.norm.isf(P_VALUE / 2), lag


@pytest.mark.parametrize(
    "seed",
    [torch.arange(40), torch.arange(40) << 32, torch.arange(-20, 20), 2 ** torch.arange(40)],
    ids=["counting", "upper half", "negative", "powers of two"],
)
def test_seeds_are_independent(seed):
    columns = random.uniform(seed, CONVOLUTION, 0, 50_000).double().numpy().T
    assert independent(columns) > P_VALUE
    # Their first numbers are uniform too: what a small tensor of many replicas is made of.
    first = random.uniform(torch.arange(100_000), CONVOLUTION, 0, 1)[:, 0].double().numpy()
    assert stats.kstest(first, "uniform").pvalue > P_VALUE


def test_steps_and_purposes_are_independent():
    seed = torch.tensor([4])
    over_steps = [random.uniform(seed, HEAD, step, 50_000)[0] for step in (*range(20), *(1 << n for n in range(5, 32)))]
    named = [random.purpose("layer", str(number)) for number in range(20)]
    purposes = [*named, *(1 << n for n in range(0, 48, 3))]
    over_purposes = [random.uniform(seed, purpose, 0, 50_000)[0] for purpose in purposes]
    for draws in (over_steps, over_purposes):
        assert independent(torch.stack(draws, dim=1).double().numpy()) > P_VALUE


def test_indices_far_apart_are_independent():
    starts = torch.tensor([0, *(1 << n for n in range(20, 50, 2))])
    values = random.uniform_at(torch.tensor(9), HEAD, 0, starts[:, None] + torch.arange(50_000))
    assert independent(values.double().numpy().T) > P_VALUE


def test_pairs_and_triples_fill_square_and_cube_evenly():
    values = numbers()
    for dimensions, bins in ((2, 64), (3, 16)):
        cells = (values[: len(values) // dimensions * dimensions].reshape(-1, dimensions) * bins).astype(int)
        counts = np.bincount(np.ravel_multi_index(cells.T, (bins,) * dimensions), minlength=bins**dimensions)
        assert stats.chisquare(counts).pvalue > P_VALUE


def test_runs_up_are_as_long_as_they_should_be():
    """Gap test: how long the values stay out of [0, 0.1) is geometric."""
    gaps = np.diff(np.flatnonzero(numbers() < 0.1))
    longest = 60
    observed = np.bincount(np.minimum(gaps, longest), minlength=longest + 1)[1:]
    share = np.append(0.1 * 0.9 ** np.arange(longest - 1), 0.9 ** (longest - 1))
    assert stats.chisquare(observed, share * len(gaps)).pvalue > P_VALUE


def test_birthdays_collide_as_often_as_they_should():
    """Of n words of 32 bits, about n (n - 1) / 2**33 pairs are equal: Poisson."""
    n, expected, equal = 1 << 17, 0.0, 0
    for step in range(20):
        words = random.words(torch.tensor([3]), HEAD, step, n)[0]
        equal += n - len(words.unique())
        expected += n * (n - 1) / 2**33
    assert stats.poisson.cdf(equal, expected) > P_VALUE
    assert stats.poisson.sf(equal - 1, expected) > P_VALUE


# Permutations


@pytest.mark.parametrize("across", ["seeds", "steps"])
def test_permutations_of_four_are_uniform(across):
    if across == "seeds":
        orders = random.permutation(torch.arange(48_000), HEAD, 0, 4)
    else:
        orders = torch.cat([random.permutation(torch.arange(48), HEAD, step, 4) for step in range(500)])
    codes = (orders * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    kinds, counts = codes.unique(return_counts=True)
    assert len(kinds) == math.factorial(4)
    assert stats.chisquare(counts.numpy()).pvalue > P_VALUE


def test_fixed_points_of_a_long_permutation():
    """A uniformly random order leaves one thing in its place on average: nearly Poisson of mean 1."""
    orders = random.permutation(torch.arange(2000), CONVOLUTION, 1, 100)
    fixed = (orders == torch.arange(100)).sum(dim=1)
    observed = torch.bincount(fixed.clamp(max=5), minlength=6).numpy()
    share = np.append(stats.poisson.pmf(range(5), 1), stats.poisson.sf(4, 1))
    assert stats.chisquare(observed, share * 2000).pvalue > P_VALUE
