"""ReDo, recycling dormant neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.functional import selection
from supple.methods.base import About
from supple.methods.checks import Setting
from supple.methods.due import Due, replicas_at
from supple.methods.pairs import chosen_pairs
from supple.methods.unit_method import UnitMethod, UnitUtility
from supple.structure.description import UnitGroup, Units
from supple.structure.overrides import Overrides


class ReDo(UnitMethod):
    """Recycling dormant neurons: every ``frequency`` steps, replaces the hidden units of low utility.

    For each hidden layer on its own, with u the utility of its units from the step's batch::

        u = mean|h|                       utility="activation"
            mean|h| * mean|W_out|         utility="contribution"
            mean|W_out|                   utility="magnitude"
            |sum(W_out * dL/dW_out)|      utility="gradient"
        replaced = u <= threshold * mean(u)

    where h is the unit's output as the next layer receives it and W_out the weights that leave the unit. Replacing a
    unit redraws its incoming weights from their initial distribution and sets its bias and its outgoing weights to 0; a
    normalization that follows gets its initial scale and shift, and batch normalization a running mean of 0 and a
    running variance of 1.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        frequency: steps from one time to the next, 1 or more.
        threshold: multiple of the layer's mean utility, 0 or more; at 0 nothing is ever replaced.
        utility: "activation", "contribution", "magnitude" or "gradient".
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
        >>> with torch.no_grad():
        ...     _ = model[0].bias[:3].fill_(-100)  # three dead units
        >>> method = supple.ReDo(model, optimizer, frequency=1, threshold=1e-4, initial={"0.bias": supple.Constant(0)})
        >>> model(torch.ones(5, 4)).sum().backward()
        >>> optimizer.step()
        >>> method.step()
        >>> int(method.reinitialized.last) >= 3
        True

    Source: Sokar, Agarwal, Castro and Evci, "The dormant neuron phenomenon in deep reinforcement learning" (ICML 2023),
    algorithm 1; other utilities: Hernandez-Garcia et al. (arXiv 2508.00212).
    """

    about = About(
        "redo",
        label="ReDo",
        title="recycling dormant neurons",
        colour="#cc79a7",
        dark="#dc93bb",
        strength=("threshold",),
        source="Sokar et al. (ICML 2023), algorithm 1",
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        frequency: Setting = 16,
        threshold: Setting = 1e-4,
        utility: UnitUtility = "activation",
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
        period = self._setting("frequency", frequency, 1, whole=True)
        least = self._setting("threshold", threshold, 0)
        self._due = Due(period, least > 0, self.device)
        self._threshold = least.to(self.device)
        self._due_rows: slice | Tensor | None = None
        self._attach()
        self._look_ahead()

    def due_next(self) -> Tensor:
        """In which replicas the next step may reinitialize something, bool [R] on the CPU."""
        return self._due.mask(self.steps + 1)

    def reinitializes(self) -> Tensor:
        """In which replicas it ever reinitializes something, bool [R] on the CPU."""
        return self._due.active

    def _rows_next(self, number: int) -> slice | Tensor | None:
        return self._due_rows

    def _look_ahead(self) -> None:
        self._due_rows = self._due(self.steps + 1)
        super()._look_ahead()

    def _act(self) -> None:
        if self._due_rows is not None:
            self._share_features()
            for number, group in enumerate(self.groups):
                with self._opened(group):
                    self._replace_dormant(number, self._due_rows)
        self._look_ahead()

    def _replace_dormant(self, number: int, rows: slice | Tensor) -> None:
        """Replaces the units of low utility of one layer, in the given replicas."""
        utility = self._unit_utility(number, rows)
        mean = utility.mean(dim=1)
        self._skips.add(mean.isfinite(), rows)
        mask = selection.threshold(utility, self._threshold[rows], mean)
        local, chosen, valid = chosen_pairs(mask)
        self._replace(self.groups[number], replicas_at(rows, local), chosen, valid)

    def _load_state(self, state: dict[str, Any]) -> None:
        self._look_ahead()
