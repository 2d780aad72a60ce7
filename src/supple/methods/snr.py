"""SNR: self-normalized resets."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.methods.layer import Layer
from supple.methods.settings import About
from supple.methods.units import SharedUnits, UnitMethod
from supple.optim.replicated import Setting


class SNR(UnitMethod):
    """SNR, self-normalized resets: replaces a unit that has been silent for longer than it used to be.

    A unit fires in a training step if its output is above 0 for any example or position; so do units of ReLU, GELU,
    leaky ReLU or tanh where what they are computed from is above 0. Its age a is how many examples it has been silent
    for, and H counts at which ages it fired again or was replaced::

        a = 0 if it fires, else a + examples of the step
        replaced = a >= threshold;  then a = 0

    At :meth:`boundary`, every ``update_every`` times, each unit's threshold follows its own history, without the steps
    after which it fired at once (a = 0), and H starts anew::

        q = the age that ``percentile`` of its silences did not exceed
        threshold = q if q < threshold else expansion * threshold,  clipped to minimum ... maximum

    A unit that was never silent has q = 1. All units start with ``threshold``. Without boundaries thresholds stay as
    they are. H takes 4 bytes for each unit and each age up to ``maximum``.

    Units whose output is always above 0, as of a sigmoid, fire always and are never replaced; of a layer in which no
    unit was silent for a single example, :meth:`boundary` warns. Replaced units get fresh incoming weights, bias 0 and
    outgoing weights 0.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        threshold: age at which units are replaced at first, in examples, 1 or more.
        percentile: share of a unit's silences, 0 to 1 (the paper's 1 - eta).
        expansion: what a threshold that is too low is multiplied by, 1 or more.
        update_every: boundaries from one update of the thresholds to the next, 1 or more.
        minimum: the lowest threshold, in examples, 1 or more.
        maximum: the highest threshold, in examples, at least ``minimum``.
        shared: ``units``, ``features``, ``initial``, ``optimizer_state``, ``neighbours``, ``order``, ``process_group``,
            ``seed`` of every method on hidden units.

    Raises:
        ValueError: as :class:`supple.CBP`.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> with torch.no_grad():
        ...     model[0].bias[:3] = -5.0  # three units that never fire
        ...     model[0].bias[3:] = 5.0
        >>> bias = {"0.bias": supple.Constant(0.0)}
        >>> method = supple.SNR(model, threshold=20, initial=bias)
        >>> for _ in range(2):
        ...     _ = model(torch.rand(10, 4))
        ...     method.step()
        >>> int(method.reinitialized.last)
        3

    Source: Farias and Jozefiak, "Self-normalized resets for plasticity in continual learning" (ICLR 2025, arXiv
    2410.20098), algorithm 1; thresholds by histogram and their expansion as the authors' code has them.
    """

    watches = True
    about = About(
        "snr",
        label="SNR",
        title="self-normalized resets",
        colour="#e08214",
        dark="#fdb863",
        strength=(),
        ranges={"threshold": (100, 8000), "percentile": (0.9, 0.99)},
        source="Farias and Jozefiak (ICLR 2025, arXiv 2410.20098)",
        needs="features, boundary()",
        keeps="a history and two numbers a unit",
        common=("minimum", "maximum", "update_every"),
        cost=(0.003, 0.002),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        threshold: Setting = 2000,
        percentile: Setting = 0.99,
        expansion: Setting = 2.0,
        update_every: int = 16,
        minimum: int = 100,
        maximum: int = 10000,
        **shared: Unpack[SharedUnits],
    ) -> None:
        super().__init__(model, optimizer, utility="fires", **shared)
        first = self.setting("threshold", threshold, 1, whole=True).to(self.device)
        self.percentile = self.setting("percentile", percentile, 0, 1).to(self.device)
        self.expansion = self.setting("expansion", expansion, 1).to(self.device)
        self.update_every = int(self.setting("update_every", update_every, 1, whole=True)[0])
        self.minimum = int(self.setting("minimum", minimum, 1, whole=True)[0])
        self.maximum = int(self.setting("maximum", maximum, self.minimum, whole=True)[0])
        self.listen()
        self._never_silent: list[Tensor | None] = [None] * len(self.layers)
        ages = [layer.zeros(dtype=torch.int64) for layer in self.layers]
        self.per_unit = {
            "age": ages,
            "threshold": [torch.zeros_like(age, dtype=torch.float32) + first.unsqueeze(1) for age in ages],
            "history": [age.new_zeros((*age.shape, self.maximum + 1), dtype=torch.int32) for age in ages],
        }

    def _note(self, layer: Layer, noted: Tensor) -> None:
        """Counts the present ages of some units, bool [R, n], in their histories."""
        age, history = self.per_unit["age"][layer.number], self.per_unit["history"][layer.number]
        counts = (noted & (age <= self.maximum)).to(history.dtype)
        history.scatter_add_(2, age.clamp(max=self.maximum).unsqueeze(2), counts.unsqueeze(2))

    def watch(self, layer: Layer) -> None:
        """Lets silent units grow older."""
        total, examples = layer.sums()
        fires, known = (total > 0).flatten(2).any(dim=2), total.isfinite().flatten(2).all(dim=2)
        self.skip(~known.all(dim=1))
        before, always = self._never_silent[layer.number], (total >= examples).all()
        self._never_silent[layer.number] = always if before is None else before & always
        age = self.per_unit["age"][layer.number]
        self._note(layer, fires)
        age.copy_(torch.where(fires, 0, torch.where(known, age + examples, age)))

    def rule(self, layer: Layer) -> None:
        """Replaces the units of one layer that have been silent for too long."""
        age, threshold = self.per_unit["age"][layer.number], self.per_unit["threshold"][layer.number]
        due = age >= threshold
        self._note(layer, due)
        layer.replace(layer.where(due))
        age.masked_fill_(due, 0)

    def rule_at_boundary(self, layer: Layer) -> None:
        """Lets the thresholds of one layer follow the histories."""
        never, self._never_silent[layer.number] = self._never_silent[layer.number], None
        if never is not None and bool(never):
            warnings.warn(
                f"no unit of {layer.group.name} was ever silent: SNR never replaces what is always above 0, as what a "
                "sigmoid gives. Leave the layer out (units=...), or choose a method that needs no silence, such as CBP "
                "or ReGraMa",
                stacklevel=2,
            )
        if self.boundaries % self.update_every:
            return
        history, threshold = self.per_unit["history"][layer.number], self.per_unit["threshold"][layer.number]
        total = history[:, :, 1:].cumsum(dim=2, dtype=torch.float32)
        reached = total >= self.percentile.view(-1, 1, 1).to(total.dtype) * total[:, :, -1:]
        age = reached.to(torch.int8).argmax(dim=2) + 1
        expanded = self.expansion.unsqueeze(1).to(threshold.dtype) * threshold
        threshold.copy_(torch.where(age < threshold, age, expanded).clamp(self.minimum, self.maximum))
        history.zero_()
