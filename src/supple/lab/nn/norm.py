"""Layer normalization whose scale decays to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from supple.functional.initial import Constant, Distribution


class ReparameterizedLayerNorm(torch.nn.LayerNorm):
    """Layer normalization with y = normalized(x) * (1 + weight) + bias, where weight and bias start at 0.

    Weight decay then pulls the scale to 1 rather than to 0. Everything else is as in :class:`torch.nn.LayerNorm`, whose
    arguments it takes.

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212; Ba, Kiros and Hinton, "Layer normalization",
    arXiv 1607.06450, section 3.
    """

    def reset_parameters(self) -> None:
        """Sets weight and bias to 0."""
        for parameter in self.parameters(recurse=False):
            torch.nn.init.zeros_(parameter)

    @property
    def scale(self) -> Tensor | None:
        """What normalized values are multiplied by, 1 + weight; None without ``elementwise_affine``."""
        return None if self.weight is None else 1 + self.weight

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from.

        Returns:
            The distribution by parameter name.
        """
        return {name: Constant(0.0) for name, _ in self.named_parameters(recurse=False)}

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the last dimensions.

        Args:
            x: [..., *normalized_shape].

        Returns:
            Same shape.
        """
        return torch.nn.functional.layer_norm(x, self.normalized_shape, self.scale, self.bias, self.eps)
