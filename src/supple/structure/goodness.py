"""How well a distribution explains the values of a parameter: summary, likelihood and Kolmogorov-Smirnov test.

Likelihoods decide between distributions. The Kolmogorov-Smirnov test turns down what is none of them, and is set so
that it turns down a true distribution with a chance of one in a billion a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from supple.functional.initial import Constant, Distribution, Normal, TruncatedNormal, Uniform

SIGNIFICANCE = 1e-9
"""A distribution is turned down when values this unlikely, or less likely, came from it."""

# The sampling error of so many values, 1 / sqrt(n) = 2**-7, hides the rounding of every format of 16 bits or more: it
# moves a distribution function by up to about the resolution (bfloat16: 2**-7). More would also wake torch's threads.
_MOST_VALUES = 1 << 14
_NORMAL_REACH = 8.0  # standard deviations; beyond lies one of 10**15 entries
_CUTS = (1.0, 1.5, 2.0, 2.5, 3.0)  # where people cut a normal distribution, in standard deviations
_BLURS = (0.05, 0.1, 0.2, 0.35, 0.6)  # standard deviation of the blur, as a share of the uniform's bound


@dataclass(frozen=True)
class Summary:
    """What the tests need to know about a tensor.

    Args:
        count: number of entries.
        low: smallest of all entries; not a number where an entry is.
        high: largest of all entries.
        values: float64 [n], n <= count: some or all of the entries in increasing order.
        resolution: distance from 1 to the next number in the coarsest floating point format that holds the values.
        dtype: dtype of the tensor.
    """

    count: int
    low: float
    high: float
    values: Tensor
    resolution: float
    dtype: torch.dtype

    @cached_property
    def mean(self) -> float:
        """Mean of the values."""
        return float(self.values.mean())

    @cached_property
    def std(self) -> float:
        """Root mean square distance of the values from their mean, at least what rounding alone would give."""
        return max(float(self.values.std(correction=0)), self.rounding, 1e-300)

    @property
    def reach(self) -> float:
        """Largest magnitude of all entries."""
        return max(abs(self.low), abs(self.high))

    @property
    def rounding(self) -> float:
        """By how much the entries may have been rounded."""
        return self.resolution * self.reach

    @property
    def finite(self) -> bool:
        """Whether every entry is a finite number."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def constant(self) -> float | None:
        """The one value of all entries, or None where they differ or may be equal by chance.

        Few entries of a coarse format are equal by chance now and then, and a single entry always is equal to itself.
        Such entries count as constant only if their value is a number of three digits such as 0.25, and in formats of
        16 bits, where many draws are such numbers, only if it is -1, 0 or 1.
        """
        if self.low != self.high:
            return None
        eps = torch.finfo(self.dtype).eps
        by_chance = (self.count - 1) * math.log(eps) > math.log(1e-6)
        if eps < 1e-6:
            round_number = self.low == _rounded(float(f"{self.low:.3g}"), self.dtype)
        else:
            round_number = abs(self.low) in (0, 1)
        return self.low if round_number or not by_chance else None

    @cached_property
    def repeated(self) -> tuple[float, float] | None:
        """(value, share of the entries) of a value that is there more often than in any continuous distribution."""
        different, counts = torch.unique_consecutive(self.values, return_counts=True)
        most = counts.argmax()
        if counts[most] <= 5 + 4 * self.resolution * len(self.values):
            return None
        return float(different[most]), float(counts[most]) / len(self.values)

    @cached_property
    def few_values(self) -> bool:
        """Whether the entries were set rather than drawn: each value occurs four times or more on average.

        In formats of 16 bits, of which large tensors hold all numbers many times, only if they are at most 16.
        """
        different = len(torch.unique_consecutive(self.values))
        return 4 * different <= len(self.values) and (self.resolution < 1e-6 or different <= 16)

    @cached_property
    def estimates(self) -> tuple[Distribution, ...]:
        """The distributions of each family that explain two or more finite values best; those about 0 come first.

        The uniform between the extreme entries, each moved out by the mean distance between entries and by the
        rounding; the normal of the values' mean and standard deviation; the normal cut at some standard deviations.
        """
        reach, root_mean_square = self.reach, math.hypot(self.mean, self.std)
        gap = (self.high - self.low) / max(1, self.count - 1) + self.rounding
        cut = reach + reach / max(1, self.count)
        return (
            Uniform(-cut - self.rounding, cut + self.rounding),
            Normal(0.0, root_mean_square),
            *(TruncatedNormal(0.0, cut / at, -cut, cut) for at in _CUTS),
            Uniform(self.low - gap, self.high + gap),
            Normal(self.mean, self.std),
        )

    @cached_property
    def best(self) -> float:
        """The logarithm of the likelihood of the best of :attr:`estimates`."""
        return max(log_likelihood(estimate, self) for estimate in self.estimates)

    @cached_property
    def blurred(self) -> float:
        """The logarithm of the likelihood of a uniform distribution about 0 to which normal noise was added.

        That is what training makes of values drawn from a uniform distribution: its edges are no longer sharp. The
        density, with bound b and noise s, is (Phi((x + b) / s) - Phi((x - b) / s)) / 2b; b and s are those that give
        the values' root mean square, for the best of some s / b.
        """
        root_mean_square = math.hypot(self.mean, self.std)
        found = -math.inf
        for blur in _BLURS:
            bound = root_mean_square / math.sqrt(1 / 3 + blur**2)
            noise = blur * bound
            # Of the two tails that differ, the lower: Phi has all its digits there.
            far, near = (-self.values.abs() + bound) / noise, (-self.values.abs() - bound) / noise
            density = (torch.special.ndtr(far) - torch.special.ndtr(near)) / (2 * bound)
            found = max(found, float(density.log().sum()))
        return found


def summarize(tensor: Tensor, fixed_row: int | None = None) -> Summary:
    """Summarizes a tensor of any size, on any device, by one pass over it and one copy of at most 16,384 entries.

    A ``fixed_row`` is left out. Which entries are kept of a large tensor depends on the number of entries only.
    """
    values = tensor.detach()
    if fixed_row is not None:
        values = torch.cat((values[:fixed_row], values[fixed_row + 1 :]))
    values = values.reshape(-1)
    count = values.numel()
    if count == 0:
        return Summary(0, 0.0, 0.0, torch.empty(0, dtype=torch.float64), torch.finfo(tensor.dtype).eps, tensor.dtype)
    low, high = torch.aminmax(values)
    kept = values[_spread_indices(count, _MOST_VALUES, values.device)] if count > _MOST_VALUES else values
    low_high_kept = torch.cat((low.view(1), high.view(1), kept)).cpu().double()
    kept = low_high_kept[2:]
    return Summary(
        count, float(low_high_kept[0]), float(low_high_kept[1]), kept.sort().values, _resolution(kept), tensor.dtype
    )


def _spread_indices(count: int, most: int, device: torch.device) -> Tensor:
    """``most`` different indices below ``count``, spread evenly: multiples of about 0.618 count, modulo count."""
    # A plain stride would pick a single column of a matrix whose width divides it.
    stride = round(count * (math.sqrt(5) - 1) / 2)
    while math.gcd(stride, count) > 1:
        stride += 1
    return torch.arange(most, device=device) * stride % count


def _resolution(values: Tensor) -> float:
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        if torch.equal(values.to(dtype).double(), values):
            return torch.finfo(dtype).eps
    return torch.finfo(torch.float64).eps


def _rounded(value: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(value, dtype=torch.float64).to(dtype))


def cumulative(distribution: Distribution, values: Tensor) -> Tensor:
    """The distribution function: the probability of a draw at or below each value. For a constant there is none."""
    if isinstance(distribution, Uniform):
        return ((values - distribution.low) / (distribution.high - distribution.low)).clamp(0, 1)
    if isinstance(distribution, Normal):
        return torch.special.ndtr((values - distribution.mean) / distribution.std)
    if isinstance(distribution, TruncatedNormal):
        whole = _before_the_cut(distribution)
        below, above = cumulative(whole, values.new_tensor((distribution.low, distribution.high)))
        return ((cumulative(whole, values) - below) / (above - below)).clamp(0, 1)
    raise TypeError(f"{distribution} is no normal, uniform or truncated normal distribution: its fit is not defined")


def _before_the_cut(distribution: Normal | TruncatedNormal) -> Normal:
    return distribution if isinstance(distribution, Normal) else Normal(distribution.location, distribution.std)


def kolmogorov_smirnov(distribution: Distribution, values: Tensor) -> tuple[float, float]:
    """Kolmogorov-Smirnov test of whether values [n], in increasing order, were drawn from a distribution.

    Returns:
        (statistic, p): the largest distance D between the distribution function and that of the values, and an upper
        bound of the chance of a distance as large, min(1, 2 exp(-2 n D**2)), which holds for every n.

    Source: Massart, "The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality", Annals of Probability 18 (1990).
    """
    n = len(values)
    expected = cumulative(distribution, values)
    steps = torch.arange(n + 1, dtype=values.dtype) / n
    statistic = float(torch.maximum(steps[1:] - expected, expected - steps[:-1]).max())
    return statistic, min(1.0, 2 * math.exp(-2 * n * statistic**2))


def log_likelihood(distribution: Distribution, summary: Summary) -> float:
    """Sum of the logarithms of the density of all values; minus infinity where an entry lies out of reach.

    A normal distribution reaches 8 standard deviations.
    """
    if isinstance(distribution, Uniform):
        low, high = distribution.low, distribution.high
        each = -math.log(high - low)
    elif isinstance(distribution, Normal | TruncatedNormal):
        whole = _before_the_cut(distribution)
        low, high = whole.mean - _NORMAL_REACH * whole.std, whole.mean + _NORMAL_REACH * whole.std
        square = (summary.std**2 + (summary.mean - whole.mean) ** 2) / whole.std**2
        each = -(square + math.log(2 * math.pi)) / 2 - math.log(whole.std)
        if isinstance(distribution, TruncatedNormal):
            low, high = distribution.low, distribution.high
            each -= math.log(distribution.mass)
    else:
        raise TypeError(
            f"{distribution} is no normal, uniform or truncated normal distribution: its fit is not defined"
        )
    within = low - summary.rounding <= summary.low and summary.high <= high + summary.rounding
    return len(summary.values) * each if within else -math.inf


def shortfall(distribution: Distribution, summary: Summary) -> float:
    """By how much less a distribution explains the values than the best estimate does: a likelihood ratio test.

    Returns:
        x = r (n - 1) / n for n values and the logarithm r of the ratio of likelihoods, at least 0. A true distribution
        falls short by more than x with a chance of about exp(-x): so it is for large n (Wilks), and so it is for two
        values, whose likelihood is best where they lie close together. Infinite where an entry is out of reach.

    Source: Wilks, "The large-sample distribution of the likelihood ratio for testing composite hypotheses", Annals of
        Mathematical Statistics 9 (1938).
    """
    own = log_likelihood(distribution, summary)
    n = len(summary.values)
    if own == -math.inf or n < 2:
        return math.inf if own == -math.inf else 0.0
    return max(0.0, (max(summary.best, summary.blurred) - own) * (n - 1) / n)


def agrees(distribution: Distribution, summary: Summary) -> bool:
    """Whether values may have been drawn from a distribution, by all tests of this file.

    From a constant, if every entry is equal to it. From others, unless a value repeats, an entry lies out of reach, or
    a likelihood ratio or Kolmogorov-Smirnov test finds the values less likely than 1e-9.
    """
    if summary.count == 0:
        return True
    if isinstance(distribution, Constant):
        return summary.low == summary.high == _rounded(distribution.value, summary.dtype)
    if not summary.finite or summary.constant is not None or summary.repeated is not None:
        return False
    if shortfall(distribution, summary) > -math.log(SIGNIFICANCE):
        return False
    return kolmogorov_smirnov(distribution, summary.values)[1] > SIGNIFICANCE
