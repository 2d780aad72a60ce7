"""Activation functions by name, and what goes with each: its initial weights and what makes a unit dead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supple.functional.initial import Normal


class CReLU(torch.nn.Module):
    """Concatenated ReLU: [relu(z), relu(-z)] along the last dimension.

    Source: Shang, Sohn, Almeida and Lee, "Understanding and improving convolutional neural networks via concatenated
    rectified linear units", ICML 2016, section 2.
    """

    def forward(self, z: Tensor) -> Tensor:
        """Applies the activation.

        Args:
            z: preactivations [..., units].

        Returns:
            [..., 2 * units]: each unit, and then each unit's negated twin.
        """
        return torch.cat((torch.relu(z), torch.relu(-z)), dim=-1)


def kaiming_normal(fan_in: int, fan_out: int) -> Normal:
    """Normal with standard deviation sqrt(2 / fan_in); ``fan_out`` plays no part.

    Args:
        fan_in: number of inputs of the layer.
        fan_out: number of its outputs.

    Returns:
        The distribution of its weights.

    Source: He, Zhang, Ren and Sun, "Delving deep into rectifiers", ICCV 2015, equation 10.
    """
    return Normal(0.0, math.sqrt(2 / fan_in))


def xavier_normal(fan_in: int, fan_out: int) -> Normal:
    """Normal with standard deviation sqrt(2 / (fan_in + fan_out)).

    Args:
        fan_in: number of inputs of the layer.
        fan_out: number of its outputs.

    Returns:
        The distribution of its weights.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, equation 12.
    """
    return Normal(0.0, math.sqrt(2 / (fan_in + fan_out)))


@dataclass(frozen=True)
class Activation:
    """An activation function and what goes with it.

    Args:
        module: makes the module that computes it, with no arguments.
        saturated: outputs at which a unit is dead if it gives nothing else, on any example, than one of them.
        tolerance: how near to such an output counts.
        copies: how often each unit appears in the output; 2 for CReLU.
        weights: initial distribution of the weights of a layer, from its (fan_in, fan_out).
    """

    module: Callable[[], torch.nn.Module]
    saturated: tuple[float, ...]
    tolerance: float = 0.01
    copies: int = 1
    weights: Callable[[int, int], Normal] = kaiming_normal


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.nn.ReLU, (0.0,), tolerance=0.0),
    "leaky_relu": Activation(torch.nn.LeakyReLU, (0.0,), tolerance=0.0),
    "elu": Activation(torch.nn.ELU, (-1.0,)),
    "tanh": Activation(torch.nn.Tanh, (-1.0, 1.0)),
    "sigmoid": Activation(torch.nn.Sigmoid, (0.0, 1.0)),
    "silu": Activation(torch.nn.SiLU, (0.0,), weights=xavier_normal),
    "gelu": Activation(torch.nn.GELU, (0.0,), weights=xavier_normal),
    "crelu": Activation(CReLU, (0.0,), tolerance=0.0, copies=2),
}
"""The activation functions of the study by name."""
