"""L2 Init: regularization toward the values at the start."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.arguments import is_normalization
from supple.methods.regularizer import Regularizer
from supple.methods.settings import About, Shared
from supple.methods.weights import Weights
from supple.optim.replicated import Setting


class L2Init(Regularizer):
    """L2 Init, regenerative regularization: pulls every parameter toward its value at the start.

    With w0 the parameter when the method was made, the loss gets the term ``strength * R``::

        R = 1/2 sum (w - w0)^2                       norm="l2"
            sum |w - w0|                             norm="l1"
            sum huber(w - w0), threshold 1           norm="huber"

    Coupled, as in the paper: call :meth:`before_step` after ``backward()``, which adds ``strength * dR/dw`` to the
    gradients. With ``decoupled=True`` the parameters follow after the optimizer's step, ``w -= lr * strength * dR/dw``.

    Normalization layers are left alone, as in the authors' code, unless ``include`` names them. A copy of the
    parameters at the start is kept beside them, and saved in :meth:`state_dict`.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed where ``decoupled``, for the step size.
        strength: multiple of the term, 0 or more. The paper's best is 1e-2, with Adam.
        norm: "l2", "l1" or "huber".
        decoupled: whether the parameters follow beside the optimizer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or ``decoupled`` without an optimizer.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> method = supple.L2Init(model, optimizer, strength=1.0, decoupled=True)
        >>> start = model.weight.detach().clone()
        >>> with torch.no_grad():
        ...     model.weight += 1.0
        >>> method.step()
        >>> round(float((model.weight - start).detach()), 6)
        0.5

    Source: Kumar, Marklund and Van Roy, "Maintaining plasticity in continual learning via regenerative regularization"
    (CoLLAs 2024, arXiv 2308.11958), equation 1 with the factor 1/2 of the authors' code.
    """

    about = About(
        "l2_init",
        label="L2 Init",
        title="regularization toward the values at the start",
        colour="#8c6bb1",
        dark="#b39ad1",
        strength=("strength",),
        ranges={"strength": (1e-5, 0.1)},
        source="Kumar et al. (CoLLAs 2024, arXiv 2308.11958)",
        needs="before_step(), or the step size",
        keeps="a copy of the weights",
        cost=(0.016, 0.021),
    )

    pieces = "outputs"

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 1e-2,
        norm: Literal["l2", "l1", "huber"] = "l2",
        decoupled: bool = False,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, strength=strength, decoupled=decoupled, **shared)
        self.norm = self.option("norm", norm, ("l2", "l1", "huber"))
        self.take_up()

    def keep(self, w: Weights) -> dict[str, Tensor]:
        """Keeps one parameter as it is."""
        return {"start": w.value.clone()}

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on all but normalization layers."""
        return not is_normalization(module)

    def gradient(self, w: Weights) -> Tensor:
        """Works out the difference from the start, or what the other norms make of it."""
        # A weight that is not finite has no way back, and must not reach others through a norm of all gradients.
        difference = (precise(w.value) - precise(w.kept("start"))).nan_to_num_(0, 0, 0)
        if self.norm == "l2":
            return difference
        return difference.sign_() if self.norm == "l1" else difference.clamp_(-1, 1)
