"""Networks and layers: the perceptron of the study, alone and stacked, its vision transformer, and a ResNet."""

from supple.lab.nn.activations import Activations, activations, dead_share, output_and_activations
from supple.lab.nn.architecture import Architecture
from supple.lab.nn.layers import ACTIVATIONS, Activation, CReLU, Fourier, ReparameterizedLayerNorm
from supple.lab.nn.mlp import MLP, StackedMLP
from supple.lab.nn.resnet import ResNet
from supple.lab.nn.stacked import StackedLayerNorm, StackedLinear
from supple.lab.nn.vit import ViT

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Activation",
    "Activations",
    "Architecture",
    "CReLU",
    "Fourier",
    "ReparameterizedLayerNorm",
    "ResNet",
    "StackedLayerNorm",
    "StackedLinear",
    "StackedMLP",
    "ViT",
    "activations",
    "dead_share",
    "output_and_activations",
]
