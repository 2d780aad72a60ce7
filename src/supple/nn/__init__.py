"""Networks and layers: the multilayer perceptron of the study, alone and stacked, and its vision transformer."""

from supple.nn.activation import ACTIVATIONS, Activation, CReLU
from supple.nn.architecture import Architecture
from supple.nn.mlp import MLP, StackedMLP
from supple.nn.norm import ReparameterizedLayerNorm
from supple.nn.stacked import Stacked, StackedLayerNorm, StackedLinear
from supple.nn.vit import ViT

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "Architecture",
    "CReLU",
    "ReparameterizedLayerNorm",
    "Stacked",
    "StackedLayerNorm",
    "StackedLinear",
    "StackedMLP",
    "ViT",
]
