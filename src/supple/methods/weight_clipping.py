"""Weight clipping."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.initial import Constant, Distribution, Drawn, Each, Fixed, Uniform
from supple.functional.utility import precise
from supple.methods.arguments import choice, is_embedding, is_normalization
from supple.methods.base import Required
from supple.methods.settings import About, SharedInitial
from supple.methods.weights import WeightMethod, Weights
from supple.optim.replicated import Setting
from supple.structure.named import fans


class WeightClipping(WeightMethod):
    """Weight clipping: after each step, clamps every weight to a multiple of the bound it was initialized within.

    ::

        w = clamp(w, -factor * s, factor * s)

    where ``bound`` says what s is::

        "initial"   the bound of w's initial distribution: of a uniform one its end, of others sqrt(3) standard
                    deviations, which is the end of the uniform distribution of that width
        "fan_in"    1 / sqrt(fan in), whatever w was drawn from, as the authors' code has it

    A bias, and whatever else starts from a constant, has the bound of the last weight before it in the order of the
    parameters; with "fan_in" so has all that has one dimension, with "initial" a bias that is drawn has its own.
    Normalization layers and embeddings are left alone unless ``include`` names them; the authors' code clips a
    normalization's scale to the bound of the weight before it, far below 1.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; copies of the weights that it keeps follow what the method changes.
        factor: multiple of the bound (the paper's kappa, the code's zeta), above 0.
        bound: "initial" or "fan_in".
        last_layer: whether the network's last layer is clipped too.
        shared: ``include``, ``exclude``, ``initial``, ``seed`` of every :class:`supple.Method`.

    Raises:
        ValueError: if a setting is out of range, or the initial distribution of a parameter is not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(4, 4)
        >>> method = supple.WeightClipping(model, factor=0.5)
        >>> method.step()
        >>> float(model.weight.detach().abs().max())  # half of 1 / sqrt(4)
        0.25

    Source: Elsayed, Lan, Lyle and Mahmood, "Weight clipping for deep continual and reinforcement learning" (RLC 2024,
    arXiv 2407.01704), algorithm 1.
    """

    reads_gradients = False
    pieces = "outputs"
    knows_initial = True
    about = About(
        "weight_clipping",
        label="clipping",
        title="weight clipping",
        colour="#a6761d",
        dark="#cf9c3f",
        strength=(),
        ranges={"factor": (1.0, 5.0)},
        source="Elsayed et al. (RLC 2024, arXiv 2407.01704)",
        cost=(0.008, 0.01),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        factor: Setting = 1.0,
        bound: Literal["initial", "fan_in"] = "initial",
        last_layer: bool = True,
        **shared: Unpack[SharedInitial],
    ) -> None:
        self.required: Required = (
            "distributions" if choice("bound", bound, ("initial", "fan_in")) == "initial" else "nothing"
        )
        self.last_layer = last_layer
        super().__init__(model, optimizer, **shared)
        self.factor = self.setting("factor", factor, 2.0**-24).to(self.device)
        self.bound = self.option("bound", bound, ("initial", "fan_in"))
        self.switch("last_layer", last_layer)
        self.bounds = self._bounds()

    def usual(self, name: str, module: nn.Module, parameter: Tensor) -> bool:
        """Says that it acts on all but normalization layers and embeddings, and perhaps the last layer."""
        left_out = not self.last_layer and self.layer_numbers.get(name) == 1
        return not (is_normalization(module) or is_embedding(module) or left_out)

    def _bounds(self) -> dict[str, float | Tensor]:
        """Works out s of each parameter, in the order of the network's parameters; [R] where networks differ."""
        bounds: dict[str, float | Tensor] = {}
        last: float | Tensor = math.inf
        for name, parameter in self.model.named_parameters():
            shape = parameter.shape[int(self.stacked) :]
            if len(shape) > 1:
                distribution = self.distributions.get(name)
                if self.bound == "fan_in":
                    last = 1 / math.sqrt(max(1, fans(shape)[0]))
                elif distribution is not None:
                    last = self._reach(distribution, last)
            if name in self.parameters:
                own = self.distributions.get(name) if self.bound == "initial" else None
                bounds[name] = last if own is None else self._reach(own, last)
        return bounds

    def _reach(self, start: Distribution, last: float | Tensor) -> float | Tensor:
        """The bound of a distribution, and of a constant the last one."""
        if isinstance(start, Each):
            before = torch.as_tensor(last).expand(self.replicas).tolist()
            own = [start.of[number] for number in start.which.tolist()]
            each = [self._reach(*pair) for pair in zip(own, before, strict=True)]
            return torch.tensor(each, dtype=torch.float32, device=self.device)
        return last if isinstance(start, Constant | Fixed) else reach(start)

    def rule(self, w: Weights) -> None:
        """Clips one parameter."""
        bound = w.each(self.factor * self.bounds[w.name])
        # With tensors as bounds, clamp takes several times as long.
        value = precise(w.value)
        torch.minimum(value, bound, out=value)
        w.set(torch.maximum(value, -bound, out=value))


def reach(distribution: Drawn) -> float:
    """Gives the bound of a distribution: of a uniform one its end, else sqrt(3) standard deviations from 0.

    Args:
        distribution: no constant.

    Returns:
        The largest magnitude.
    """
    if isinstance(distribution, Uniform):
        return max(abs(distribution.low), abs(distribution.high))
    assert not isinstance(distribution, Constant)
    return abs(distribution.mean) + math.sqrt(3) * distribution.std
