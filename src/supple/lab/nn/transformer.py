"""The layers of a transformer: attention, the MLP, and the block of both."""

from __future__ import annotations

import math

from torch import Tensor, nn

from supple.functional.initial import Constant, Distribution, Uniform
from supple.lab.nn.layers import Dropout, ReparameterizedLayerNorm, dropout


def layer_norm(width: int, reparameterized: bool) -> nn.LayerNorm:
    """A layer normalization with eps 1e-6, as vision transformers have it."""
    return (ReparameterizedLayerNorm if reparameterized else nn.LayerNorm)(width, eps=1e-6)


def attend(parts: Tensor, p: float) -> Tensor:
    """For each query the mean of the values, weighted by softmax(Q K^T / sqrt(d)), whose entries are dropped.

    From queries, keys and values [3, B, heads, T, d] to [B, heads, T, d]; p is the probability of dropping a weight.
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

    Source: Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.2.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_projection = nn.Linear(width, 3 * width)
        self.out_projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to tokens [B, T, width]."""
        parts = self.in_projection(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = attend(parts, self.dropout if self.training else 0.0)
        return self.out_projection(mixed.transpose(1, 2).flatten(2))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        rows, width = self.in_projection.weight.shape
        return {
            # Xavier uniform of the three projections as one matrix, as in torch.nn.MultiheadAttention.
            "in_projection.weight": _within(math.sqrt(6 / (rows + width))),
            "in_projection.bias": Constant(0.0),
            "out_projection.weight": _within(1 / math.sqrt(width)),
            "out_projection.bias": Constant(0.0),
        }


class FeedForward(nn.Module):
    """The MLP of a block: a layer of hidden units, applied to each token by itself."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.activation = nn.GELU()
        self.dropout1 = Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.dropout2 = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to tokens [B, T, width]."""
        return self.dropout2(self.linear2(self.dropout1(self.activation(self.linear1(x)))))

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by its name."""
        bounds = {name: 1 / math.sqrt(getattr(self, name).in_features) for name in ("linear1", "linear2")}
        return {f"{name}.{kind}": _within(bound) for name, bound in bounds.items() for kind in ("weight", "bias")}


class EncoderBlock(nn.Module):
    """A layer of the transformer: attention, then the MLP, each normalizing first and added to what comes in."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, reparameterized: bool) -> None:
        super().__init__()
        self.norm1 = layer_norm(width, reparameterized)
        self.attention = Attention(width, heads, dropout)
        self.dropout = Dropout(dropout)
        self.norm2 = layer_norm(width, reparameterized)
        self.mlp = FeedForward(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer to tokens [B, T, width]."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.mlp(self.norm2(x))

    @property
    def activation(self) -> nn.Module:
        """The module that puts out the hidden units of the MLP, [B, T, hidden]."""
        return self.mlp.activation


def _within(bound: float) -> Uniform:
    return Uniform(-bound, bound)
