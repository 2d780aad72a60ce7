"""Selective weight reinitialization."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.functional import random, selection
from supple.functional.initial import Constant, sample
from supple.functional.utility import weight_gradient, weight_magnitude, weight_random
from supple.methods.base import Method
from supple.methods.checks import Setting, choice, restore
from supple.methods.due import Due
from supple.structure.overrides import Overrides

_ENTRIES = 1 << 18
"""How many entries are worked on at a time: few enough that their utilities and new values take little memory, many
enough that the calls take no time."""


class SWR(Method):
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

    With ``decay`` d above 0 the utility is a moving average over all steps, u = d u + (1 - d) u_now, set to zero for
    the whole tensor when the tensor is due. Parameters whose gradient is None in a step are left alone in that step.

    With gradient accumulation g is what accumulated in ``.grad``. Selection depends on the utilities of a tensor only
    up to a common factor, so a loss scaled for mixed precision selects the same entries. A tensor whose utilities are
    not all finite, as after an overflow, is left alone in that step.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        frequency: steps from one reinitialization to the next, 1 or more.
        factor: for threshold, multiple of the mean utility, 0 or more; for proportional, share of the entries, 0 to 1.
            At 0 nothing is ever reinitialized.
        utility: "gradient", "magnitude" or "random".
        pruning: "threshold" or "proportional".
        reinit: "resample" or "mean".
        decay: decay of the moving average of the utility, 0 (the utility of the step alone) <= decay < 1.
        initial: initial distributions by parameter name, pattern or module class, where they are not to be worked out;
            see :func:`supple.initial_distributions`.
        optimizer_state: "keep" or "fresh"; see :class:`supple.methods.Method`.
        seed: seed of the random numbers, or one a replica.

    Raises:
        ValueError: if a setting is out of range, or the initial distribution of a parameter is not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.SWR(model, optimizer, frequency=10, factor=1e-2)
        >>> for _ in range(10):
        ...     optimizer.zero_grad()
        ...     model(torch.zeros(3, 4)).sum().backward()
        ...     optimizer.step()
        ...     method.step()
        >>> int(method.reinitialized.total) >= 32  # with inputs of zero the first weights have no gradient
        True

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in
    neural networks" (arXiv 2508.00212, PMLR 330:776-806).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 2048,
        factor: Setting = 1e-5,
        utility: Literal["gradient", "magnitude", "random"] = "gradient",
        pruning: Literal["threshold", "proportional"] = "threshold",
        reinit: Literal["resample", "mean"] = "resample",
        decay: Setting = 0.0,
        initial: Overrides | None = None,
        optimizer_state: Literal["keep", "fresh"] = "keep",
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(model, optimizer, optimizer_state=optimizer_state, seed=seed)
        period = self._setting("frequency", frequency, 1, whole=True)
        at_most = 1.0 if choice("pruning", pruning, ("threshold", "proportional")) == "proportional" else math.inf
        self._factor = self._setting("factor", factor, 0, at_most).to(self.device)
        self.utility = choice("utility", utility, ("gradient", "magnitude", "random"))
        self.pruning = pruning
        self.reinit = choice("reinit", reinit, ("resample", "mean"))
        self.settings |= {"utility": utility, "pruning": pruning, "reinit": reinit}
        self._decay = self._setting("decay", decay, 0, 1 - 2.0**-24).to(self.device)
        self._due = Due(period, self._factor.cpu() > 0, self.device)
        self._take_initial(initial, self.parameters)
        self._average: dict[str, Tensor] = {}
        if bool((self._decay > 0).any()):
            self._average = {
                name: torch.zeros_like(weight_magnitude(self._rows(parameter)).reshape(self.replicas, -1))
                for name, parameter in self.parameters.items()
            }

    def gradients_needed(self) -> bool:
        """Whether the next step reads gradients."""
        return self.utility == "gradient" and (bool(self._average) or self._due(self.steps + 1) is not None)

    def due_next(self) -> Tensor:
        """In which replicas the next step may reinitialize something, bool [R] on the CPU."""
        return self._due.mask(self.steps + 1)

    def _act(self) -> None:
        rows = self._due(self.steps)
        if rows is None and not self._average:
            return
        names = [name for name, p in self.parameters.items() if p.grad is not None or self.utility != "gradient"]
        if not names:
            raise RuntimeError("SWR found no gradient: call step() after backward() and before optimizer.zero_grad()")
        for name in names:
            if self._average:
                average, decay = self._average[name], self._decay.to(self._average[name].dtype).unsqueeze(1)
                average.mul_(decay).add_((1 - decay) * self._utility(name, slice(None)))
            for part in () if rows is None else self._parts(name, rows):
                utility = self._average[name][part] if self._average else self._utility(name, part)
                self._act_on(name, part, utility)
                if self._average:
                    self._average[name][part] = 0

    def _parts(self, name: str, rows: slice | Tensor) -> Iterator[slice | Tensor]:
        """The replicas, a few at a time, so that what is computed on the way takes little memory."""
        replicas = self.replicas if isinstance(rows, slice) else len(rows)
        length = max(1, _ENTRIES * self.replicas // max(1, self.parameters[name].numel()))
        if length >= replicas:
            yield rows
            return
        for start in range(0, replicas, length):
            part = slice(start, min(replicas, start + length))
            yield part if isinstance(rows, slice) else rows[part]

    def _utility(self, name: str, rows: slice | Tensor) -> Tensor:
        """Utility of each entry, [rows, entries]."""
        weight = self._rows(self.parameters[name])
        if self.utility == "gradient":
            values = weight_gradient(weight[rows], self._gradient(name)[rows])
        elif self.utility == "magnitude":
            values = weight_magnitude(weight[rows])
        else:
            values = weight_random(self.seed[rows], self._purpose("utility", name), self.steps, weight.shape[1:])
        return values.reshape(len(values), -1)

    def _select(self, name: str, rows: slice | Tensor, utility: Tensor) -> Tensor:
        """Which entries to reinitialize, bool [rows, entries]."""
        if self.pruning == "threshold":
            return selection.threshold(utility, self._factor[rows])
        chance = random.uniform(self.seed[rows], self._purpose("count", name), self.steps, 1)[:, 0]
        count = selection.proportional_count(utility.shape[1], self._factor[rows], chance)
        return selection.lowest(utility, count * utility.sum(dim=1).isfinite())

    def _act_on(self, name: str, rows: slice | Tensor, utility: Tensor) -> None:
        shape = self._rows(self.parameters[name]).shape[1:]
        chosen = self._select(name, rows, utility).view(-1, *shape)
        distribution = self.distributions[name]
        new: Tensor | float = distribution.mean
        if self.reinit == "resample" and not isinstance(distribution, Constant):
            new = sample(distribution, self.seed[rows], self._purpose("resample", name), self.steps, shape)
        self._reinitialize(name, rows, chosen, new)

    def _state(self) -> dict[str, Any]:
        return {"average": {name: average.clone() for name, average in self._average.items()}}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        restore(self._average, state["average"])
