"""The multilayer perceptron written out in numpy, one formula a line."""

import itertools
import math

import numpy as np

ACTIVATIONS = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(z),
    "crelu": lambda z: np.concatenate([np.where(z > 0, z, 0.0), np.where(z < 0, -z, 0.0)], axis=-1),
    "fourier": lambda z: np.concatenate([np.sin(z), np.cos(z)], axis=-1),
}

VARIANTS = [
    {"activation": activation, "skip": skip, "layer_norm": layer_norm, "reparameterized": reparameterized}
    for activation, skip, layer_norm, reparameterized in itertools.product(
        ACTIVATIONS, (None, "after", "before"), (None, "after", "before"), (False, True)
    )
    if not (reparameterized and layer_norm is None) and not (activation in ("crelu", "fourier") and skip == "before")
]


def name_of(variant):
    return "-".join(str(value) for value in variant.values())


def normalize(x, scale, shift):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def forward(values, x, depth, activation, skip, layer_norm, reparameterized):
    """Outputs [B, outputs], and each hidden layer's activations and outputs [B, hidden].

    ``values`` are the parameters by name, as numpy arrays; x is [B, inputs].
    """
    layers = []
    previous = None
    for k in range(depth):
        z = x @ values[f"blocks.{k}.linear.weight"].T + values[f"blocks.{k}.linear.bias"]
        if layer_norm is not None:
            scale = values[f"blocks.{k}.norm.weight"] + (1 if reparameterized else 0)
            shift = values[f"blocks.{k}.norm.bias"]
        if layer_norm == "before":
            z = normalize(z, scale, shift)
        if skip == "before" and k > 0:
            z = z + previous
        a = ACTIVATIONS[activation](z)
        if skip == "after" and k > 0:
            a = a + previous
        x = normalize(a, scale, shift) if layer_norm == "after" else a
        previous = a
        layers.append((a, x))
    return x @ values["output.weight"].T + values["output.bias"], layers
