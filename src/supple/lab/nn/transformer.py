"""The layers of a transformer: attention, the MLP, and the block of both."""

from __future__ import annotations

import math

from torch import Tensor, nn

from supple.functional.initial import Constant, Distribution, Uniform
from supple.lab.nn.dropout import Dropout, dropout
from supple.lab.nn.norm import ReparameterizedLayerNorm


def layer_norm(width: int, reparameterized: bool) -> nn.LayerNorm:
    """A layer normalization with eps 1e-6, as vision transformers have it.

    Args:
        width: size of a token.
        reparameterized: whether its scale is 1 + weight.

    Returns:
        The layer.
    """
    return (ReparameterizedLayerNorm if reparameterized else nn.LayerNorm)(width, eps=1e-6)


def attend(parts: Tensor, p: float) -> Tensor:
    """For each query the mean of the values, weighted by softmax(Q K^T / sqrt(d)), whose entries are dropped.

    Args:
        parts: [3, B, heads, T, d]: queries Q, keys K and values V.
        p: probability that a weight of the mean is dropped, 0 <= p < 1.

    Returns:
        [B, heads, T, d].
    """
    if p and parts.device.type == "cpu":
        # There is no fused kernel with dropout for a CPU. One copy of all parts spares each product its own.
        queries, keys, values = parts.contiguous()
        weights = (queries * queries.shape[-1] ** -0.5 @ keys.mT).softmax(-1)
        return dropout(weights, p) @ values
    queries, keys, values = parts
    return nn.functional.scaled_dot_product_attention(queries, keys, values, dropout_p=p)


class Attention(nn.Module):
    """Multi-head self-attention: every token takes in a mean of all tokens, weighted by how well they fit.

    Head h computes softmax(Q K^T / sqrt(d)) V with d = width / heads, where Q, K and V are slices h of the input
    projection's three parts; the heads side by side go through the output projection.

    Args:
        width: size of a token.
        heads: number of heads.
        dropout: probability that a weight of the mean is dropped.

    Source: Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_projection = nn.Linear(width, 3 * width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            x: tokens [B, T, width].

        Returns:
            Same shape.
        """
        parts = self.in_projection(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(parts, self.dropout if self.training else 0.0)
        return self.out_projection(mixed.transpose(1, 2).flatten(2))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from.

        Returns:
            The distribution by parameter name.
        """
        rows, width = self.in_projection.weight.shape
        return {
            # Xavier uniform of the three projections as one matrix, as in torch.nn.MultiheadAttention.
            "in_projection.weight": _within(math.sqrt(6 / (rows + width))),
            "in_projection.bias": Constant(0.0),
            "out_projection.weight": _within(1 / math.sqrt(width)),
            "out_projection.bias": Constant(0.0),
        }


class FeedForward(nn.Module):
    """The MLP of a block: a layer of hidden units, applied to each token by itself.

    Args:
        width: size of a token.
        hidden: number of hidden units.
        dropout: probability that a hidden unit or an output is dropped.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.dropout1 = Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.dropout2 = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            x: tokens [B, T, width].

        Returns:
            Same shape.
        """
        return self.dropout2(self.linear2(self.dropout1(self.activation(self.linear1(x)))))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from.

        Returns:
            The distribution by parameter name.
        """
        bounds = {name: 1 / math.sqrt(getattr(self, name).in_features) for name in ("linear1", "linear2")}
        return {f"{name}.{kind}": _within(bound) for name, bound in bounds.items() for kind in ("weight", "bias")}


class EncoderBlock(nn.Module):
    """A layer of the transformer, with the normalization first: attention, then the MLP, each added to what comes in.

    Args:
        width: size of a token.
        heads: number of attention heads.
        hidden: hidden units of the MLP.
        dropout: probability of dropout.
        reparameterized: whether the normalizations' scale is 1 + weight.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, reparameterized: bool) -> None:
        super().__init__()
        self.norm1 = layer_norm(width, reparameterized)
        self.attention = Attention(width, heads, dropout)
        self.dropout = Dropout(dropout)
        self.norm2 = layer_norm(width, reparameterized)
        self.mlp = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            x: tokens [B, T, width].

        Returns:
            Same shape.
        """
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))

    @property
    def activation(self) -> nn.Module:
        """The module that puts out the hidden units of the MLP, [B, T, hidden]."""
        return self.mlp.activation


def _within(bound: float) -> Uniform:
    return Uniform(-bound, bound)
