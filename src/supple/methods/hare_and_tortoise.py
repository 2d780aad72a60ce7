"""Hare and Tortoise: a fast network that goes back to its slow average now and then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.base import Required
from supple.methods.settings import About, SharedReplacing
from supple.methods.weights import WeightMethod, Weights
from supple.methods.when import Every
from supple.optim.replicated import Setting


class HareAndTortoise(WeightMethod):
    """Hare and Tortoise: every ``interval`` steps, the network goes back to the moving average of its weights.

    After each step, with w the weights that are trained (the hare) and v their average (the tortoise)::

        v = momentum * v + (1 - momentum) * w
        w = v                                        every ``interval`` steps

    Evaluate the average, with :meth:`tortoise`. It is kept beside the parameters, at least in single precision, and
    saved in :meth:`state_dict`. Buffers, such as running statistics, are those of the network that is trained.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        momentum: of the average, 0 <= momentum < 1.
        interval: steps from one return to the next, 1 or more.
        shared: ``include``, ``exclude``, ``optimizer_state``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> method = supple.HareAndTortoise(model, momentum=0.75, interval=2)
        >>> for _ in range(2):
        ...     with torch.no_grad():
        ...         model.weight += 1.0
        ...     method.step()
        >>> float(model.weight.detach())  # 0.75 * 0.25 + 0.25 * 2
        0.6875

    Source: Lee, Cho, Kim, Kim, Min, Choo and Lyle, "Slow and steady wins the race: maintaining plasticity with hare and
    tortoise networks" (ICML 2024, arXiv 2406.02596). Written from its description; the code was not at hand, and the
    default of ``interval`` is ours.
    """

    replaces = True
    reads_gradients = False
    watches = True
    required: Required = "nothing"
    about = About(
        "hare_and_tortoise",
        label="Hare & Tortoise",
        title="hare and tortoise",
        colour="#8c510a",
        dark="#bf812d",
        strength=(),
        ranges={"momentum": (0.99, 0.999, 0.9999), "interval": (100, 2000)},
        source="Lee et al. (ICML 2024, arXiv 2406.02596)",
        keeps="a copy of the weights",
        cost=(0.006, 0.009),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        momentum: Setting = 0.999,
        interval: Setting = 1000,
        **shared: Unpack[SharedReplacing],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        self.momentum = self.setting("momentum", momentum, 0, 1 - 2.0**-24).to(self.device)
        period = self.setting("interval", interval, 1, whole=True)
        self.when = Every(period, period > 0, self.device)
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps one parameter as it is, as its average."""
        return {"average": precise(w.value).clone()}

    def watch(self, w: Weights) -> None:
        """Lets the average of one parameter follow."""
        average = w.kept("average")
        average.lerp_(precise(w.value), w.each(1 - self.momentum))

    def rule(self, w: Weights) -> None:
        """Takes one parameter back to its average."""
        w.replace(torch.ones_like(w.value, dtype=torch.bool), w.kept("average"))

    @contextmanager
    def tortoise(self) -> Iterator[nn.Module]:
        """Gives the network its average, for evaluation; the weights that are trained come back at the end.

        Yields:
            The network.
        """
        averages = {self.parameters[name]: average for name, average in self.kept["average"].items()}
        fast = {parameter: parameter.detach().clone() for parameter in averages}
        with torch.no_grad():
            for parameter, average in averages.items():
                self.stack(parameter).copy_(average)
            try:
                yield self.model
            finally:
                for parameter, value in fast.items():
                    parameter.copy_(value)
