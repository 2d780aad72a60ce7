"""Wasserstein regularization: keeps the distribution of each tensor's entries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import placed_by_rank, precise
from supple.methods.regularizer import Regularizer
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class Wasserstein(Regularizer):
    """Wasserstein regularization: pulls the entries of every parameter toward those at the start, whatever their order.

    With w_(k) the k-th smallest entry of a tensor w and w0 the tensor when the method was made, the loss gets the term
    ``strength * R``, half the squared 2-Wasserstein distance between the two sets of entries times their number::

        R = 1/2 sum over k of (w_(k) - w0_(k))^2

    So dR/dw of an entry is its difference from the entry of the same rank at the start. Coupled, or with
    ``decoupled=True`` after the optimizer's step, as :class:`supple.L2Init`; where a tensor started from a constant the
    two are the same. Each step sorts each tensor. Published code divides R by the number of entries and has no 1/2.

    The entries at the start are kept in order beside the parameters, and saved in :meth:`state_dict`.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: multiple of the term, 0 or more.
        decoupled: whether the parameters follow beside the optimizer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or ``decoupled`` without an optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(4, 4)
        >>> method = supple.Wasserstein(model, strength=1.0)
        >>> with torch.no_grad():  # another order of the same values is as good as the first
        ...     _ = model.weight.copy_(model.weight.flip(0))
        >>> model(torch.zeros(1, 4)).sum().backward()
        >>> method.before_step()
        >>> bool((model.weight.grad == 0).all())
        True

    Source: Lewandowski, Tanaka, Schuurmans and Machado, "Directions of curvature as an explanation for loss of
    plasticity" (arXiv 2312.00246); written from its description, no official code was found.
    """

    kept_whole = frozenset({"sorted"})
    about = About(
        "wasserstein",
        label="Wasserstein",
        title="regularization toward the distribution at the start",
        colour="#66a61e",
        dark="#8fcb4b",
        strength=("strength",),
        ranges={"strength": (1e-5, 0.1)},
        source="Lewandowski et al. (arXiv 2312.00246)",
        needs="before_step(), or the step size",
        keeps="a copy of the weights",
        cost=(1.183, 1.405),
    )

    pieces = "replicas"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 1e-2,
        decoupled: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, strength=strength, decoupled=decoupled, **shared)
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps the entries of one parameter in order."""
        return {"sorted": w.whole(w.value).reshape(self.replicas, -1).sort(dim=1).values}

    def gradient(self, w: Weights) -> Tensor:
        """Works out each entry's difference from the one of its rank at the start."""
        whole = w.whole(w.value)
        flat = whole.reshape(len(whole), -1)
        target = placed_by_rank(flat, w.kept("sorted"))
        return (precise(w.value) - precise(w.part(target.view(whole.shape)))).nan_to_num_(0, 0, 0)
