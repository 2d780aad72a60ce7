"""Continual backpropagation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.functional.selection import lowest_order
from supple.functional.utility import precise
from supple.methods.base import About
from supple.methods.checks import Setting, choice, restore
from supple.methods.due import replicas_at, rows_of
from supple.methods.features import FeatureReader
from supple.methods.pairs import unless_all, where_valid
from supple.methods.schedule import ReplacementSchedule
from supple.methods.unit_method import UnitMethod, UnitUtility
from supple.structure.description import Consumer, UnitGroup, Units
from supple.structure.overrides import Overrides


class CBP(UnitMethod):
    """Continual backpropagation: at a steady rate, replaces the hidden units of lowest utility.

    For each hidden layer on its own, at each step::

        age += 1 for each unit;  eligible: age > maturity
        accumulator += replacement_rate * (number eligible)
        k = floor(accumulator);  accumulator -= k
        the k eligible units of lowest utility u are replaced, where
        u = mean|h| * mean|W_out|         utility="contribution"
            mean|W_out|                   utility="magnitude"
            mean|h|                       utility="activation"
            |sum(W_out * dL/dW_out)|      utility="gradient"

    with h the unit's output as the next layer receives it, averaged over the step's batch, and W_out the weights that
    leave the unit. Replacing a unit redraws its incoming weights from their initial distribution and sets its bias, its
    outgoing weights and its age to 0; a normalization that follows gets its initial scale and shift, and batch
    normalization a running mean of 0 and a running variance of 1.

    The version of Dohare et al. (2024) is ``decay=0.99, counting="draw", absorb_mean=True``: the utility is then a
    moving average with bias correction, (sum of (1 - decay) decay^i u_(t-i)) / (1 - decay^age); k is
    floor(rate * eligible) plus one with the probability of the rest; and the bias of each layer that reads a replaced
    unit grows by W_out times the unit's mean output (averaged and corrected in the same way), so that its output stays
    the same on average.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        maturity: steps during which a new unit is protected, 0 or more.
        replacement_rate: share of the eligible units replaced a step, 0 to 1; at 0 nothing is ever replaced.
        utility: "contribution", "magnitude", "activation" or "gradient".
        decay: decay of the moving average of the utility, 0 (the utility of the step alone) <= decay < 1.
        counting: "accumulate" or "draw".
        absorb_mean: whether the reading layers' biases absorb the mean contribution of a replaced unit.
        units: the hidden units; None: found by :func:`supple.units`.
        features: "before_norm" or "after_norm", where a normalization follows the activation.
        initial: initial distributions where they are not to be worked out; see :func:`supple.initial_distributions`.
        optimizer_state: "keep" or "fresh"; see :class:`supple.methods.Method`.
        process_group: the processes that train this network together, where ``model`` does not tell; see
            :class:`supple.methods.unit_method.UnitMethod`.
        seed: seed of the random numbers, or one a replica.

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
    al. (arXiv 2508.00212).
    """

    about = About(
        "cbp",
        label="CBP",
        title="continual backpropagation",
        colour="#009e73",
        dark="#22bd92",
        strength=("replacement_rate",),
        source="Dohare et al. (Nature 632, 2024), algorithm 1",
        common=("decay",),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        maturity: Setting = 500,
        replacement_rate: Setting = 1e-4,
        utility: UnitUtility = "contribution",
        decay: Setting = 0.0,
        counting: Literal["accumulate", "draw"] = "accumulate",
        absorb_mean: bool = False,
        units: Units | Sequence[UnitGroup] | None = None,
        features: Literal["before_norm", "after_norm"] = "before_norm",
        initial: Overrides | None = None,
        optimizer_state: Literal["keep", "fresh"] = "keep",
        process_group: Any = None,
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            utility=utility,
            units=units,
            features=features,
            initial=initial,
            optimizer_state=optimizer_state,
            process_group=process_group,
            seed=seed,
        )
        matures = self._setting("maturity", maturity, 0, whole=True)
        rate = self._setting("replacement_rate", replacement_rate, 0, 1)
        self._maturity = matures.to(self.device).unsqueeze(1)
        self._decay = self._setting("decay", decay, 0, 1 - 2.0**-24).to(self.device).unsqueeze(1)
        self._moving = bool((self._decay > 0).any())
        self.settings |= {"counting": choice("counting", counting, ("accumulate", "draw")), "absorb_mean": absorb_mean}
        draw = (self.seed.cpu(), [self._purpose("count", group.name) for group in self.groups])
        sizes = [group.size for group in self.groups]
        self._schedule = ReplacementSchedule(sizes, matures, rate, draw if counting == "draw" else None)
        self._born = [torch.zeros(self.replicas, n, dtype=torch.int64, device=self.device) for n in sizes]
        dtypes = [precise(self._tensors[group.consumers[0].weight.tensor].detach()).dtype for group in self.groups]
        self._average = (
            [torch.zeros_like(born, dtype=dtype) for born, dtype in zip(self._born, dtypes, strict=True)]
            if self._moving
            else []
        )
        self._due_rows: list[slice | Tensor | None] = []
        self._mean_readers: list[FeatureReader] = []
        self._mean: list[Tensor | None] = [None] * len(self.groups)
        self._absorbs = absorb_mean
        self._attach()
        if absorb_mean:
            self._mean_readers = [self._reader(group, True, _identity) for group in self.groups]
        self._look_ahead()

    def _reads_means(self) -> bool:
        return self._absorbs

    def _readers_of(self, number: int) -> list[FeatureReader]:
        return super()._readers_of(number) + self._mean_readers[number : number + 1]

    def due_next(self) -> Tensor:
        """In which replicas the next step reinitializes something, bool [R] on the CPU."""
        return (self._schedule.counts > 0).any(dim=0)

    def reinitializes(self) -> Tensor:
        """In which replicas it ever reinitializes something, bool [R] on the CPU."""
        return self._schedule.active

    def _rows_next(self, number: int) -> slice | Tensor | None:
        return slice(None) if self._moving else self._due_rows[number]

    def _look_ahead(self) -> None:
        due = self._schedule.due
        self._due_rows = [rows_of(counts > 0, self.device) if due else None for counts in self._schedule.counts]
        super()._look_ahead()

    def _act(self) -> None:
        if self._moving or self._schedule.due:
            self._share_features()
            for number, rows in enumerate(self._due_rows):
                if self._moving or rows is not None:
                    with self._opened(self.groups[number]):
                        self._replace_lowest(number, rows)
        self._schedule.advance()
        self._look_ahead()

    def _replace_lowest(self, number: int, rows: slice | Tensor | None) -> None:
        """Brings averages of a layer up to date, and replaces units in the given replicas (None: in none)."""
        mean = self._features(number, self._mean_readers[number]) if self._mean_readers else None
        if self._moving:
            self._update_averages(number, mean)
        if rows is None:
            return
        utility = (
            self._corrected(self._average[number], number)[rows] if self._moving else self._unit_utility(number, rows)
        )
        finite = utility.isfinite()
        # Eligible units come first whatever their utility, so that their number is always enough.
        utility = torch.nan_to_num(utility, nan=torch.finfo(utility.dtype).max)
        eligible = self.steps - self._born[number][rows] > self._maturity[rows]
        order = lowest_order(utility.masked_fill(~eligible, torch.inf))
        counts = self._schedule.counts[number]
        counts = counts[counts > 0]
        local, place = torch.where(torch.arange(int(counts.max())) < counts.unsqueeze(1))
        local, place = (t.to(self.device, non_blocking=True) for t in (local, place))
        chosen = order[local, place]
        # Units whose utility is not finite come last, and if it is their turn it passes: nothing is known of them.
        valid = unless_all(finite[local, chosen])
        if valid is not None:
            invalid = torch.zeros_like(finite[:, 0], dtype=torch.int64).index_add_(0, local, (~valid).long())
            self._skips.add(invalid == 0, rows)
        replicas = replicas_at(rows, local)
        if mean is not None:
            corrected = self._corrected(self._mean[number], number)[rows] if self._moving else mean
            self._absorb(number, replicas, chosen, corrected[local, chosen], valid)
        self._replace(self.groups[number], replicas, chosen, valid)
        for kept, new in ((self._born[number], self.steps), *((average, 0) for average in self._averages(number))):
            kept[replicas, chosen] = where_valid(kept, replicas, chosen, new, valid)

    def _averages(self, number: int) -> list[Tensor]:
        mean = self._mean[number]
        return [*self._average[number : number + 1], *([] if mean is None else [mean])] if self._moving else []

    def _update_averages(self, number: int, mean: Tensor | None) -> None:
        utility = self._unit_utility(number, slice(None))
        self._skips.add(utility.isfinite().all(dim=1))
        self._average[number].copy_(self._averaged(self._average[number], utility))
        if mean is not None:
            old = self._mean[number]
            self._mean[number] = self._averaged(torch.zeros_like(mean) if old is None else old, mean)

    def _averaged(self, average: Tensor, value: Tensor) -> Tensor:
        """A moving average with one more value; where the value is not finite, the average as it is."""
        decay = self._decay.to(average.dtype).view(-1, *(1,) * (average.ndim - 1))
        return torch.where(value.isfinite(), average * decay + (1 - decay) * value, average)

    def _corrected(self, average: Tensor | None, number: int) -> Tensor:
        """A moving average divided by 1 - decay^age, the weight its terms have together."""
        assert average is not None
        age = self.steps - self._born[number]
        weight = (1 - self._decay**age).to(average.dtype)
        return average / weight.view(*weight.shape, *(1,) * (average.ndim - 2))

    def _absorb(self, number: int, rows: Tensor, chosen: Tensor, means: Tensor, valid: Tensor | None) -> None:
        """Adds the mean contribution of units about to be replaced to the biases of the layers that read them.

        Args:
            number: number of the layer.
            rows: int64 [M], the replica of each unit.
            chosen: int64 [M], the unit.
            means: [M, copies, repeat], its mean output.
            valid: bool [M], whether it is really to be replaced; None: all are.
        """
        group = self.groups[number]
        for consumer in group.consumers:
            if consumer.bias is not None and self._tensors[consumer.bias].requires_grad:
                bias = self._tensor(consumer.bias)
                added = self._contribution(group, consumer, rows, chosen, means).to(bias.dtype)
                bias.index_add_(0, rows, added if valid is None else torch.where(valid.unsqueeze(1), added, 0))

    def _contribution(
        self, group: UnitGroup, consumer: Consumer, rows: Tensor, chosen: Tensor, means: Tensor
    ) -> Tensor:
        """What each unit adds to a reading layer's outputs on average, [M, outputs]."""
        weight = self._view(consumer.weight, group)[rows, chosen]
        before = consumer.weight.dim % (self._tensors[consumer.weight.tensor].ndim - self.stacked)
        after = weight.ndim - 3 - before
        values = means.view(-1, *(1,) * before, *means.shape[1:], *(1,) * after)
        # Dimensions are [M, before..., copies, repeat, after...]; the first besides these three counts outputs.
        outputs = 1 if before else 3
        return (weight * values).sum(dim=[dim for dim in range(1, weight.ndim) if dim != outputs])

    def _state(self) -> dict[str, Any]:
        return super()._state() | {
            "schedule": self._schedule.state_dict(),
            "born": [born.clone() for born in self._born],
            "average": [average.clone() for average in self._average],
            "mean": [mean if mean is None else mean.clone() for mean in self._mean],
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        if not self._mean_readers and any(mean is not None for mean in state["mean"]):
            raise ValueError(
                "the state holds mean outputs of units, but absorb_mean is off; was it saved with other settings?"
            )
        restore(self._average, state["average"])
        restore(self._born, state["born"])
        self._schedule.load_state_dict(state["schedule"])
        self._mean = [mean if mean is None else mean.to(self.device).clone() for mean in state["mean"]]
        self._look_ahead()


def _identity(features: Tensor) -> Tensor:
    return features
