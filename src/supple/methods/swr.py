"""Selective weight reinitialization."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.functional import random, selection
from supple.functional.initial import Constant
from supple.functional.sharding import gathered
from supple.functional.utility import weight_gradient, weight_magnitude, weight_random
from supple.methods.base import About, Method
from supple.methods.checks import Setting, choice, restore
from supple.methods.chosen_parameters import Selectors
from supple.methods.drawing import Draw, New
from supple.methods.due import Due
from supple.structure.overrides import Overrides
from supple.structure.rules import padding_rows

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
                    w when the method was made              reinit="initial"

    With ``decay`` d above 0 the utility is a moving average over all steps, u = d u + (1 - d) u_now, set to zero for
    the whole tensor when the tensor is due. Parameters whose gradient is None in a step are left alone in that step.

    With gradient accumulation g is what accumulated in ``.grad``. Selection depends on the utilities of a tensor only
    up to a common factor, so a loss scaled for mixed precision selects the same entries. A tensor whose utilities are
    not all finite, as after an overflow, is left alone in that step, which :attr:`skipped` counts; its moving average
    stays as it is.

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
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        frequency: steps from one reinitialization to the next, 1 or more.
        factor: for threshold, multiple of the mean utility, 0 or more; for proportional, share of the entries, 0 to 1.
            At 0 nothing is ever reinitialized.
        utility: "gradient", "magnitude" or "random".
        pruning: "threshold" or "proportional".
        reinit: "resample", "mean" or "initial".
        decay: decay of the moving average of the utility, 0 (the utility of the step alone) <= decay < 1.
        include: which parameters it acts on: a name or pattern over names, a class of module (its direct parameters), a
            function of name and parameter, or several of these; None: all that train.
        exclude: which of them it does not act on, given in the same way.
        initial: initial distributions by parameter name, pattern or module class, where they are not to be worked out;
            see :func:`supple.initial_distributions`.
        optimizer_state: "keep" or "fresh"; see :class:`supple.methods.Method`.
        seed: seed of the random numbers, or one a replica.

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
        ...     model(torch.zeros(3, 4)).sum().backward()
        ...     optimizer.step()
        ...     method.step()
        >>> int(method.reinitialized.total) >= 32  # with inputs of zero the first weights have no gradient
        True

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for maintaining plasticity in
    neural networks" (arXiv 2508.00212, PMLR 330:776-806).
    """

    about = About(
        "swr",
        label="SWR",
        title="selective weight reinitialization",
        colour="#d55e00",
        dark="#f07f2a",
        strength=("factor",),
        source="Hernandez-Garcia et al. (arXiv 2508.00212)",
        common=("decay",),
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
        include: Selectors | None = None,
        exclude: Selectors | None = None,
        initial: Overrides | None = None,
        optimizer_state: Literal["keep", "fresh"] = "keep",
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(model, optimizer, include=include, exclude=exclude, optimizer_state=optimizer_state, seed=seed)
        period = self._setting("frequency", frequency, 1, whole=True)
        at_most = 1.0 if choice("pruning", pruning, ("threshold", "proportional")) == "proportional" else math.inf
        self._factor = self._setting("factor", factor, 0, at_most).to(self.device)
        self.utility = choice("utility", utility, ("gradient", "magnitude", "random"))
        self.pruning = pruning
        self.reinit = choice("reinit", reinit, ("resample", "mean", "initial"))
        self.settings |= {"utility": utility, "pruning": pruning, "reinit": reinit}
        self._decay = self._setting("decay", decay, 0, 1 - 2.0**-24).to(self.device)
        self._due = Due(period, self._factor.cpu() > 0, self.device)
        self._start: dict[str, Tensor] = {}
        if reinit == "initial":
            if initial is not None:
                raise ValueError(
                    'initial=... means nothing with reinit="initial", which goes back to the values at start'
                )
            self._start = {name: self._rows(parameter).clone() for name, parameter in self.parameters.items()}
            self.fixed_rows = padding_rows(self.model)
        else:
            self._take_initial(initial, self.parameters, only_means=reinit == "mean")
        self._saw_gradients = False
        self._average: dict[str, Tensor] = {}
        if bool((self._decay > 0).any()):
            self._average = {
                name: torch.zeros_like(weight_magnitude(self._rows(parameter)), memory_format=torch.contiguous_format)
                for name, parameter in self.parameters.items()
            }

    def gradients_needed(self) -> bool:
        """Whether the next step reads gradients."""
        return self.utility == "gradient" and (bool(self._average) or self._due(self.steps + 1) is not None)

    def due_next(self) -> Tensor:
        """In which replicas the next step may reinitialize something, bool [R] on the CPU."""
        return self._due.mask(self.steps + 1)

    def reinitializes(self) -> Tensor:
        """In which replicas it ever reinitializes something, bool [R] on the CPU."""
        return self._due.active

    def _act(self) -> None:
        rows = self._due(self.steps)
        # Whoever calls step() at the wrong place hears of it at the first step, not when the first one is due.
        first = not self._saw_gradients and not self.stacked and self.utility == "gradient"
        if rows is None and not self._average and not first:
            return
        names = [name for name, p in self.parameters.items() if p.grad is not None or self.utility != "gradient"]
        if not names:
            raise RuntimeError("SWR found no gradient: call step() after backward() and before optimizer.zero_grad()")
        if first:
            self._check_gradients(names)
        if rows is None and not self._average:
            return
        for name in names:
            known = self._update_average(name) if self._average else None
            for part in () if rows is None else self._parts(name, rows):
                if known is None:
                    self._act_on(name, part, self._utility(name, part))
                else:
                    average = self._average[name].view(self.replicas, -1)
                    self._act_on(name, part, average[part], known[part])
                    average[part] = average[part].masked_fill(known[part].unsqueeze(1), 0)

    def _check_gradients(self, names: Sequence[str]) -> None:
        """Checks once that gradients can be read, and on a CPU, where it costs no waiting, that they are not all 0."""
        gradients = [self._gradient(name) for name in names]
        self._saw_gradients = True
        if self.device.type == "cpu" and not self.sharded and not any(bool(gradient.any()) for gradient in gradients):
            warnings.warn(
                "SWR found only gradients of 0, so that every utility is 0. Call step() before optimizer.zero_grad(), "
                "also with set_to_none=False",
                UserWarning,
                stacklevel=5,
            )

    def _update_average(self, name: str) -> Tensor:
        """Adds the step's utilities to the average, except in replicas where they are not all finite.

        One overflow would stay in an average until it starts again.

        Args:
            name: the parameter.

        Returns:
            bool [R], in which replicas they are all finite.
        """
        average, utility = self._average[name].view(self.replicas, -1), self._utility(name, slice(None))
        known = self._mean(name, utility).isfinite()
        self._skips.add(known)
        decay = self._decay.to(average.dtype).unsqueeze(1)
        average.copy_(torch.where(known.unsqueeze(1), average * decay + (1 - decay) * utility, average))
        return known

    def _parts(self, name: str, rows: slice | Tensor) -> Iterator[slice | Tensor]:
        """The replicas, a few at a time, so that what is computed on the way takes little memory."""
        replicas = range(self.replicas)[rows] if isinstance(rows, slice) else rows
        length = max(1, _ENTRIES * self.replicas // max(1, self.parameters[name].numel()))
        if length >= len(replicas):
            yield rows
            return
        for start in range(0, len(replicas), length):
            part = replicas[start : start + length]
            yield slice(part.start, part.stop, part.step) if isinstance(part, range) else part

    def _utility(self, name: str, rows: slice | Tensor) -> Tensor:
        """Utility of each entry, [rows, entries]."""
        weight = self._rows(self.parameters[name])
        if self.utility == "gradient":
            values = weight_gradient(weight[rows], self._gradient(name)[rows])
        elif self.utility == "magnitude":
            values = weight_magnitude(weight[rows])
        elif self.blocks[name].mesh is None:
            values = weight_random(self.seed[rows], self._purpose("utility", name), self.steps, weight.shape[1:])
        else:
            index = self.blocks[name].every_index(self.device).unsqueeze(0)
            values = random.uniform_at(
                self.seed.view(-1, *(1,) * (index.ndim - 1)), self._purpose("utility", name), self.steps, index
            )
        return values.reshape(len(values), -1)

    def _mean(self, name: str, utility: Tensor) -> Tensor:
        """Mean utility of a whole tensor in each replica; not finite if one utility is not."""
        block = self.blocks[name]
        return block.total(utility.sum(dim=1)) / block.whole.numel() if block.mesh else utility.mean(dim=1)

    def _select(self, name: str, rows: slice | Tensor, utility: Tensor, known: Tensor | None) -> Tensor:
        """Which entries to reinitialize, bool [rows, entries]; none where the utilities of the step are not known."""
        block = self.blocks[name]
        mean = self._mean(name, utility)
        if known is None:
            self._skips.add(mean.isfinite(), rows)
        else:
            mean = mean.masked_fill(~known, torch.nan)
        finite = mean.isfinite()
        if self.pruning == "threshold":
            return selection.threshold(utility, self._factor[rows], mean)
        chance = random.uniform(self.seed[rows], self._purpose("count", name), self.steps, 1)[:, 0]
        count = selection.proportional_count(block.whole.numel(), self._factor[rows], chance) * finite
        if block.mesh is None:
            return selection.lowest(utility, count)
        # Which entries are the lowest shows only when all are seen together.
        whole = gathered(block.join(utility.view(1, *block.shape)))
        chosen = selection.lowest(whole.flatten(1), count).view(1, *block.whole)
        return block.of(chosen, leading=1).flatten(1)

    def _act_on(self, name: str, rows: slice | Tensor, utility: Tensor, known: Tensor | None = None) -> None:
        shape = self._rows(self.parameters[name]).shape[1:]
        chosen = self._select(name, rows, utility, known).reshape(len(utility), *shape)
        self._reinitialize(name, rows, chosen, self._new(name, rows))

    def _new(self, name: str, rows: slice | Tensor) -> New:
        """What chosen entries become."""
        if self.reinit == "initial":
            return self._start[name][rows]
        distribution = self.distributions[name]
        if self.reinit == "mean" or isinstance(distribution, Constant):
            return distribution.mean
        return Draw(distribution, self.seed[rows], self._purpose("resample", name), self.steps, self.blocks[name])

    def _kept(self) -> dict[str, dict[str, Tensor]]:
        return {"average": self._average, "start": self._start}

    def _state(self) -> dict[str, Any]:
        return {
            kind: {name: self.blocks[name].join(tensor.clone()) for name, tensor in tensors.items()}
            for kind, tensors in self._kept().items()
        }

    def _optional(self) -> dict[str, Any]:
        return super()._optional() | ({} if self._start else {"start": {}})

    def _load_state(self, state: Mapping[str, Any]) -> None:
        own = {(kind, name): tensor for kind, tensors in self._kept().items() for name, tensor in tensors.items()}
        saved = {(kind, name): tensor for kind in self._kept() for name, tensor in state[kind].items()}
        restore(
            own, {key: self.blocks[key[1]].split(tensor) if key in own else tensor for key, tensor in saved.items()}
        )
