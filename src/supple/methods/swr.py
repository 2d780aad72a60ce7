"""Selective weight reinitialization."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import below_threshold, proportional_count, weight_gradient, weight_magnitude
from supple.methods.arguments import choice
from supple.methods.base import Required
from supple.methods.settings import About, SharedReplacing
from supple.methods.weights import New, WeightMethod, Weights
from supple.methods.when import Every
from supple.optim.replicated import Setting

REQUIRED: dict[str, Required] = {"resample": "distributions", "mean": "means", "initial": "nothing"}
"""What has to be known of initial values for each kind of new value."""


_LATEST = 1000
"""Steps of a parameter that did not run after which no more is to be caught up with."""


class SWR(WeightMethod):
    """Selective weight reinitialization: every ``frequency`` steps, reinitializes the least useful weights.

    For each parameter tensor w on its own (weights, biases, normalization scales and shifts, the output layer too),
    with g the gradient of the step's loss and w the value after the optimizer's update::

        u = |w g|                                   utility="gradient"
            |w|                                     utility="magnitude"
            uniform noise                           utility="random"
        chosen = u <= factor * mean(u)              pruning="threshold"
                 the lowest k entries of u, with    pruning="proportional"
                 k = floor(factor * numel) + Bernoulli(frac(factor * numel))
        w[chosen] = a draw from w's initial distribution    reinit="resample"
                    the mean of that distribution           reinit="mean"
                    w when the method was made              reinit="initial"

    With ``decay`` d above 0 the utility is a moving average over all steps, u = d u + (1 - d) u_now, set to zero for
    the whole tensor when the tensor is due.

    A tensor without a gradient in a step in which it is due did not run (layer drop, an expert that was not chosen) and
    is left alone; when it is due again ``factor`` counts once more for each turn that it missed, of the last 1,000
    steps. With ``utility="gradient"`` the same holds of one whose utilities are all 0, as of an expert that was called
    with no example: nothing can be told of its entries. It is also what a layer of dead units looks like;
    ``when_all_zero="replace"`` takes the rule by its word and replaces all of it.

    With gradient accumulation g is what accumulated in ``.grad``. Selection depends on the utilities of a tensor only
    up to a common factor, so a loss scaled for mixed precision selects the same entries. Where the proportional choice
    ends among entries of equal utility, as all those of utility 0 are, random numbers say which are chosen. A tensor
    whose utilities are not all finite, as after an overflow, is left alone in that step, which :attr:`skipped` counts;
    its moving average stays as it is.

    For fine-tuning, ``reinit="initial"`` goes back to the values at the start, the pretrained ones; nothing has to be
    known of initial distributions then. It keeps one copy of the parameters it acts on, in their type and beside them,
    and saves it in :meth:`state_dict`. With ``reinit="mean"`` too a pretrained model will do: where the distribution is
    not known, the mean is that of PyTorch's rule for the layer, 0 for weights and biases and 1 for the scales of
    normalizations.

    An embedding of many rare tokens gets a gradient of exactly 0 in most rows of most steps, and entries of utility 0
    are always chosen by the threshold: leave it out with ``exclude=torch.nn.Embedding`` if that is not wanted.

    If parameters are sharded (``fully_shard``), the mean is that of the whole tensor, which takes one number from every
    process; the proportional choice gathers the utilities of one tensor at a time.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, to treat what it remembers of replaced entries.
        frequency: steps from one reinitialization to the next, 1 or more.
        factor: for threshold, multiple of the mean utility, 0 or more; for proportional, share of the entries, 0 to 1.
            At 0 nothing is ever reinitialized.
        utility: "gradient", "magnitude" or "random".
        pruning: "threshold" or "proportional".
        reinit: "resample", "mean" or "initial".
        decay: decay of the moving average of the utility, 0 (the utility of the step alone) <= decay < 1.
        when_all_zero: "keep" or "replace": what becomes of a tensor whose gradients are all 0.
        shared: ``include``, ``exclude``, ``initial``, ``optimizer_state``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, no parameter is left, or the initial distribution of a parameter is
            not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.SWR(model, optimizer, frequency=10, factor=1e-2)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(3, 4).tril()).sum().backward()  # the last input is always 0
        ...     optimizer.step()
        ...     method.step()
        >>> int(method.reinitialized.total) >= 8  # so the weights of it have no gradient
        True

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in
    neural networks" (arXiv 2508.00212, PMLR 330:776-806).
    """

    replaces = True
    about = About(
        "swr",
        label="SWR",
        title="selective weight reinitialization",
        colour="#d55e00",
        dark="#f07f2a",
        strength=("factor",),
        ranges={"frequency": (64, 4096), "factor": (1e-6, 0.1)},
        source="Hernandez-Garcia et al. (arXiv 2508.00212)",
        needs="gradients",
        keeps="nothing; with decay a number a weight",
        since="0.1",
        common=("decay",),
        cost=(0, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 2048,
        factor: Setting = 1e-5,
        utility: Literal["gradient", "magnitude", "random"] = "gradient",
        pruning: Literal["threshold", "proportional"] = "threshold",
        reinit: Literal["resample", "mean", "initial"] = "resample",
        decay: Setting = 0.0,
        when_all_zero: Literal["keep", "replace"] = "keep",
        **shared: Unpack[SharedReplacing],
    ) -> None:
        if reinit == "initial" and shared.get("initial") is not None:
            raise ValueError('initial=... means nothing with reinit="initial", which goes back to the values at start')
        self.required = REQUIRED[choice("reinit", reinit, tuple(REQUIRED))]
        self.takes_up = reinit != "initial"
        super().__init__(model, optimizer, **shared)
        period = self.setting("frequency", frequency, 1, whole=True)
        factors = self.setting("factor", factor, 0, 1.0 if pruning == "proportional" else math.inf)
        self.factor = factors.to(self.device)
        self.utility = self.option("utility", utility, ("gradient", "magnitude", "random"))
        self.pruning = self.option("pruning", pruning, ("threshold", "proportional"))
        self.reinit = self.option("reinit", reinit, REQUIRED)
        self.decay = self.setting("decay", decay, 0, 1 - 2.0**-24).to(self.device)
        self.when_all_zero = self.option("when_all_zero", when_all_zero, ("keep", "replace"))
        self.when = Every(period, factors > 0, self.device)
        self._most = (_LATEST // period).clamp(min=1).to(self.device)
        self.reads_gradients = utility == "gradient"
        self.watches = bool((self.decay > 0).any())
        self.kept = {"average": {}, "start": {}, "behind": {}}
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps an average of utilities, the values themselves, and how many turns were missed, as far as needed."""
        kept = {"behind": torch.zeros_like(self._most)} if self.reads_gradients else {}
        if self.watches:
            kept["average"] = weight_magnitude(w.value).zero_().contiguous()
        return kept | ({"start": w.value.clone()} if self.reinit == "initial" else {})

    def _utilities(self, w: Weights) -> Tensor:
        """Works out how useful each entry is: [rows, ...]."""
        if self.utility == "gradient":
            return weight_gradient(w.value, w.grad)
        return weight_magnitude(w.value) if self.utility == "magnitude" else w.uniform("utility")

    def watch(self, w: Weights) -> None:
        """Adds the step's utilities to the average, but where not all are finite: an overflow would stay in it."""
        average, utility = w.kept("average"), self._utilities(w)
        self._now = w.mean(utility)
        self.skip(~self._now.isfinite())
        decay = w.each(self.decay).to(average.dtype)
        added = average * decay + (1 - decay) * utility
        average.copy_(torch.where(w.each(self._now.isfinite() & self._ran(self._now)), added, average))

    def _ran(self, mean: Tensor) -> Tensor:
        """Whether a parameter ran, as far as its mean utility in a step tells: bool of the same shape."""
        told = self.reads_gradients and self.when_all_zero == "keep"
        return mean != 0 if told else torch.ones_like(mean, dtype=torch.bool)

    def rest(self, w: Weights) -> None:
        """Notes that a parameter missed its turn."""
        self.kept["behind"][w.name][w.rows] += 1

    def rule(self, w: Weights) -> None:
        """Reinitializes the least useful entries."""
        utility = w.kept("average") if self.watches else self._utilities(w)
        mean = now = w.mean(utility)
        if self.watches:
            now = self._now[w.rows]
            mean = mean.masked_fill(~now.isfinite(), torch.nan)
        else:
            self.skip(~mean.isfinite(), w.rows)
        factor, acts = self.factor[w.rows], self._ran(now) & mean.isfinite()
        if self.reads_gradients:
            behind = self.kept["behind"][w.name]
            factor = factor * (1 + torch.minimum(behind, self._most)[w.rows])
            behind[w.rows] = (behind[w.rows] + ~self._ran(now)).masked_fill(acts, 0)
        if self.pruning == "threshold":
            mean = mean.masked_fill(~acts, torch.nan)
            chosen = below_threshold(utility.reshape(len(mean), -1), factor, mean).view(utility.shape)
        else:
            count = proportional_count(w.block.whole.numel(), factor.clamp(max=1), w.chance("count"))
            chosen = w.lowest(utility, count * acts)
        new: New = w.draw
        if self.reinit == "initial":
            new = w.kept("start")
        elif self.reinit == "mean":
            new = w.center
        w.replace(chosen, new)
        if self.watches:
            average = self.kept["average"][w.name]
            average[w.rows] = average[w.rows].masked_fill(acts.view(-1, *(1,) * (average.ndim - 1)), 0)
