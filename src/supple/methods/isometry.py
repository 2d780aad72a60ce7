"""Isometry regularization, as AdamO has it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.matrices import as_matrices, isometry_gradient
from supple.functional.utility import precise
from supple.methods.arguments import is_matrix, matrices_in
from supple.methods.regularizer import Regularizer
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class Isometry(Regularizer):
    """Isometry regularization: pulls every weight matrix toward one that keeps lengths.

    For each weight W, as a matrix of outputs and inputs, the loss gets the term ``strength * R``::

        R = |W W^T - scale * I|^2            (Frobenius; of the smaller of W W^T and W^T W)
        dR/dW = 4 (W W^T - scale * I) W

    Decoupled, as in AdamO: after the optimizer's step ``W -= lr * strength * dR/dW``, at the weights after the step,
    which is stable for ``lr * strength * 4 (3 s^2 - scale) < 2`` with s the largest singular value. With
    ``decoupled=False`` :meth:`before_step` adds the gradient to that of the loss.

    It acts on the weights of two and more dimensions, but not on embeddings and normalizations; ``include`` and
    ``exclude`` say otherwise. A convolution's weight is the matrix [out, in * height * width], a transposed one's
    [in, out * height * width]. A weight that holds several matrices one below the other (of queries, keys and values,
    or of the gates of an LSTM) is taken apart.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: multiple of the term, 0 or more.
        scale: the squared singular value that matrices are pulled to, above 0.
        last_layer: whether it acts on the network's last layer too.
        blocks: how many matrices lie one below the other in a weight, by parameter name or pattern, where it is not one
            of PyTorch's layers that tells.
        decoupled: whether the weights follow beside the optimizer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, there is no weight matrix, or ``decoupled`` without an optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(4, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.Isometry(model, optimizer, strength=0.5)
        >>> for _ in range(200):
        ...     method.step()
        >>> W = model.weight.detach()
        >>> bool(torch.allclose(W @ W.T, torch.eye(4), atol=1e-4))
        True

    Source: Rosseau, Mueller and Nowe, "Preserving plasticity in continual learning via dynamical isometry" (ICML 2026,
    arXiv 2606.09762); the formula by a description of AdamO, no official code was found.
    """

    about = About(
        "isometry",
        label="isometry",
        title="isometry regularization",
        colour="#1b7837",
        dark="#5aae61",
        strength=("strength",),
        ranges={"strength": (1e-5, 0.01)},
        source="Rosseau et al. (ICML 2026, arXiv 2606.09762)",
        needs="the step size",
        cost=(0.23, 0.354),
    )

    pieces = "replicas"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 1e-3,
        scale: Setting = 1.0,
        last_layer: bool = True,
        blocks: Mapping[str, int] | None = None,
        decoupled: bool = True,
        **shared: Unpack[Shared],
    ) -> None:
        self.last_layer = last_layer
        super().__init__(model, optimizer, strength=strength, decoupled=decoupled, **shared)
        self.scale = self.setting("scale", scale, 2.0**-24).to(self.device)
        self.switch("last_layer", last_layer)
        self.only_matrices()
        self.matrices_in = matrices_in(self.model, self.parameters, blocks)

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on weight matrices."""
        return is_matrix(name, module, parameter) and (self.last_layer or self.layer_numbers[name] > 1)

    def gradient(self, w: Weights) -> Tensor:
        """Works out 4 (W W^T - scale I) W."""
        whole = w.whole(precise(w.value))
        blocks = self.matrices_in[w.name]
        scale = self.scale[w.rows].to(whole.dtype).repeat_interleave(blocks).view(-1, 1, 1)
        gradient = self.gradient_of_matrices(as_matrices(whole, blocks), scale)
        known = gradient.flatten(1).sum(dim=1).isfinite()
        self.skip(~known.view(-1, blocks).all(dim=1), w.rows)
        # Passes with a mask take several times as long.
        gradient.nan_to_num_(0, 0, 0).mul_(known.to(gradient.dtype).view(-1, 1, 1))
        return w.part(gradient.view(whole.shape))

    def gradient_of_matrices(self, matrices: Tensor, scale: Tensor) -> Tensor:
        """The gradient for some matrices: [M, out, in] and [M, 1, 1] to [M, out, in]."""
        return isometry_gradient(matrices, scale)
