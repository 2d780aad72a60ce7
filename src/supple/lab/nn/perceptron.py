"""What a multilayer perceptron and a stack of them share: the layers, their order, and how they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch
from torch import Tensor

from supple.functional.initial import Distribution
from supple.lab.nn.architecture import Architecture
from supple.lab.nn.stacked import initialize
from supple.structure.description import Units


class Block(torch.nn.Module):
    """A hidden layer; :class:`supple.lab.nn.Architecture` says what it computes.

    Args:
        architecture: the options.
        linear: the linear layer.
        make_norm: makes the layer normalization, where there is one.
    """

    def __init__(
        self, architecture: Architecture, linear: torch.nn.Module, make_norm: Callable[[], torch.nn.Module]
    ) -> None:
        super().__init__()
        self.skip, self.layer_norm = architecture.skip, architecture.layer_norm
        self.linear = linear
        if self.layer_norm:
            self.norm = make_norm()
        self.activation = architecture.kind.module()

    def forward(self, x: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Applies the layer.

        Args:
            x: output of the layer before, [..., B, inputs].
            previous: activations of the layer before, [..., B, hidden]; None for the first.

        Returns:
            Output and activations, [..., B, hidden] each; they differ by a normalization after the activation.
        """
        z = self.linear(x)
        if self.layer_norm == "before":
            z = self.norm(z)
        if self.skip == "before" and previous is not None:
            z = z + previous
        activations = self.activation(z)
        if self.skip == "after" and previous is not None:
            activations = activations + previous
        return (self.norm(activations) if self.layer_norm == "after" else activations), activations


class Perceptron:
    """The part of a network that does not depend on whether it is stacked; mixed into a ``torch.nn.Module``.

    Attributes:
        architecture: the sizes and options.
        blocks: the hidden layers.
        output: the last linear layer.
    """

    architecture: Architecture
    blocks: torch.nn.ModuleList
    output: torch.nn.Module

    def _build(
        self,
        make_linear: Callable[[str, int, int], torch.nn.Module],
        make_norm: Callable[[], torch.nn.Module],
        seeds: Tensor,
    ) -> None:
        """Makes the layers and draws their values.

        Args:
            make_linear: makes a linear layer from its name, inputs and outputs.
            make_norm: makes a layer normalization.
            seeds: int64, one seed a network.
        """
        device = torch.get_default_device()
        # Layers made on the meta device draw no values of their own, so torch's random numbers are not moved on.
        with torch.device("meta"):
            *hidden, output = (make_linear(name, *sizes) for name, sizes in self.architecture.linears.items())
            blocks = torch.nn.ModuleList(Block(self.architecture, linear, make_norm) for linear in hidden)
        self.blocks = blocks.to_empty(device=device)
        self.output = output.to_empty(device=device)
        assert isinstance(self, torch.nn.Module)
        initialize(self, self.initial_distributions(), seeds)

    def _apply_layers(self, x: Tensor) -> Tensor:
        activations = None
        for block in self.blocks:
            x, activations = block(x, activations)
        return self.output(x)

    def _summary(self, *more: str) -> str:
        """Sizes, activation and whatever differs from the default, on one line."""
        architecture = self.architecture
        sizes = [architecture.inputs, *[architecture.hidden] * architecture.depth, architecture.outputs]
        options = [f"activation={architecture.activation!r}"]
        for field in fields(architecture):
            value = getattr(architecture, field.name)
            if field.name in ("skip", "layer_norm", "reparameterized") and value != field.default:
                options.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(['-'.join(map(str, sizes)), *options, *more])})"

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter of the network starts from.

        Returns:
            The distribution by parameter name.
        """
        return self.architecture.initial_distributions()

    def hidden_units(self, residual: bool = False) -> Units:
        """The hidden units, a group a layer.

        Args:
            residual: whether to include the layers whose features also flow past the next layer through a skip
                connection. Zeroing the weights that leave such a unit does not silence it.

        Returns:
            The description; layers left out are in its ``excluded``.
        """
        return self.architecture.hidden_units(residual)
