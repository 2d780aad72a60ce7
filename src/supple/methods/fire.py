"""FIRE: reinitialization by the nearest isometry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from typing_extensions import Unpack

from supple.functional.matrices import newton_schulz
from supple.functional.utility import precise
from supple.methods.arguments import holder, is_matrix, matrices_in
from supple.methods.base import Required
from supple.methods.boundary import BoundaryMethod
from supple.methods.settings import About, SharedReplacing
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class FIRE(BoundaryMethod):
    """FIRE: at a boundary, replaces every weight matrix by a multiple of the nearest isometry.

    For each weight W, as a matrix of outputs and inputs, :meth:`boundary` does ``iterations`` steps of Newton-Schulz::

        X = W / |W|                        (Frobenius)
        X = 1.5 X - 0.5 X X^T X            repeated
        W = sqrt(outputs / inputs) * X     scale="width"; X itself for scale="one"

    which takes all singular values toward one and keeps the singular vectors. Of a convolution each position of the
    kernel is a matrix of its own, and is divided by the number of positions. Ten iterations do not bring a singular
    value below about 1% of the norm all the way. A weight that holds several matrices one below the other is taken
    apart, as :class:`supple.Isometry` does.

    It acts on the weights of two and more dimensions, but not on embeddings and normalizations; ``include`` and
    ``exclude`` say otherwise: in vision transformers the authors' code acts on queries and keys only, in DQN on
    convolutions only. A matrix that is all zero, or not finite, is left alone, which :attr:`skipped` counts.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        iterations: of Newton-Schulz, 0 or more.
        scale: "width" or "one".
        blocks: how many matrices lie one below the other in a weight, by parameter name or pattern.
        every: steps from one time to the next; 0: at boundaries only.
        shared: ``include``, ``exclude``, ``optimizer_state``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or there is no weight matrix.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(4, 4)
        >>> supple.FIRE(model, iterations=30).boundary()
        >>> W = model.weight.detach()
        >>> bool(torch.allclose(W @ W.T, torch.eye(4), atol=1e-4))
        True

    Source: Han, Park, Oh, Kim, Lee and Kim, "FIRE: Frobenius-isometry reinitialization for balancing the
    stability-plasticity tradeoff" (ICLR 2026, arXiv 2602.08040), and its code.
    """

    required: Required = "nothing"
    about = About(
        "fire",
        label="FIRE",
        title="reinitialization by the nearest isometry",
        colour="#b2182b",
        dark="#e0596a",
        strength=(),
        ranges={"iterations": (1, 5, 10)},
        source="Han et al. (ICLR 2026, arXiv 2602.08040)",
        needs="boundary()",
        common=("iterations",),
        cost=(0.001, 0),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        iterations: int = 10,
        scale: Literal["width", "one"] = "width",
        blocks: Mapping[str, int] | None = None,
        every: Setting = 0,
        **shared: Unpack[SharedReplacing],
    ) -> None:
        super().__init__(model, optimizer, every=every, **shared)
        self.iterations = int(self.setting("iterations", iterations, 0, whole=True)[0])
        self.scale = self.option("scale", scale, ("width", "one"))
        self.only_matrices()
        self.matrices_in = matrices_in(self.model, self.parameters, blocks)
        self._turned = {name for name in self.parameters if _inputs_first(holder(self.model, name))}

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on weight matrices."""
        return is_matrix(name, module, parameter)

    def rule_at_boundary(self, w: Weights) -> None:
        """Replaces one weight by a multiple of the nearest isometry."""
        whole = w.whole(precise(w.value))
        blocks, (outputs, inputs, *kernel) = self.matrices_in[w.name], w.block.whole
        # Each position of the kernel first, then each matrix: [rows, positions, blocks, out, in].
        positions = whole.flatten(3).movedim(3, 1) if kernel else whole.unsqueeze(1)
        matrices = positions.unflatten(2, (blocks, outputs // blocks))
        norm = matrices.flatten(3).norm(dim=3)
        known = norm.isfinite() & (norm > 0)
        self.skip(~known.all(dim=2).all(dim=1), w.rows)
        ratio = outputs / blocks / inputs
        factor = math.sqrt(1 / ratio if w.name in self._turned else ratio) if self.scale == "width" else 1
        factor /= math.prod(kernel)
        new = torch.where(known[..., None, None], factor * newton_schulz(matrices, self.iterations), matrices)
        new = new.flatten(2, 3)
        new = (new.movedim(1, 3) if kernel else new).reshape(whole.shape)
        changed = known.unsqueeze(3).expand(*known.shape, outputs // blocks).flatten(2)
        changed = (changed.movedim(1, 2).reshape(len(whole), outputs, 1, *kernel)) if kernel else changed.movedim(1, 2)
        w.replace(w.part(changed.expand_as(whole)).clone(), w.part(new))


def _inputs_first(module: nn.Module) -> bool:
    """Whether a layer's weight is [inputs, outputs, ...], as of transposed convolutions and transformers' Conv1D."""
    return isinstance(module, _ConvTransposeNd) or type(module).__name__ == "Conv1D"
