"""Layers for many networks of one kind at once: each parameter has a leading dimension that counts the replicas."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from supple.functional import initial, random
from supple.functional.initial import Constant, Distribution
from supple.structure.stacked import Stacked


class StackedLinear(torch.nn.Module):
    """R linear layers: y[r] = x[r] weight[r]^T + bias[r], with weight [R, outputs, inputs] and bias [R, outputs].

    All values are 0 until the network that holds the layer draws them from ``weights`` (:func:`initialize`).
    """

    def __init__(self, inputs: int, outputs: int, replicas: int, weights: Distribution) -> None:
        super().__init__()
        self.inputs, self.outputs, self.replicas = inputs, outputs, replicas
        self.weights = weights
        self.weight = torch.nn.Parameter(torch.zeros(replicas, outputs, inputs))
        self.bias = torch.nn.Parameter(torch.zeros(replicas, outputs))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        return {"weight": self.weights, "bias": Constant(0.0)}

    def forward(self, x: Tensor) -> Tensor:
        """Applies each layer to its input, [S, B, inputs], where S divides R, to [R, B, outputs].

        Replicas s * C to s * C + C - 1, with C = R / S, read batch s; they are computed as one product, of
        [C * outputs, inputs] and [inputs, B], without a copy of either. In memory the examples of one output are
        neighbours, the order in which training steps of networks up to some hundred units wide are fastest on a CPU
        (``benchmarks/layout.py``).
        """
        batches = len(x)
        weight = self.weight.view(batches, -1, self.inputs)
        bias = self.bias.view(batches, -1, 1)
        # Weight times input: the other way round, autograd gives the weight's gradient in another order and copies it.
        return torch.baddbmm(bias, weight, x.mT).view(self.replicas, self.outputs, -1).mT

    def extra_repr(self) -> str:
        """The sizes, for ``repr``."""
        return f"inputs={self.inputs}, outputs={self.outputs}, replicas={self.replicas}"


class StackedLayerNorm(torch.nn.Module):
    """R layer normalizations over the last dimension, each with its own scale and shift, weight and bias [R, width].

    If reparameterized the scale is 1 + weight, as in :class:`supple.lab.nn.ReparameterizedLayerNorm`.
    """

    def __init__(self, width: int, replicas: int, eps: float = 1e-5, reparameterized: bool = False) -> None:
        super().__init__()
        self.width, self.replicas, self.eps, self.reparameterized = width, replicas, eps, reparameterized
        self.weight = torch.nn.Parameter(torch.full((replicas, width), 0.0 if reparameterized else 1.0))
        self.bias = torch.nn.Parameter(torch.zeros(replicas, width))

    @property
    def scale(self) -> Tensor:
        """What normalized values are multiplied by, [R, width]."""
        return 1 + self.weight if self.reparameterized else self.weight

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        return {"weight": Constant(0.0 if self.reparameterized else 1.0), "bias": Constant(0.0)}

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes each example of each replica, [R, ..., width]."""
        normalized = torch.nn.functional.layer_norm(x, (self.width,), eps=self.eps)
        shape = (self.replicas, *(1,) * (x.ndim - 2), self.width)
        return torch.addcmul(self.bias.view(shape), normalized, self.scale.view(shape))

    def extra_repr(self) -> str:
        """The sizes, for ``repr``."""
        reparameterized = ", reparameterized=True" if self.reparameterized else ""
        return f"width={self.width}, replicas={self.replicas}, eps={self.eps:g}{reparameterized}"


@torch.no_grad()
def initialize(
    module: torch.nn.Module,
    distributions: Mapping[str, Distribution],
    seeds: Tensor,
    names: Collection[str] | None = None,
    time: int = 0,
) -> None:
    """Draws parameters (those of ``names``, or all) of one network, or of a stacked one.

    Values are a function of seed (int64 [1] for one network, [R] for a stacked one), name and time: 0 when the network
    is made, and another number each time that something is drawn again. A parameter on the meta device, which has no
    values, is left as it is.
    """
    parameters = {name: parameter for name, parameter in module.named_parameters() if not parameter.is_meta}
    if names is not None:
        parameters = {name: parameters[name] for name in names}
    if not parameters:
        return
    # Replicas that share a seed share their values, so each seed is drawn once.
    distinct, which = torch.unique(seeds.cpu(), return_inverse=True)
    for name, parameter in parameters.items():
        shape = parameter.shape[1:] if isinstance(module, Stacked) else parameter.shape
        values = initial.sample(distributions[name], distinct, random.purpose("initial", name), time, shape)
        parameter.copy_(values[which].view(parameter.shape))
