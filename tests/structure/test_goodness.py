import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supple.functional.initial import Constant, Normal, TruncatedNormal, Uniform
from supple.structure.goodness import (
    agrees,
    cumulative,
    kolmogorov_smirnov,
    log_likelihood,
    shortfall,
    summarize,
)

FAMILIES = [
    (Normal(0.3, 2.0), scipy.stats.norm(0.3, 2.0)),
    (Uniform(-0.5, 1.5), scipy.stats.uniform(-0.5, 2.0)),
    (TruncatedNormal(0.5, 2.0, -1.0, 3.0), scipy.stats.truncnorm(-0.75, 1.25, 0.5, 2.0)),
]
IDS = ["normal", "uniform", "truncated"]


@pytest.mark.parametrize(("ours", "reference"), FAMILIES, ids=IDS)
def test_distribution_function_and_density_are_scipys(ours, reference):
    values = torch.linspace(-4, 4, 101, dtype=torch.float64)
    torch.testing.assert_close(cumulative(ours, values), torch.from_numpy(reference.cdf(values.numpy())))
    inside = torch.linspace(-0.4, 1.4, 37, dtype=torch.float64)
    assert log_likelihood(ours, summarize(inside)) == pytest.approx(reference.logpdf(inside.numpy()).sum(), rel=1e-9)


def test_density_is_zero_out_of_reach():
    values = torch.tensor([0.1, 0.2, 1.6])
    assert log_likelihood(Uniform(-0.5, 1.5), summarize(values)) == -math.inf
    assert log_likelihood(TruncatedNormal(0.0, 1.0, -1.5, 1.5), summarize(values)) == -math.inf
    assert log_likelihood(Normal(0.0, 0.1), summarize(values)) == -math.inf


def test_other_distributions_are_an_error():
    with pytest.raises(TypeError, match="constant 0"):
        cumulative(Constant(0.0), torch.zeros(2))
    with pytest.raises(TypeError, match="constant 0"):
        log_likelihood(Constant(0.0), summarize(torch.zeros(2)))


@pytest.mark.parametrize(("ours", "reference"), FAMILIES, ids=IDS)
@pytest.mark.parametrize("n", [1, 2, 17, 400, 5000])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_kolmogorov_smirnov_is_scipys(ours, reference, n, shift):
    values = torch.from_numpy(reference.rvs(n, random_state=n)).sort().values + shift
    statistic, p = kolmogorov_smirnov(ours, values)
    expected = scipy.stats.kstest(values.numpy(), reference.cdf)
    assert statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert p >= expected.pvalue * (1 - 1e-6)  # a bound that holds for every n
    if n >= 400 and 1e-200 < expected.pvalue < 0.01:
        assert math.log(p) == pytest.approx(math.log(expected.pvalue), rel=0.1)  # and is close in the tail


@pytest.mark.parametrize(("ours", "reference"), FAMILIES, ids=IDS)
def test_shortfall_of_the_truth_exceeds_x_with_a_chance_of_about_exp_minus_x(ours, reference):
    runs = 200
    for n in (2, 3, 20, 200):
        draws = torch.from_numpy(reference.rvs((runs, n), random_state=n))
        # A truncated normal that is not symmetric about 0 is estimated as a normal, which can only lower the best fit.
        above = sum(shortfall(ours, summarize(row)) > 5 for row in draws)
        assert above <= runs * math.exp(-5) * 5


def test_estimates_are_the_moments_and_the_extremes():
    values = torch.tensor([-1.0, 0.0, 3.0, 2.0], dtype=torch.float64) + 1e-9
    about_0, rms, *cuts, uniform, normal = summarize(values).estimates
    assert (normal.mean, normal.std) == pytest.approx((1.0, math.sqrt(2.5)))
    assert (uniform.low, uniform.high) == pytest.approx((-1 - 4 / 3, 3 + 4 / 3))
    assert (about_0.low, about_0.high) == pytest.approx((-3 - 3 / 4, 3 + 3 / 4))
    assert (rms.mean, rms.std) == pytest.approx((0.0, math.sqrt(14 / 4)))
    assert all((cut.mean, cut.high) == (0.0, pytest.approx(about_0.high)) for cut in cuts)


def test_the_likelihood_of_blurred_edges_is_that_of_a_numerical_convolution():
    values = scipy.stats.norm(0, 0.2).rvs(300, random_state=0) + scipy.stats.uniform(-1, 2).rvs(300, random_state=1)
    root_mean_square = float(np.sqrt((values**2).mean()))
    found = []
    for blur in (0.05, 0.1, 0.2, 0.35, 0.6):
        bound = root_mean_square / math.sqrt(1 / 3 + blur**2)
        inner = np.linspace(-bound, bound, 2001)
        density = scipy.stats.norm(0, blur * bound).pdf(values[:, None] - inner).mean(axis=1)
        found.append(np.log(density).sum())
    assert summarize(torch.from_numpy(values)).blurred == pytest.approx(max(found), abs=0.5)


@given(count=st.integers(1, 60_000), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
@settings(max_examples=30, deadline=None)
def test_summary_keeps_extremes_of_all_and_different_entries(count, dtype):
    values = torch.arange(count, dtype=torch.float64) / 65536 + 1
    summary = summarize(values.to(dtype))
    assert (summary.low, summary.high) == (float(values.to(dtype)[0]), float(values.to(dtype)[-1]))
    assert summary.count == count
    assert len(summary.values) == min(count, 1 << 14)
    assert bool((summary.values.diff() >= 0).all())
    if dtype == torch.float64:
        assert len(summary.values.unique()) == len(summary.values)
        assert float(summary.values.mean()) == pytest.approx(float(values.mean()), abs=0.01)


def test_summary_of_a_wide_matrix_does_not_see_one_column():
    values = torch.arange(1024.0).expand(1024, 1024)
    kept = summarize(values).values
    assert len(kept.unique()) > 900
    assert float(kept.mean()) == pytest.approx(511.5, abs=5)


def test_summary_tells_the_resolution():
    torch.manual_seed(0)
    values = torch.randn(100, dtype=torch.float64)
    assert summarize(values).resolution == torch.finfo(torch.float64).eps
    assert summarize(values.float().double()).resolution == torch.finfo(torch.float32).eps
    assert summarize(values.bfloat16().float()).resolution == torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    ("values", "dtype", "constant"),
    [
        ([0.0], torch.float32, 0.0),
        ([0.25], torch.float32, 0.25),
        ([0.1], torch.float64, 0.1),
        ([2.6593], torch.float32, None),
        ([0.60156], torch.bfloat16, None),
        ([1.0], torch.bfloat16, 1.0),
        ([0.60156] * 2, torch.bfloat16, None),
        ([0.60156] * 5, torch.bfloat16, 0.6015625),
        ([2.6593] * 2, torch.float64, 2.6593),
        ([0.0, 1.0], torch.float32, None),
    ],
)
def test_constant(values, dtype, constant):
    assert summarize(torch.tensor(values, dtype=dtype)).constant == constant


def test_agrees():
    torch.manual_seed(0)
    values = torch.rand(1000) * 2 - 1
    assert agrees(Uniform(-1, 1), summarize(values))
    assert not agrees(Uniform(-1, 1), summarize(values * 1.01))  # beyond the bounds
    assert not agrees(Uniform(-1, 1), summarize(values * 0.95))  # too far from them: 0.95**1000 is 5e-23
    assert not agrees(Uniform(-1, 1), summarize(torch.where(values < 0.1, 0.0, values)))  # repeats
    assert not agrees(Uniform(-1, 1), summarize(values.sign() * values.abs() ** 1.7))  # within the bounds, but not even
    assert not agrees(Normal(0.0, 1.0), summarize(torch.randn(5) + 100))
    assert not agrees(Normal(0.0, 1.0), summarize(torch.randn(16) * 0.02))
    assert not agrees(Normal(0.0, 1.0), summarize(torch.tensor([0.1, float("nan"), 0.2])))
    assert agrees(Constant(0.1), summarize(torch.full((3,), 0.1, dtype=torch.bfloat16)))
    assert not agrees(Constant(0.1), summarize(torch.tensor([0.1, 0.1, 0.1 + 1e-7])))
    assert agrees(Normal(0.0, 1.0), summarize(torch.empty(0, 3)))
