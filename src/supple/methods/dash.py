"""DASH: direction-aware shrinking."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.arguments import is_embedding, is_normalization
from supple.methods.settings import About, Shared
from supple.methods.weights import WeightMethod, Weights
from supple.optim.replicated import Setting

Batches = Iterable[Any] | Callable[[], Iterable[Any]]
Loss = Callable[[nn.Module, Any], Tensor]


class DASH(WeightMethod):
    """DASH, direction-aware shrinking: at a boundary, shrinks weights that point away from where the loss goes down.

    :meth:`boundary` goes once through the data so far, in their order and with the weights as they are, and averages
    the negative gradient of the loss of each batch, G = (1 - alpha) G + alpha (-gradient), from 0 on. Then::

        c = cos(G, W)
        W = clamp(c, minimum, 1) * W

    with one cosine for each row of a linear layer's weight, for each pair of output and input channel of a
    convolution's, and for each bias as a whole. A cosine with a vector of zeros is 0, so that the weights of a unit
    that gets no gradient shrink by ``minimum``.

    The gradients are those of a copy of the network in its present mode, so that batch normalizations and ``.grad``
    stay as they are. Embeddings and normalizations are left alone unless ``include`` names them. Parameters that are
    sharded cannot be copied.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        alpha: weight of the latest batch in the average, above 0 to 1.
        minimum: the least factor (the paper's lambda), 0 to 1.
        batches: the data so far: something to iterate over, or a function that gives it; may be told to
            :meth:`boundary` instead.
        loss: from the network and a batch to the loss, a scalar.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or the parameters are sharded.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> method = supple.DASH(model, minimum=0.25, loss=lambda model, x: model(x).sum())
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> method.boundary([torch.ones(3, 2)])  # against the weights: the cosine is -1
        >>> model.weight.tolist()
        [[0.25, 0.25]]

    Source: Shin, Oh, Cho and Yun, "DASH: warm-starting neural network training in stationary settings without loss of
    plasticity" (NeurIPS 2024, arXiv 2410.23495), and its code.
    """

    reads_gradients = False
    loops_only = "the data so far"
    about = About(
        "dash",
        label="DASH",
        title="direction-aware shrinking",
        colour="#bf5b17",
        dark="#e08b4f",
        strength=(),
        source="Shin et al. (NeurIPS 2024, arXiv 2410.23495)",
        needs="boundary(), batches and the loss",
        keeps="nothing; during a boundary three copies of the weights",
        cost=(0, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        alpha: Setting = 0.3,
        minimum: Setting = 0.3,
        batches: Batches | None = None,
        loss: Loss | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        self.alpha = self.setting("alpha", alpha, 2.0**-24, 1).to(self.device)
        self.minimum = self.setting("minimum", minimum, 0, 1).to(self.device)
        self.batches, self.loss = batches, loss
        self._directions: dict[str, Tensor] = {}
        if self.sharded:
            raise ValueError("DASH works out gradients on a copy of the network, and sharded parameters have none")

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on all but normalization layers and embeddings."""
        return not (is_normalization(module) or is_embedding(module))

    def boundary(self, batches: Batches | None = None, loss: Loss | None = None) -> None:
        """Shrinks the weights; see the class.

        Args:
            batches: the data so far; None: those the method was made with.
            loss: from the network and a batch to the loss; None: the one the method was made with.

        Raises:
            RuntimeError: if the method was closed, or the model has got other parameters.
            ValueError: if there are no batches or no loss, or the data have no batch.
        """
        batches, loss = batches if batches is not None else self.batches, loss or self.loss
        if batches is None or loss is None:
            raise ValueError(
                "DASH needs the data so far and the loss: boundary(batches, loss), or "
                "DASH(model, batches=..., loss=...)"
            )
        self._check_usable()
        self._directions = self._average(batches() if callable(batches) else batches, loss)
        try:
            super().boundary()
        finally:
            self._directions = {}

    def _average(self, batches: Iterable[Any], loss: Loss) -> dict[str, Tensor]:
        """The average of the negative gradients: by name a tensor [R, ...]."""
        network = copy.deepcopy(self.model)
        parameters = {name: network.get_parameter(name) for name in self.parameters}
        parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        average = {name: torch.zeros_like(precise(self.stack(p))) for name, p in parameters.items()}
        seen = False
        for one in batches:
            with torch.enable_grad():
                gradients = torch.autograd.grad(loss(network, one), [*parameters.values()], allow_unused=True)
            for total, gradient in zip(average.values(), gradients, strict=True):
                alpha = self.alpha.view(-1, *(1,) * (total.ndim - 1)).to(total.dtype)
                total.mul_(1 - alpha)
                if gradient is not None:
                    total.sub_(alpha * precise(self.stack(gradient)))
            seen = True
        if not seen:
            raise ValueError(
                "DASH got no batch; if batches can be gone through once only, pass a function that makes them"
            )
        return average

    def rule_at_boundary(self, w: Weights) -> None:
        """Shrinks one parameter."""
        if w.name not in self._directions:
            return
        value, direction = precise(w.value), self._directions[w.name]
        kept = max(1, min(value.ndim - 1, 3))  # one cosine for a bias, for each row, for each pair of channels
        vectors, along = (one.reshape(*one.shape[:kept], -1) for one in (value, direction))
        cosine = nn.functional.cosine_similarity(vectors, along, dim=-1)
        self.skip(~cosine.reshape(len(cosine), -1).isfinite().all(dim=1), w.rows)
        minimum = self.minimum.view(-1, *(1,) * (cosine.ndim - 1)).to(cosine.dtype)
        factor = torch.where(cosine.isfinite(), torch.maximum(cosine, minimum).clamp(max=1), 1)
        w.set(value * factor.view(*factor.shape, *(1,) * (value.ndim - factor.ndim)))
