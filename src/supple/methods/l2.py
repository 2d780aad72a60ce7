"""L2: decoupled weight decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.methods.settings import About, Shared
from supple.methods.weights import WeightMethod, Weights
from supple.methods.when import Every, rows_of
from supple.optim.replicated import Setting


class L2(WeightMethod):
    """Decoupled weight decay: after each step, shrinks every parameter.

    ::

        w -= l2 * w

    The coefficient is not multiplied by the step size (as it is in ``torch.optim.AdamW``). In single precision a share
    below about 3e-8 changes nothing, since w - l2 w is rounded to w. In half precision w - l2 w is rounded by chance,
    so that it is right on average.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        l2: share taken off a step, 0 to 1.
        shared: as of every :class:`supple.Method`: ``include``, ``exclude``, ``seed``.

    Raises:
        ValueError: if ``l2`` is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> supple.L2(model, l2=0.25).step()
        >>> float(model.weight.detach())
        0.75

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), equation 1; as a baseline
    against loss of plasticity: Hernandez-Garcia et al. (arXiv 2508.00212).
    """

    reads_gradients = False
    about = About(
        "l2",
        label="L2",
        title="weight decay",
        colour="#56b4e9",
        dark="#7cc7f2",
        strength=("l2",),
        ranges={"l2": (1e-6, 1e-2)},
        source="Loshchilov and Hutter (ICLR 2019), equation 1",
        since="0.1",
        cost=(0.005, 0.004),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        l2: Setting = 1e-4,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        self.l2 = self.setting("l2", l2, 0, 1)
        self._act_in(self.l2 > 0)

    def _act_in(self, active: Tensor) -> None:
        """Acts in some replicas at every step; in all of them where picking them out would take more time."""
        if isinstance(rows_of(active, self.device), Tensor):
            active = torch.ones_like(active)
        self.when = Every(torch.ones_like(active, dtype=torch.int64), active, self.device)
        self._shares = (-self.l2).to(self.device)

    def rule(self, w: Weights) -> None:
        """Shrinks one parameter."""
        # Not a product with 1 - l2, which single precision rounds to multiples of 6e-8.
        w.add(w.value, w.each(self._shares), "shrink")
