"""Initial distributions: what a parameter's entries are drawn from, when a network is made and when reinitialized.

What is drawn is drawn by a quantile function, so that an entry's value is a function of one uniform number and drawing
a few entries or all of them is the same operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from supple.functional import random


@dataclass(frozen=True)
class Constant:
    """Always the same value: biases at 0, normalization scales at 1.

    Args:
        value: the value.

    Raises:
        ValueError: if the value is not finite.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"value of a constant is {self.value}; it has to be finite")

    @property
    def mean(self) -> float:
        """The value."""
        return self.value

    def quantile(self, probability: Tensor) -> Tensor:
        """The value, whatever the probability.

        Args:
            probability: in (0, 1), any shape.

        Returns:
            Same shape and dtype.
        """
        return torch.full_like(probability, self.value)

    def __str__(self) -> str:
        return f"constant {self.value:g}"


@dataclass(frozen=True)
class Normal:
    """Normal (Gaussian).

    Args:
        mean: mean.
        std: standard deviation, at least 0.

    Raises:
        ValueError: if ``std`` is negative or one of the two is not finite.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"std of a normal distribution is {self.std}; it has to be finite, 0 or more")
        if not math.isfinite(self.mean):
            raise ValueError(f"mean of a normal distribution is {self.mean}; it has to be finite")

    def quantile(self, probability: Tensor) -> Tensor:
        """The standard normal quantile, times ``std``, plus ``mean``.

        Args:
            probability: in (0, 1), any shape.

        Returns:
            Same shape and dtype.
        """
        return random.normal_quantile(probability).mul_(self.std).add_(self.mean)

    def __str__(self) -> str:
        return f"normal(mean {self.mean:g}, std {self.std:.4g})"


@dataclass(frozen=True)
class Uniform:
    """Uniform between two bounds.

    Args:
        low: lower bound.
        high: upper bound, at least ``low``.

    Raises:
        ValueError: if ``high`` is below ``low`` or the distance between them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.high - self.low < math.inf:
            raise ValueError(
                f"bounds of a uniform distribution are low={self.low} and high={self.high}; they have to be finite, "
                "and high may not be below low"
            )

    @property
    def mean(self) -> float:
        """Middle of the bounds."""
        return (self.low + self.high) / 2

    def quantile(self, probability: Tensor) -> Tensor:
        """The value at the share p of the way from ``low`` to ``high``; rounding does not leave the bounds.

        Args:
            probability: in (0, 1), any shape.

        Returns:
            Same shape and dtype.
        """
        return (probability * (self.high - self.low)).add_(self.low).clamp_(self.low, self.high)

    def __str__(self) -> str:
        return f"uniform({self.low:.4g}, {self.high:.4g})"


def _density(z: float) -> float:
    """phi, the density of the standard normal distribution."""
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _cumulative(z: float) -> float:
    """Phi, the distribution function of the standard normal distribution, precise in the lower tail."""
    return math.erfc(-z / math.sqrt(2)) / 2


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal, conditioned on lying between two bounds, as ``torch.nn.init.trunc_normal_``.

    Args:
        location: mean of the normal before it is cut.
        std: standard deviation of the normal before it is cut, above 0.
        low: lower bound.
        high: upper bound, above ``low``.

    Raises:
        ValueError: if ``std`` is not above 0, ``high`` not above ``low``, or the bounds so far out that no probability
            is left between them in float64 (37 standard deviations).
    """

    location: float
    std: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"std of a truncated normal distribution is {self.std}; it has to be finite, above 0")
        if not self.high > self.low:
            raise ValueError(
                f"bounds of a truncated normal distribution are low={self.low} and high={self.high}; "
                "high has to be above low"
            )
        # So much that the product with the smallest uniform number, 2**-24, keeps all its digits.
        if not self.mass > 1e-300:
            raise ValueError(
                f"a normal distribution with mean {self.location} and std {self.std} has no probability between "
                f"low={self.low} and high={self.high}; move the bounds towards the mean"
            )

    @property
    def _standard(self) -> tuple[int, float, float]:
        """(sign, a, b): a value is location + sign * std * z, with z standard normal between a and b.

        The sign puts the bounds in the lower tail: Phi has all its digits near 0, but not near 1.
        """
        a, b = (self.low - self.location) / self.std, (self.high - self.location) / self.std
        return (1, a, b) if a + b <= 0 else (-1, -b, -a)

    @property
    def mass(self) -> float:
        """The probability that the normal before it is cut leaves between the bounds."""
        _, below, above = self._standard
        return _cumulative(above) - _cumulative(below)

    @property
    def mean(self) -> float:
        """E[x] = location + std (phi(a) - phi(b)) / (Phi(b) - Phi(a)), with a and b the bounds in standard units."""
        sign, a, b = self._standard
        return self.location + sign * self.std * (_density(a) - _density(b)) / self.mass

    def quantile(self, probability: Tensor) -> Tensor:
        """The normal quantile of Phi(a) + p (Phi(b) - Phi(a)), in float64 on the way, kept between the bounds.

        Args:
            probability: in (0, 1), any shape.

        Returns:
            Same shape and dtype.
        """
        sign, a, b = self._standard
        below, above = _cumulative(a), _cumulative(b)
        share = probability.double() if sign > 0 else 1 - probability.double()
        value = torch.special.ndtri(share * (above - below) + below) * (sign * self.std) + self.location
        return value.to(probability.dtype).clamp(self.low, self.high)

    def __str__(self) -> str:
        return f"truncated normal(mean {self.location:g}, std {self.std:.4g}, from {self.low:g} to {self.high:g})"


@dataclass(frozen=True, eq=False)
class Fixed:
    """A value of its own for each entry: an identity matrix, a bias of 1 for one gate, Mamba's log(1) to log(16).

    Args:
        values: the values of the whole tensor of one network.

    Raises:
        ValueError: if one is not finite.
    """

    values: Tensor

    def __post_init__(self) -> None:
        if not bool(self.values.isfinite().all()):
            raise ValueError("values of a fixed tensor have to be finite")

    @property
    def mean(self) -> float:
        """Mean over the entries; what an entry starts from is its own value."""
        return float(self.values.double().mean())

    def at(self, index: Tensor) -> Tensor:
        """The values of some entries.

        Args:
            index: int64, row-major index of each.

        Returns:
            The same shape.
        """
        return self.values.to(index.device).flatten()[index]

    def __str__(self) -> str:
        return f"fixed (from {float(self.values.min()):g} to {float(self.values.max()):g})"


Drawn = Constant | Normal | Uniform | TruncatedNormal
"""What a user may state: each kind has a ``mean`` and a quantile function, the same for all entries."""


@dataclass(frozen=True, eq=False)
class Each:
    """A distribution of its own for each of R stacked networks that differ.

    Args:
        of: the different ones.
        which: int64 [R], the place of each network's among them.
    """

    of: tuple[Drawn | Fixed, ...]
    which: Tensor

    @property
    def mean(self) -> float:
        """Mean over the networks; what an entry starts from is of its own network."""
        return sum(self.of[number].mean for number in self.which.tolist()) / len(self.which)

    def at(self, index: Tensor, network: Tensor) -> Tensor:
        """What entries start from on average.

        Args:
            index: int64, row-major index of each in its network's tensor.
            network: int64, the network of each; broadcasts with ``index``.

        Returns:
            The broadcast shape.
        """
        return self._pick(network, lambda one: one.at(index) if isinstance(one, Fixed) else one.mean)

    def quantile(self, probability: Tensor, index: Tensor, network: Tensor) -> Tensor:
        """Values of entries, each by the quantile function of its network.

        Args:
            probability: in (0, 1).
            index: int64, row-major index of each entry in its network's tensor.
            network: int64, the network of each; the three broadcast.

        Returns:
            The shape of ``probability``.
        """
        return self._pick(network, lambda one: one.at(index) if isinstance(one, Fixed) else one.quantile(probability))

    def _pick(self, network: Tensor, give: Callable[[Drawn | Fixed], Tensor | float]) -> Tensor:
        which = self.which.to(network.device)[network]
        found = torch.zeros((), device=network.device)
        for number, one in enumerate(self.of):
            found = torch.where(which == number, give(one), found)
        return found

    def __str__(self) -> str:
        return f"{len(self.of)} by network, such as {self.of[0]}"


Distribution = Drawn | Fixed | Each
"""What parameters are drawn from."""

Places = Callable[[], tuple[Tensor, Tensor]]
"""Gives the row-major index of entries in their network's tensor, and the network of each; the two broadcast."""


def draw(distribution: Distribution, places: Places, probability: Callable[[], Tensor]) -> Tensor:
    """Values of entries of stacked networks, from a random number of each.

    Args:
        distribution: what they are drawn from.
        places: gives the entries, where it matters which they are.
        probability: gives their random numbers, in (0, 1), where they are drawn.

    Returns:
        The shape of the random numbers, or of the entries' index where all networks start from the same fixed values.
    """
    if isinstance(distribution, Fixed):
        return distribution.at(places()[0])
    if isinstance(distribution, Each):
        return distribution.quantile(probability(), *places())
    return distribution.quantile(probability())


def center(distribution: Distribution, places: Places) -> Tensor | float:
    """What entries of stacked networks start from on average.

    Args:
        distribution: what they are drawn from.
        places: gives the entries, where it matters which they are.

    Returns:
        The shape of the entries; one number where all have the same.
    """
    if isinstance(distribution, Fixed):
        return distribution.at(places()[0])
    return distribution.at(*places()) if isinstance(distribution, Each) else distribution.mean


_KINDS = {kind.__name__: kind for kind in get_args(Distribution)}


def to_dict(distribution: Distribution) -> dict[str, str | float | Tensor]:
    """A distribution as plain strings, numbers and tensors, for saving.

    Args:
        distribution: the distribution.

    Returns:
        Its kind and its arguments.
    """
    kind = type(distribution).__name__
    if isinstance(distribution, Each):
        parts: dict[str, Any] = {}
        for place, one in enumerate(distribution.of):
            parts |= {f"{place} {key}": value for key, value in to_dict(one).items()}
        return {"kind": kind, "which": distribution.which, **parts}
    return {"kind": kind, **vars(distribution)}


def from_dict(saved: Mapping[str, Any]) -> Distribution:
    """The distribution that :func:`to_dict` described.

    Args:
        saved: kind and arguments.

    Returns:
        The distribution.

    Raises:
        ValueError: if the kind is not known.
    """
    arguments = dict(saved)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown kind of distribution {kind!r}; known are {', '.join(_KINDS)}")
    if kind == "Each":
        which = arguments.pop("which")
        parts: dict[str, dict[str, Any]] = {}
        for name, value in arguments.items():
            place, _, key = name.partition(" ")
            parts.setdefault(place, {})[key] = value
        return Each(tuple(from_dict(part) for part in parts.values()), which)  # type: ignore[misc]
    return _KINDS[kind](**arguments)


def sample(distribution: Distribution, seed: Tensor, purpose: int, step: int, shape: torch.Size) -> Tensor:
    """Draws whole tensors, one a seed.

    Args:
        distribution: what is drawn from.
        seed: int64 [R].
        purpose: what the numbers are for, from :func:`supple.functional.random.purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32.
        shape: shape of one network's tensor.

    Returns:
        float32 [R, *shape]. Entry i of a tensor in row-major order uses random number i.
    """
    count = math.prod(shape)

    def places() -> tuple[Tensor, Tensor]:
        return torch.arange(count, device=seed.device), torch.arange(len(seed), device=seed.device).unsqueeze(1)

    drawn = draw(distribution, places, lambda: random.uniform(seed, purpose, step, count))
    return drawn.float().expand(len(seed), count).view(len(seed), *shape)


def sample_at(distribution: Drawn, seed: Tensor, purpose: int, step: int, index: Tensor) -> Tensor:
    """Draws single entries; the same values as :func:`sample` puts there.

    Args:
        distribution: what is drawn from.
        seed: int64, broadcasts with ``index``.
        purpose: what the numbers are for, from :func:`supple.functional.random.purpose`.
        step: optimizer step or another moment, 0 <= step < 2**32.
        index: int64, row-major index of each entry in its network's tensor.

    Returns:
        float32 of the broadcast shape.
    """
    return distribution.quantile(random.uniform_at(seed, purpose, step, index))
