"""What methods share that act where the data changes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from typing_extensions import Unpack

from supple.methods.settings import SharedReplacing
from supple.methods.weights import WeightMethod, Weights
from supple.methods.when import Every
from supple.optim.replicated import Setting


class BoundaryMethod(WeightMethod):
    """A method that acts at each :meth:`boundary`, and where asked for also every so many steps.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        every: steps from one time to the next; 0: at boundaries only.
        shared: as of every :class:`supple.Method`.
    """

    replaces = True
    reads_gradients = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        every: Setting = 0,
        **shared: Unpack[SharedReplacing],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        period = self.setting("every", every, 0, whole=True)
        self.when = Every(period.clamp(min=1), period > 0, self.device)

    def rule(self, w: Weights) -> None:
        """Acts on one parameter as at a boundary."""
        self.rule_at_boundary(w)

    def reset_statistics(self) -> None:
        """Gives those batch normalizations whose parameters it acts on the running statistics of a new one.

        Those that have no parameters, where it acts on all of the network that trains.
        """
        names = {name.rpartition(".")[0] for name, parameter in self.parameters.items() if parameter.requires_grad}
        trained = {name for name, p in self.model.named_parameters() if p.requires_grad and p.numel() > 0}
        everything = trained <= self.parameters.keys()
        for name, module in self.model.named_modules():
            bare = everything and not any(True for _ in module.parameters())
            if isinstance(module, _NormBase) and (name in names or bare):
                module.reset_running_stats()
