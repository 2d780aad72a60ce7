"""Reading what a network computes on the way to its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from supple.lab.nn.mlp import MLP, StackedMLP
from supple.lab.nn.resnet import ResNet
from supple.lab.nn.vit import ViT
from supple.metrics import dead_units


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of a network, or of a stack of R, on E examples.

    ``hidden`` are the outputs of the activation function of each hidden layer, [E, width], or [R, E, width]; of a
    transformer that in each block, [E, tokens, width], and of a residual network, [E, channels, height, width].
    ``last`` is what the output layer receives.
    """

    hidden: list[Tensor]
    last: Tensor


@torch.no_grad()
def activations(network: MLP | StackedMLP | ViT | ResNet, x: Tensor) -> Activations:
    """Activations of a network on examples as it takes them."""
    return output_and_activations(network, x)[1]


def output_and_activations(network: MLP | StackedMLP | ViT | ResNet, x: Tensor) -> tuple[Tensor, Activations]:
    """Output and activations of a network on the given examples, in evaluation mode."""
    hidden: list[Tensor] = []
    last: list[Tensor] = []
    handles = [
        cast(nn.Module, block.activation).register_forward_hook(lambda module, inputs, output: hidden.append(output))
        for block in network.blocks
    ]
    handles.append(network.output.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0])))
    training = network.training
    try:
        # Hooks that read features for a method do not count what is measured.
        output = network.eval()(x)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return output, Activations(hidden, last[0])


def dead_share(network: MLP | StackedMLP, found: Activations) -> Tensor:
    """Share of all hidden units that are dead in some activations, from 0 to 1; a scalar, or [R] for a stack."""
    shape = network.architecture.kind.shape
    dead = [dead_units(features, shape.saturated, shape.tolerance) for features in found.hidden]
    return torch.cat(dead, dim=-1).float().mean(dim=-1)
