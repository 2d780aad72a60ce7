"""Tells from a parameter's values what they were drawn from, and whether training has changed them.

Candidates are the rule of the parameter's layer, the initializers of :mod:`supple.structure.named`, and estimates of
each family. A candidate is taken if its likelihood does not fall short of the best estimate's by more than a true one's
would once in a thousand models. Of several that fit, it is the one that explains most of the network's weights.

Training leaves no parameter as it was. Values that it would have disturbed are *untouched*: constants, orthogonal and
normalized rows, and uniform distributions with sharp edges, whatever their bounds. Values are *doubtful* that look as
trained ones do: a uniform distribution whose edges are blurred, a scale of a normalization or a bias that is neither
constant nor uniform nor drawn by a well-known initializer. Whether a normal distribution was widened cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from supple.functional.initial import Constant, Distribution, Fixed, Normal, TruncatedNormal, Uniform
from supple.structure.goodness import (
    SIGNIFICANCE,
    agrees,
    kolmogorov_smirnov,
    log_likelihood,
    shortfall,
    summarize,
)
from supple.structure.named import GAINS, named

MINIMUM = 20
"""Fewest entries from which a distribution is estimated: of 20 draws from a uniform distribution the normal
distribution that fits best is some 30 times less likely. Fewer are told by a well-known initializer that fits."""

_RIVAL = math.log(100)  # odds of 100 to 1 decide between two distributions
_ALIKE = 0.02  # relative difference of scale that does not matter

# Where mean and std are estimated from the values, D is smaller than where they are known. 1.95 / sqrt(n), which the
# bound of known parameters gives a chance of 1e-3, has one of 1e-9 (Dallal and Wilkinson, American Statistician 40,
# 1986).
_SIGNIFICANCE_ESTIMATED = 1e-3

_TEMPERATURES = (math.log(1 / 0.07), 2.6592)
"""CLIP's: a scalar that people start from and that is no number of three digits."""

_MOST_ROWS = 64  # of a matrix, that tell whether it is orthogonal

Statement = tuple[Distribution, str]
"""A distribution, and who says so."""


@dataclass(frozen=True)
class Inference:
    """What values were drawn from.

    Args:
        distribution: the distribution, or None where it can't be told.
        source: what it was told from, or ``"unknown: "`` and the reason.
        untouched: whether training would have left other values.
        doubt: why the values look trained, if they do; then the distribution is what they look like now.
        own: of a vector of which it can't be told: the values that it has, which a fresh network started from.
    """

    distribution: Distribution | None
    source: str
    untouched: bool = False
    doubt: str = ""
    own: Fixed | None = None


class Values:
    """The values of one parameter and what may have made them.

    Args:
        tensor: the parameter, whole.
        fixed_row: a row that is left out, the padding of an embedding.
        rules: what its layer draws it from, the first that fits counts.
        depths: see :func:`supple.structure.named.named`.
        limit: logarithm of the odds at which a candidate is turned down.

    Attributes:
        certain: what they were drawn from, where no choice is left; None: see :meth:`infer`.
        fits: the well-known initializers that may have been it, by name.
    """

    def __init__(
        self,
        tensor: Tensor,
        fixed_row: int | None = None,
        rules: Sequence[Statement] = (),
        depths: tuple[int, ...] = (),
        limit: float = math.log(1e4),
    ) -> None:
        self.shape, self.rules, self.limit = tensor.shape, rules, limit
        self.fits: dict[str, Distribution] = {}
        if not tensor.is_floating_point():
            reason = f"unknown: entries of {tensor.dtype} are not told; state what they were drawn from"
            self.certain: Inference | None = Inference(None, reason)
            return
        self.summary = summarize(tensor, fixed_row)
        self._vector = tensor if max(tensor.shape, default=1) == tensor.numel() and self.summary.finite else None
        self.certain = self._rule() or self._structure(tensor, fixed_row)
        if self.certain is None and self.summary.repeated is None:
            listed = named(tensor.shape, depths, bare=not rules)
            falls = {name: shortfall(distribution, self.summary) for name, distribution in listed.items()}
            # Values that may have a mean of 0 are taken to have one.
            about_0 = {name: fall for name, fall in falls.items() if listed[name].mean == 0 and fall <= limit}
            falls = about_0 or falls
            least = min(limit, min(falls.values()) + _RIVAL)
            self.fits = {name: listed[name] for name, fall in falls.items() if fall <= least}

    def may_be(self, distribution: Distribution) -> bool:
        """Whether a distribution other than a constant explains them as well as a true one would."""
        return shortfall(distribution, self.summary) <= self.limit

    @property
    def unexplained(self) -> int:
        """How many entries there are, if they are those of a layer's bias that no well-known initializer explains."""
        explained = self.certain or self.fits or self._partly_set
        return 0 if explained or not self.rules or len(self.shape) != 1 else self.summary.count

    @property
    def _partly_set(self) -> bool:
        """Whether some entries have one value other than 0, as a forget gate's bias of 1; training moves all apart."""
        return self.summary.repeated is not None and self.summary.repeated[0] != 0

    def infer(self, votes: Mapping[str, int], likes: Mapping[str, Distribution], unexplained: int = 0) -> Inference:
        """Tells what they were drawn from.

        Args:
            votes: how many tensors of the network each well-known initializer fits.
            likes: distributions that explain other tensors of the network, by where they are from.
            unexplained: how many entries of biases nothing explains in the whole network.
        """
        if self.certain is not None:
            return self.certain
        found = self._recognize(votes) or self._like(likes)
        if found is None:
            found = self._estimate()
            if not self._partly_set:
                found = replace(found, doubt=found.doubt or self._doubt(found.distribution, unexplained))
        return found

    def _doubt(self, estimate: Distribution | None, unexplained: int) -> str:
        """Why values look trained that no well-known initializer explains, if they do.

        A few biases prove nothing, but all that a network has and that nothing explains are seen together.
        """
        for rule, source in self.rules:
            bias = len(self.shape) == 1 and not (isinstance(estimate, Uniform) and estimate.mean == 0)
            if isinstance(rule, Constant) or (bias and unexplained >= MINIMUM):
                return f"follows neither the {source} ({rule}) nor another well-known initializer"
        if not self.rules and len(self.shape) == 1 and estimate is not None and estimate.mean != 0:
            return f"is {estimate}, and no well-known initializer is"
        return ""

    def _rule(self) -> Inference | None:
        """The rule of the layer, if the values agree with it."""
        for rule, source in self.rules:
            if agrees(rule, self.summary):
                sharp = self.summary.count > 0 and (isinstance(rule, Constant) or self._sharp(rule))
                return Inference(rule, source, untouched=sharp)
        return None

    def _sharp(self, distribution: Distribution) -> bool:
        """Whether it is a uniform distribution that explains the values far better than one with blurred edges."""
        summary = self.summary
        # Training may well skew few values so that they fill an interval which is not symmetric.
        symmetric = isinstance(distribution, Uniform) and (distribution.mean == 0 or distribution == Uniform(0.0, 1.0))
        if not symmetric or summary.count < MINIMUM:
            return False
        smooth = [e for e in summary.estimates if isinstance(e, Normal)]
        rivals = max(summary.blurred, *(log_likelihood(one, summary) for one in smooth))
        return log_likelihood(distribution, summary) - rivals > self.limit

    def _structure(self, tensor: Tensor, fixed_row: int | None) -> Inference | None:
        """What values are that were set, or made from each other, rather than drawn."""
        summary = self.summary
        if summary.count == 0:
            return Inference(Constant(0.0), "no entries")
        if not summary.finite:
            return Inference(None, "unknown: not all values are finite")
        if summary.constant is not None:
            return Inference(Constant(summary.constant), "values: constant", untouched=True)
        if summary.count == 1:
            if tensor.ndim == 0 and any(abs(summary.low / one - 1) <= 2 * summary.resolution for one in _TEMPERATURES):
                return Inference(Constant(summary.low), "values: constant (CLIP's temperature)", untouched=True)
            if formula := _formula(summary.low, summary.resolution):
                return Inference(Constant(summary.low), f"values: constant ({formula})", untouched=True)
            reason = f"unknown: one entry ({summary.low:g}) does not tell a constant from a draw"
            return Inference(None, reason, doubt=self._doubt(None, 1), own=self._own() if self.rules else None)
        steps = torch.arange(1, tensor.shape[-1] + 1, device=tensor.device).log().to(tensor.dtype)
        if bool(torch.isclose(tensor, steps, rtol=4 * summary.resolution, atol=1e-6).all()):
            return Inference(Fixed(tensor.detach().clone()), "values: log of 1, 2, ... (Mamba)", untouched=True)
        if summary.few_values:
            return Inference(Fixed(tensor.detach().clone()), "values: set, not drawn", untouched=True)
        if _in_order(tensor):
            return Inference(Fixed(tensor.detach().clone()), "values: in order, set and not drawn")
        if tensor.ndim > 1 and fixed_row is None:
            found = self._rows(tensor.detach().reshape(len(tensor), -1))
            if found and bool(((tensor[0] == 0) | (tensor[0] == 1)).all()):  # sines and cosines of 0
                found = replace(found, distribution=Fixed(tensor.detach().clone()), source="values: of positions")
            return found
        return None

    def _rows(self, matrix: Tensor) -> Inference | None:
        """Whether rows, or columns, are orthogonal or have equal norms, which independent draws never have."""
        if matrix.shape[0] > matrix.shape[1]:
            matrix = matrix.T
        short, long = (some.double().cpu() for some in (matrix[:_MOST_ROWS], matrix.T[:_MOST_ROWS]))
        tolerance = max(1e-5, 4 * self.summary.resolution / math.sqrt(matrix.shape[1]))
        norms = short.norm(dim=1)
        gain = float(norms.mean())
        cosines = short @ short.T / gain**2 - torch.eye(len(short), dtype=torch.float64)
        listed = any(abs(gain / known - 1) < tolerance for known in (*GAINS.values(), 0.1, 2.0, 0.5, 0.001))
        if bool(cosines.abs().max() < tolerance) and (len(short) > 1 or listed):
            std = gain / math.sqrt(matrix.shape[1])
            return Inference(Normal(0.0, std), f"values: orthogonal, gain {gain:.4g}", untouched=True)
        for some, length in ((norms, matrix.shape[1]), (long.norm(dim=1), matrix.shape[0])):
            if self.summary.resolution < 1e-5 and len(some) > 1 and float(some.std() / some.mean()) < tolerance:
                std = float(some.mean()) / math.sqrt(length)
                return Inference(Normal(0.0, std), "values: rows or columns of equal norms", untouched=True)
        return None

    def _recognize(self, votes: Mapping[str, int]) -> Inference | None:
        """The well-known initializer, of those that fit, that fits most tensors of the network."""
        if not self.fits:
            return None
        falls = {name: shortfall(distribution, self.summary) for name, distribution in self.fits.items()}
        best = max(self.fits, key=lambda name: (votes.get(name, 0), -falls[name]))
        same = [name for name, other in self.fits.items() if alike(self.fits[best], other)]
        first = max(same, key=lambda name: votes.get(name, 0))
        names = [first, *(name for name in same if name != first)]
        distribution = self.fits[first]
        if kolmogorov_smirnov(distribution, self.summary.values)[1] <= SIGNIFICANCE:
            return None
        return Inference(distribution, "values: " + " or ".join(names[:3]), self._sharp(distribution))

    def _like(self, likes: Mapping[str, Distribution]) -> Inference | None:
        """The distribution of other tensors of the network, if it explains these values too."""
        for name, distribution in likes.items():
            if self.may_be(distribution):
                return Inference(distribution, f"values: {_family(distribution)}, as {name}")
        return None

    def _own(self) -> Fixed | None:
        return None if self._vector is None else Fixed(self._vector.detach().clone())

    def _estimate(self) -> Inference:
        """The family that explains the values best; its mean is 0 unless the values tell otherwise."""
        summary = self.summary
        if summary.repeated is not None:
            value, share = summary.repeated
            reason = f"unknown: {share:.3g} of the entries are {value:g}, the others differ"
            return Inference(None, reason, own=self._own())
        if summary.count < MINIMUM:
            reason = f"unknown: too few entries ({summary.count}, at least {MINIMUM} are needed)"
            return Inference(None, reason, own=self._own())
        doubt = ""
        if summary.blurred - summary.best > self.limit:
            doubt = "is uniform with blurred edges, as training leaves it"
        # A mean of 0 needs no proof, another one does; so does a cut.
        explained = {one: log_likelihood(one, summary) for one in summary.estimates}
        about_0 = {one: fall for one, fall in explained.items() if one.mean == 0}
        for some in (about_0, explained):
            fitted = max(some, key=lambda one: explained[one] - _RIVAL * isinstance(one, TruncatedNormal))
            significance = SIGNIFICANCE if isinstance(fitted, Uniform) else _SIGNIFICANCE_ESTIMATED
            fits = kolmogorov_smirnov(fitted, summary.values)[1] > significance
            if fits and explained[fitted] >= summary.best - self.limit:
                source = f"values: {_family(fitted)}, estimated from {summary.count} entries"
                return Inference(fitted, source, self._sharp(fitted), doubt)
        reason = "unknown: values fit neither a constant nor a normal nor a uniform distribution"
        return Inference(None, reason, doubt=doubt)


def _formula(value: float, resolution: float) -> str:
    """How one number comes from a round one, as the logarithm of a temperature or the root of a size; "" if it doesn't.

    By chance one in a few hundred does.
    """
    if resolution > 1e-6 or not 0.01 < abs(value) < 100:
        return ""
    power = math.exp(value)
    if abs(float(f"{power:.2g}") / power - 1) <= 2 * resolution * max(1.0, abs(value)):
        return f"log {power:.2g}"
    square = value * value
    for root, size in ((f"sqrt({square:.0f})", square), (f"1 / sqrt({1 / square:.0f})", 1 / square)):
        if value > 0 and 1 < size < 5000 and abs(round(size) / size - 1) <= 4 * resolution:
            return root
    return ""


def _in_order(tensor: Tensor) -> bool:
    """Whether entries rise, or fall, all along each row, as those of draws hardly ever do (n of them: 2 / n!)."""
    rows = tensor.detach().squeeze()
    if rows.ndim == 0 or len(rows) == 0:
        return False
    rows = rows.reshape(-1, rows.shape[-1])[:_MOST_ROWS]
    if rows.shape[1] < MINIMUM:
        return False
    steps = rows.diff(dim=1)
    return bool((steps > 0).all() | (steps < 0).all())


def _family(distribution: Distribution) -> str:
    return {Uniform: "uniform", Normal: "normal", TruncatedNormal: "cut normal"}.get(type(distribution), "constant")


def spread(distribution: Distribution) -> float:
    """A scale: the standard deviation, before the cut where there is one; 0 for a constant."""
    if isinstance(distribution, Uniform):
        return (distribution.high - distribution.low) / math.sqrt(12)
    return distribution.std if isinstance(distribution, Normal | TruncatedNormal) else 0.0


def alike(one: Distribution, other: Distribution) -> bool:
    """Whether two distributions are of one family, not constant, and hardly differ."""
    if type(one) is not type(other) or not spread(one):
        return False
    scale = spread(one)
    return abs(spread(other) / scale - 1) <= _ALIKE and abs(one.mean - other.mean) <= _ALIKE * scale
