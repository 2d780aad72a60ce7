"""Tells from a parameter's values what they were drawn from.

Values can't tell everything. The entries of an orthogonal matrix look like draws from a normal distribution of standard
deviation gain / sqrt(longer side), and are taken for that: redrawn entries have the right scale, but the rows are no
longer orthogonal. Where well-known initializers that fit differ by less than 2% in scale, the more usual one is taken
and all are named. Where the entries are too few to tell, the answer is that they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from supple.functional.initial import Constant, Distribution, Normal, TruncatedNormal, Uniform
from supple.structure.goodness import (
    SIGNIFICANCE,
    Summary,
    estimates,
    kolmogorov_smirnov,
    log_likelihood,
    shortfall,
)

MINIMUM = 20
"""Fewest entries that a distribution other than a constant is told from: of 20 draws from a uniform distribution the
normal distribution that fits best is some 30 times less likely."""

_RECOGNIZED = math.log(1e4)  # one true initializer in ten thousand is given as an estimate instead
_RIVAL = math.log(100)  # odds of 100 to 1 decide between two distributions
_ALIKE = 0.02  # relative difference of scale that does not matter

# Where mean and std are estimated from the values, D is smaller than where they are known. 1.95 / sqrt(n), which the
# bound of known parameters gives a chance of 1e-3, has one of 1e-9 (Dallal and Wilkinson, American Statistician 40,
# 1986).
_SIGNIFICANCE_ESTIMATED_NORMAL = 1e-3

_TWO_STD_NORMAL_STD = 0.8796256610342398
"""Standard deviation of a standard normal cut at -2 and 2."""


@dataclass(frozen=True)
class Inference:
    """What values were drawn from.

    Args:
        distribution: the distribution, or None where it can't be told.
        source: what it was told from, or ``"unknown: "`` and the reason.
        recognized: whether it is a constant or a well-known initializer, rather than an estimate.
    """

    distribution: Distribution | None
    source: str
    recognized: bool = False


def fans(shape: torch.Size) -> tuple[int, int]:
    """Fan in and fan out of a weight of two or more dimensions as ``torch.nn.init`` counts them.

    A transposed convolution's is [in, out / groups, *kernel], so its fan in counts outputs.
    """
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _symmetric_uniform(std: float) -> Uniform:
    return Uniform(-math.sqrt(3) * std, math.sqrt(3) * std)


def _two_std_normal(std: float) -> TruncatedNormal:
    return TruncatedNormal(0.0, std, -2 * std, 2 * std)


def well_known(shape: torch.Size) -> list[tuple[str, Distribution]]:
    """The initializers that people use, for a tensor of a given shape.

    A normal cut at -2 and 2 (the default of ``torch.nn.init.trunc_normal_``) whose standard deviation is far below 1 is
    a normal to every practical purpose, and leaky ReLU's gain at slope 0.01 is ReLU's but for 0.005%: neither is
    listed.

    Args:
        shape: shape of one network's tensor.

    Returns:
        (name, distribution) of each, the more usual first.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015 (Kaiming); Glorot and Bengio, "Understanding the
    difficulty of training deep feedforward neural networks", AISTATS 2010 (Xavier); LeCun et al., "Efficient backprop",
    1998; ``torch.nn.init`` and ``jax.nn.initializers`` for the constants.
    """
    found: list[tuple[str, Distribution]] = [
        *((f"normal, std {std:g}", Normal(0.0, std)) for std in (1.0, 0.02, 0.01, 1e-6)),
        ("normal, mean 1, std 0.02", Normal(1.0, 0.02)),
        ("uniform from 0 to 1", Uniform(0.0, 1.0)),
        *((f"normal cut at two std, std {std:g}", _two_std_normal(std)) for std in (1.0, 0.02)),
    ]
    if len(shape) < 2 or 0 in shape:
        return found
    fan_in, fan_out = fans(shape)
    xavier = math.sqrt(2 / (fan_in + fan_out))
    lecun = math.sqrt(1 / fan_in)
    for gain, variance in (("relu", 2.0), ("linear", 1.0), ("leaky_relu 0.2", 2 / 1.04)):
        for name, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
            std = math.sqrt(variance / fan)
            found.append((f"Kaiming normal ({name}, {gain})", Normal(0.0, std)))
            found.append((f"Kaiming uniform ({name}, {gain})", _symmetric_uniform(std)))
    return [
        ("Xavier normal", Normal(0.0, xavier)),
        ("Xavier uniform", _symmetric_uniform(xavier)),
        *found,
        ("uniform within 1 / sqrt(fan_in)", Uniform(-lecun, lecun)),
        ("LeCun normal cut at two std", _two_std_normal(lecun)),
        ("LeCun normal cut at two std, variance corrected", _two_std_normal(lecun / _TWO_STD_NORMAL_STD)),
        (
            "Kaiming normal cut at two std, variance corrected",
            _two_std_normal(math.sqrt(2) * lecun / _TWO_STD_NORMAL_STD),
        ),
    ]


def _alike(one: Distribution, other: Distribution) -> bool:
    """Whether two distributions are of one family and hardly differ."""
    if type(one) is not type(other):
        return False
    scale = spread(one)
    return abs(spread(other) / scale - 1) <= _ALIKE and abs(one.mean - other.mean) <= _ALIKE * scale


def spread(distribution: Distribution) -> float:
    """A scale: the standard deviation, before the cut where there is one; 0 for a constant."""
    if isinstance(distribution, Constant):
        return 0.0
    if isinstance(distribution, Uniform):
        return (distribution.high - distribution.low) / math.sqrt(12)
    return distribution.std


def _recognize(summary: Summary, shape: torch.Size) -> tuple[Inference | None, list[str]]:
    """The well-known initializer that explains the values, if one does, and the names of all that may."""
    fitting = [
        (log_likelihood(candidate, summary), name, candidate)
        for name, candidate in well_known(shape)
        if shortfall(candidate, summary) <= _RECOGNIZED
    ]
    if not fitting:
        return None, []
    best = max(likelihood for likelihood, _, _ in fitting)
    rivals = [(name, candidate) for likelihood, name, candidate in fitting if likelihood >= best - _RIVAL]
    names = [name for name, _ in rivals]
    usual = rivals[0][1]
    if not all(_alike(usual, rival) for _, rival in rivals):
        return None, names
    if kolmogorov_smirnov(usual, summary.values)[1] <= SIGNIFICANCE:
        return None, []
    return Inference(usual, "values: " + " or ".join(names), recognized=True), names


def _estimate(summary: Summary, rivals: list[str]) -> Inference:
    """The family that explains the values, with parameters estimated from them."""
    normal, uniform, cut = estimates(summary)
    likelihoods = [log_likelihood(family, summary) for family in (normal, uniform, cut)]
    best = max(likelihoods)
    in_question = [likelihood >= best - _RIVAL for likelihood in likelihoods]
    if in_question[1] and (in_question[0] or in_question[2]):
        return Inference(
            None, f"unknown: too few entries ({summary.count}) to tell a normal from a uniform distribution"
        )
    fitted: Distribution
    if in_question[1]:
        fitted, name, significance = uniform, "uniform", SIGNIFICANCE
    elif in_question[0]:
        fitted, name, significance = normal, "normal", _SIGNIFICANCE_ESTIMATED_NORMAL
    else:
        fitted, name, significance = cut, "normal cut at two std", SIGNIFICANCE
    if kolmogorov_smirnov(fitted, summary.values)[1] <= significance:
        return Inference(None, "unknown: values fit neither a constant nor a normal nor a uniform distribution")
    also = f" ({' and '.join(rivals[:3])} fit too)" if rivals else ""
    return Inference(fitted, f"values: {name}, estimated from {summary.count} entries{also}")


def infer(summary: Summary, shape: torch.Size) -> Inference:
    """Tells what values were drawn from: a constant, a well-known initializer, or an estimated distribution.

    The scale of well-known initializers depends on the shape. Nothing is told from values that are not finite, repeat
    too often for a continuous distribution, are fewer than 20, can't tell a normal from a uniform distribution at odds
    of 100 to 1, or fit none.
    """
    if summary.count == 0:
        return Inference(Constant(0.0), "no entries", recognized=True)
    if not summary.finite:
        return Inference(None, "unknown: not all values are finite")
    if summary.constant is not None:
        return Inference(Constant(summary.constant), "values: constant", recognized=True)
    if summary.count == 1:
        return Inference(None, f"unknown: one entry ({summary.low:g}) does not tell a constant from a draw")
    if summary.count < MINIMUM:
        return Inference(None, f"unknown: too few entries ({summary.count}, at least {MINIMUM} are needed)")
    if summary.repeated is not None:
        value, share = summary.repeated
        return Inference(None, f"unknown: {share:.3g} of the entries are {value:g}, the others differ")
    recognized, rivals = _recognize(summary, shape)
    return recognized or _estimate(summary, rivals)
