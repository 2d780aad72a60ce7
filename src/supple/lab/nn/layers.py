"""Parts of layers: activation functions by name, a layer normalization whose scale decays to 1, and cheap dropout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supple.functional.initial import Constant, Distribution, Normal
from supple.metrics import SHAPES, Shape

_BITS = 16
"""Random bits an entry: a mask costs a quarter of a 64-bit number each, a tenth of what ``torch.bernoulli`` takes."""


class CReLU(nn.Module):
    """Concatenated ReLU: [relu(z), relu(-z)] along the last dimension, so [..., units] becomes [..., 2 * units].

    Source: Shang, Sohn, Almeida and Lee, "Understanding and improving convolutional neural networks via concatenated
    rectified linear units", ICML 2016, section 2.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Each unit, and then each unit's negated twin."""
        return torch.cat((torch.relu(z), torch.relu(-z)), dim=-1)


class Fourier(nn.Module):
    """Deep Fourier features: [sin(z), cos(z)] along the last dimension, so [..., units] becomes [..., 2 * units].

    Source: Lewandowski, Schuurmans and Machado, "Plastic learning with deep Fourier features", ICLR 2025, arXiv
    2410.20634.
    """

    def forward(self, z: Tensor) -> Tensor:
        """The sine of each unit, and then the cosine of each unit."""
        return torch.cat((z.sin(), z.cos()), dim=-1)


def kaiming_normal(fan_in: int, fan_out: int) -> Normal:
    """Normal with standard deviation sqrt(2 / fan_in); ``fan_out`` plays no part.

    Source: He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10.
    """
    return Normal(0.0, math.sqrt(2 / fan_in))


def xavier_normal(fan_in: int, fan_out: int) -> Normal:
    """Normal with standard deviation sqrt(2 / (fan_in + fan_out)).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, equation 12.
    """
    return Normal(0.0, math.sqrt(2 / (fan_in + fan_out)))


@dataclass(frozen=True)
class Activation:
    """An activation function and what goes with it.

    Args:
        module: makes the module that computes it, with no arguments.
        shape: where it is flat; a unit is dead that gives nothing else, on any example.
        copies: how often each unit appears in the output; 2 for CReLU and Fourier features.
        weights: initial distribution of the weights of a layer, from its (fan_in, fan_out).
    """

    module: Callable[[], nn.Module]
    shape: Shape
    copies: int = 1
    weights: Callable[[int, int], Normal] = kaiming_normal


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(nn.ReLU, SHAPES["relu"]),
    "leaky_relu": Activation(nn.LeakyReLU, SHAPES["leaky_relu"]),
    "elu": Activation(nn.ELU, SHAPES["elu"]),
    "tanh": Activation(nn.Tanh, SHAPES["tanh"]),
    "sigmoid": Activation(nn.Sigmoid, SHAPES["sigmoid"]),
    "silu": Activation(nn.SiLU, SHAPES["silu"], weights=xavier_normal),
    "gelu": Activation(nn.GELU, SHAPES["gelu"], weights=xavier_normal),
    "crelu": Activation(CReLU, SHAPES["relu"], copies=2),
    "fourier": Activation(Fourier, Shape("fourier", saturated=(), zero=None), copies=2),
}
"""The activation functions of the study by name."""


class ReparameterizedLayerNorm(nn.LayerNorm):
    """Layer normalization with y = normalized(x) * (1 + weight) + bias, where weight and bias start at 0.

    Weight decay then pulls the scale to 1 rather than to 0. Everything else is as in :class:`torch.nn.LayerNorm`, whose
    arguments it takes.

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212; Ba, Kiros and Hinton, "Layer normalization",
    arXiv 1607.06450, section 3.
    """

    def reset_parameters(self) -> None:
        """Sets weight and bias to 0."""
        for parameter in self.parameters(recurse=False):
            nn.init.zeros_(parameter)

    @property
    def scale(self) -> Tensor | None:
        """What normalized values are multiplied by, 1 + weight; None without ``elementwise_affine``."""
        return None if self.weight is None else 1 + self.weight

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        return {name: Constant(0.0) for name, _ in self.named_parameters(recurse=False)}

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the last dimensions of [..., *normalized_shape]."""
        return nn.functional.layer_norm(x, self.normalized_shape, self.scale, self.bias, self.eps)


def dropout(x: Tensor, p: float) -> Tensor:
    """Sets each entry to 0 with probability p, 0 <= p < 1, and divides the others by 1 - p, so that the mean stays.

    On a CPU p counts as the nearest multiple of 2^-16 up to 1 - 2^-15, in the division too. Elsewhere it is
    :func:`torch.nn.functional.dropout`, where masks cost little. The masks come from torch's own generator.

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
    """
    if x.device.type != "cpu":
        return nn.functional.dropout(x, p)
    levels = 2**_BITS
    dropped = min(round(p * levels), levels - 2)  # float16 holds 2^15 and not 2^16
    if not dropped:
        return x
    count = -(-x.numel() * _BITS // 64)
    drawn = torch.randint(-(2**63), 2**63 - 1, (count,), device=x.device).view(torch.int16)
    kept = drawn[: x.numel()].view(x.shape) >= dropped - levels // 2
    return x * kept.to(x.dtype).mul_(levels / (levels - dropped))


class Dropout(nn.Dropout):
    """A layer that applies :func:`dropout` in training, and does nothing in evaluation."""

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p is {p}; it has to be at least 0 and below 1, since what is kept is divided by 1 - p")
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to entries of any shape."""
        return dropout(x, self.p) if self.training else x
