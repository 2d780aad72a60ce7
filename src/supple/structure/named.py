"""The initializers that people use, by name, for a tensor of a given shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch

from supple.functional.initial import Distribution, Normal, TruncatedNormal, Uniform

GAINS = {
    "": 1.0,
    "relu": math.sqrt(2),
    "tanh": 5 / 3,
    "leaky_relu 0.2": math.sqrt(2 / 1.04),
    "selu": 0.75,
    "1/sqrt(2)": math.sqrt(1 / 2),
    "1/sqrt(3)": math.sqrt(1 / 3),
    "0.1": 0.1,
    "0.01": 0.01,
}
"""By what a standard deviation of 1 / sqrt(fan) is multiplied: ``torch.nn.init.calculate_gain`` and what else is usual.
A ReLU's is also that of a leaky ReLU of slope 0.01, but for 0.005%; 1/sqrt(3) makes a uniform end at 1 / sqrt(fan)."""

_CUT_STD = 0.8796256610342398
"""Standard deviation of a standard normal cut at -2 and 2."""


def fans(shape: torch.Size) -> tuple[int, int]:
    """Fan in and fan out of a weight of two or more dimensions as ``torch.nn.init`` counts them.

    A transposed convolution's is [in, out / groups, *kernel], so its fan in counts outputs.

    Args:
        shape: shape of the weight.

    Returns:
        (fan in, fan out).
    """
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _within(bound: float) -> Uniform:
    return Uniform(-bound, bound)


def _cut(std: float) -> TruncatedNormal:
    return TruncatedNormal(0.0, std, -2 * std, 2 * std)


@lru_cache
def named(shape: torch.Size, depths: tuple[int, ...] = (), bare: bool = True) -> Mapping[str, Distribution]:
    """The initializers that people use, for a tensor of a given shape.

    A normal cut at -2 and 2 (the default of ``torch.nn.init.trunc_normal_``) whose standard deviation is far below 1 is
    a normal to every practical purpose and not listed.

    Args:
        shape: shape of one network's tensor.
        depths: how many layers the network may have; those that add to a residual stream are often scaled down by
            sqrt(2 layers).
        bare: whether it is a parameter that stands for itself. Of one-dimensional ones that belong to a layer, biases
            and scales, fewer are listed: they are rarely drawn from a normal distribution, but look so when trained.

    Returns:
        Distribution by name, the more usual first.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015 (Kaiming); Glorot and Bengio, "Understanding the
    difficulty of training deep feedforward neural networks", AISTATS 2010 (Xavier); LeCun et al., "Efficient backprop",
    1998; Radford et al., "Language models are unsupervised multitask learners", 2019 (1 / sqrt(2 layers)); Sitzmann et
    al., "Implicit neural representations with periodic activation functions", NeurIPS 2020 (SIREN); ``torch.nn.init``
    and ``jax.nn.initializers`` for the constants.
    """
    around_1, unit = Normal(1.0, 0.02), Uniform(0.0, 1.0)
    scarce: dict[str, Distribution] = {"normal, mean 1, std 0.02": around_1, "uniform from 0 to 1": unit}
    if len(shape) == 1:
        steps = Uniform(math.log(math.expm1(0.001)), math.log(math.expm1(0.1)))
        scarce["normal, std 1e-06"] = Normal(0.0, 1e-6)
        scarce["Mamba's steps, softplus in 0.001 to 0.1"] = steps
        if not bare or not shape[0]:
            return scarce
        scarce["normal, std 1 / sqrt(size)"] = Normal(0.0, 1 / math.sqrt(shape[0]))
    constants: dict[str, Distribution] = {f"normal, std {std:g}": Normal(0.0, std) for std in (1.0, 0.02, 0.01, 1e-6)}
    constants |= scarce
    constants |= {f"normal cut at two std, std {std:g}": _cut(std) for std in (1.0, 0.02)}
    if 0 in shape or len(shape) < 2:
        return constants
    fan_in, fan_out = fans(shape)
    fan = {"": (fan_in + fan_out) / 2, "fan_in": fan_in, "fan_out": fan_out}
    lecun, xavier = 1 / math.sqrt(fan_in), 1 / math.sqrt(fan[""])
    found: dict[str, Distribution] = {"Xavier normal": Normal(0.0, xavier)}
    found["Xavier uniform"] = _within(math.sqrt(3) * xavier)
    found |= constants
    for gain, factor in GAINS.items():
        for mode, size in sorted(fan.items(), key=lambda one: "relu" in gain and not one[0]):
            std = factor / math.sqrt(size)
            if mode:
                kind, how = "Kaiming", f" ({mode}, {gain or 'linear'})"
            else:
                kind, how = "Xavier", f" (gain {gain})" if gain else ""
            found[f"{kind} normal{how}"] = Normal(0.0, std)
            if gain == "1/sqrt(3)" and mode:
                found[f"uniform within 1 / sqrt({mode})"] = _within(1 / math.sqrt(size))
            else:
                found[f"{kind} uniform{how}"] = _within(math.sqrt(3) * std)
            if gain in ("", "relu"):
                if gain == "" and mode == "fan_in":
                    kind, how = "LeCun", ""
                found[f"{kind} normal{how} cut at two std"] = _cut(std)
                found[f"{kind} normal{how} cut at two std, variance corrected"] = _cut(std / _CUT_STD)
    found |= {f"normal, std {std:g}": Normal(0.0, std) for std in (0.001, 0.006)}
    found |= {f"uniform within {bound:g}": _within(bound) for bound in (1.0, 0.1, 0.08, 0.05, 0.01, 0.003)}
    found["SIREN"] = _within(math.sqrt(6 / fan_in) / 30)
    for layers in depths:
        down = math.sqrt(2 * layers)
        found[f"normal, std 0.02 / sqrt(2 x {layers} layers)"] = Normal(0.0, 0.02 / down)
        found[f"normal, std 1 / sqrt(2 x {layers} layers x fan_in)"] = Normal(0.0, lecun / down)
    return found
