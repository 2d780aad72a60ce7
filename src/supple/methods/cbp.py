"""Continual backpropagation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional import random
from supple.methods.layer import Layer
from supple.methods.settings import About
from supple.methods.units import CENTRED, SharedUnits, UnitMethod, UnitUtility
from supple.methods.when import Replacements, Rows, rows_of
from supple.optim.replicated import Setting

CBPUtility = (
    UnitUtility | Literal["adaptation", "zero_contribution", "adaptable_contribution", "feature_by_input", "random"]
)


class CBP(UnitMethod):
    """Continual backpropagation: at a steady rate, replaces the hidden units of lowest utility.

    For each hidden layer on its own, at each step::

        age += 1 for each unit;  eligible: age > maturity
        accumulator += replacement_rate * (number eligible)
        k = floor(accumulator);  accumulator -= k
        the k eligible units of lowest utility u are replaced, where
        u = mean|h| * mean|W_out|                     utility="contribution"
            mean|W_out|                               utility="magnitude"
            mean|h|                                   utility="activation"
            |sum(W_out * dL/dW_out)|                  utility="gradient"
            1 / mean|W_in|                            utility="adaptation"
            mean|h - m| * mean|W_out|                 utility="zero_contribution"
            mean|h - m| * mean|W_out| / mean|W_in|    utility="adaptable_contribution"
            mean|h - m| / mean|W_in|                  utility="feature_by_input"
            a random number                           utility="random"

    with h the unit's output as the next layer receives it, averaged over the step's batch, W_out the weights that
    leave the unit, W_in those that make it, and m the mean of h over the batch, averaged over the unit's life as the
    utility is (``decay``); each forward pass, of each process, has the mean of its own examples. Among units of equal
    utility, as dead ones are, random numbers decide. Replacing a unit redraws its incoming weights from their initial
    distribution and sets its bias, its outgoing weights and its age to 0; a normalization that follows gets its initial
    scale and shift, and batch normalization a running mean of 0 and a running variance of 1.

    Of two units of neighbouring layers that are replaced at once, the later one's fresh draw wins: the weight between
    them is drawn again, and is 0 with ``neighbours="zero"``. The program of Hernandez-Garcia et al. (2025) acts before
    the optimizer's step instead, from the last layer to the first, while gradients pass through the new weights:
    ``order="in_backward"``, which :class:`supple.methods.units.UnitMethod` describes.

    In a layer that does not run in a step (layer drop, an expert that was not chosen) nothing is replaced and no unit
    grows older. What is due there comes at the next step in which it runs, so that over time as many units are replaced
    as if it always ran, but what came due in the first 1,000 steps of a longer rest at most.

    The version of Dohare et al. (2024) is ``decay=0.99, counting="draw", absorb_mean=True``: the utility is then a
    moving average with bias correction, (sum of (1 - decay) decay^i u_(t-i)) / (1 - decay^age); k is
    floor(rate * eligible) plus one with the probability of the rest; and the bias of each layer that reads a replaced
    unit grows by W_out times the unit's mean output (averaged and corrected in the same way), so that its output stays
    the same on average.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, to treat what it remembers of replaced units.
        maturity: steps during which a new unit is protected, 0 or more.
        replacement_rate: share of the eligible units replaced a step, 0 to 1; at 0 nothing is ever replaced.
        utility: one of those above.
        decay: decay of the moving average of the utility, 0 (the utility of the step alone) <= decay < 1.
        counting: "accumulate" or "draw".
        absorb_mean: whether the reading layers' biases absorb the mean contribution of a replaced unit.
        shared: as of every :class:`supple.methods.units.UnitMethod`: ``units``, ``features``, ``initial``,
            ``optimizer_state``, ``neighbours``, ``order``, ``process_group``, ``seed``.

    Raises:
        ValueError: if a setting is out of range, the hidden units are not found, or the initial distribution of an
            incoming weight is not known, or several processes run and ``process_group`` is missing.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.CBP(model, optimizer, maturity=3, replacement_rate=0.25)
        >>> for _ in range(4):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(5, 4)).sum().backward()
        ...     optimizer.step()
        ...     method.step()
        >>> int(method.reinitialized.total)  # a quarter of eight units, at the first step after the third
        2

    Source: Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood and Sutton, "Loss of plasticity in deep continual learning"
    (Nature 632, 2024), algorithm 1; without moving average, with accumulation and other utilities: Hernandez-Garcia et
    al. (arXiv 2508.00212). The utilities of h - m and of W_in are those of the program of Dohare et al.,
    github.com/shibhansh/loss-of-plasticity, lop/algos/gnt.py, of which its permuted MNIST takes
    "adaptable_contribution"; it works out the utilities of all layers before it replaces units of any.
    """

    utilities = (*UnitMethod.utilities, "adaptation", *CENTRED, "random")
    about = About(
        "cbp",
        label="CBP",
        title="continual backpropagation",
        colour="#009e73",
        dark="#22bd92",
        strength=("replacement_rate",),
        ranges={"maturity": (5, 1000), "replacement_rate": (1e-5, 1e-2)},
        source="Dohare et al. (Nature 632, 2024), algorithm 1",
        needs="features",
        keeps="a number or two a unit",
        since="0.1",
        common=("decay",),
        cost=(0.009, 0.003),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        maturity: Setting = 500,
        replacement_rate: Setting = 1e-4,
        utility: CBPUtility = "contribution",
        decay: Setting = 0.0,
        counting: Literal["accumulate", "draw"] = "accumulate",
        absorb_mean: bool = False,
        **shared: Unpack[SharedUnits],
    ) -> None:
        super().__init__(model, optimizer, utility=utility, **shared)
        matures = self.setting("maturity", maturity, 0, whole=True)
        rate = self.setting("replacement_rate", replacement_rate, 0, 1)
        self.maturity = matures.to(self.device).unsqueeze(1)
        self.decay = self.setting("decay", decay, 0, 1 - 2.0**-24).to(self.device).unsqueeze(1)
        self.watches = bool((self.decay > 0).any())
        self.option("counting", counting, ("accumulate", "draw"))
        self.absorbs = self.switch("absorb_mean", absorb_mean)
        purposes = [random.purpose(*self.moment, "count", layer.group.name) for layer in self.layers]
        draw = (self.seed.cpu(), purposes) if counting == "draw" else None
        self.when = Replacements([layer.group.size for layer in self.layers], matures, rate, draw)
        self.listen(means=absorb_mean)
        averaged = self.layers if self.watches else []
        self.per_unit = {
            "born": [layer.zeros(dtype=torch.int64) for layer in self.layers],
            "average": [layer.zeros() for layer in averaged],
            "mean": [layer.zeros(means=-1) for layer in averaged if absorb_mean],
        }
        if utility in CENTRED and self.watches:
            self.per_unit["centre"] = [layer.zeros(means=1) for layer in self.layers]

    def due_rows(self) -> list[Rows | None]:
        """Says in which replicas the next step replaces units of each layer."""
        if not self.when.due:
            return [None] * len(self.layers)
        return [*map(rows_of, self.when.counts > 0, repeat(self.device))]

    def watch(self, layer: Layer) -> None:
        """Adds the step's utilities and mean outputs to their averages, but for those that are not finite."""
        values = {"average": layer.utility()}
        if "centre" in self.per_unit:
            values["centre"] = layer.means(1)
        if self.absorbs:
            values["mean"] = layer.means()
        self.skip(torch.stack([~value.flatten(1).isfinite().all(dim=1) for value in values.values()]).any(dim=0))
        for kind, value in values.items():
            average = self.per_unit[kind][layer.number]
            decay = self.decay.to(average.dtype).view(-1, *(1,) * (average.ndim - 1))
            average.copy_(torch.where(value.isfinite(), average * decay + (1 - decay) * value, average))
        self._centre(layer)

    def _centre(self, layer: Layer) -> None:
        """Says what is subtracted from a layer's outputs at the next step: their average with that step."""
        if "centre" not in self.per_unit or (reading := layer.readers[0].centre) is None:
            return
        share, offset = reading
        weight = (1 - self.decay ** (self.steps + 1 - self.per_unit["born"][layer.number]))[..., None, None]
        decay = self.decay[..., None, None]
        share.copy_((1 - decay) / weight)
        offset.copy_(self.per_unit["centre"][layer.number] * (decay / weight))

    def rest(self, layer: Layer) -> None:
        """Keeps the ages of a layer that did not run.

        Args:
            layer: the layer.
        """
        self.per_unit["born"][layer.number] += 1

    def rule(self, layer: Layer) -> None:
        """Replaces the eligible units of lowest utility of one layer."""
        born, counts = self.per_unit["born"][layer.number], self.when.counts[layer.number]
        utility = self._corrected("average", layer) if self.watches else layer.utility()
        eligible = self.steps - born[layer.rows] > self.maturity[layer.rows]
        if self.absorbs:
            means = self._corrected("mean", layer) if self.watches else layer.means()
            utility = utility.masked_fill(~means.isfinite().flatten(2).all(dim=2), torch.nan)
        chosen, place = layer.lowest(utility, eligible, counts[counts > 0])
        if self.absorbs:
            layer.absorb(chosen, means[place, chosen.unit])
        layer.replace(chosen)
        chosen.put(born, self.steps)
        for kind in [kind for kind in self.per_unit if kind != "born"]:
            for average in self.per_unit[kind][layer.number : layer.number + 1]:
                chosen.put(average, 0)
        if self.watches:
            self._centre(layer)

    def _corrected(self, kind: str, layer: Layer) -> Tensor:
        """A moving average in the due replicas, divided by 1 - decay^age, the weight its terms have together."""
        average, born = (self.per_unit[name][layer.number][layer.rows] for name in (kind, "born"))
        weight = (1 - self.decay[layer.rows] ** (self.steps - born)).to(average.dtype)
        return average / weight.view(*weight.shape, *(1,) * (average.ndim - 2))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped; see :meth:`supple.Method.state_dict`."""
        return super().state_dict() | {"schedule": self.when.state_dict()}

    def _follow_seed(self) -> None:
        self.when.draw_with(self.seed.cpu())

    def _load(self, state: Mapping[str, Any]) -> None:
        # What features are read next, which is worked out last, follows from the schedule.
        if state["schedule"]["step"] != self.steps + 1:
            raise ValueError(f"schedule.step of the state is {state['schedule']['step']} after {self.steps} steps")
        self.when.load_state_dict(state["schedule"])
        super()._load(state)
        for layer in self.layers:
            self._centre(layer)
