"""Floating-point operations of a training step, and the weights that it changes."""

from __future__ import annotations

from itertools import pairwise


def step_flops(hidden: int, inputs: int = 784, outputs: int = 10, depth: int = 3, batch: int = 30) -> int:
    """Operations of the matrix products of one training step of one multilayer perceptron.

    A product of [batch, in] and [in, out] is batch * in * out multiply-adds of two operations each. Every layer has
    three such products: forward, gradient of the weights, and gradient of the input, which the first layer does not
    need. Everything else (activations, loss, biases, optimizer, methods) is left out, so that a rate in these
    operations can be held against the machine's peak rate of matrix products.

    Args:
        hidden: units of each hidden layer.
        inputs: number of inputs.
        outputs: number of outputs.
        depth: number of hidden layers.
        batch: examples a step.

    Returns:
        The number of operations.
    """
    layers = [i * o for i, o in pairwise([inputs, *[hidden] * depth, outputs])]
    return 2 * batch * (3 * sum(layers) - layers[0])


def weights(hidden: int, inputs: int = 784, outputs: int = 10, depth: int = 3) -> int:
    """Bytes of the weights and biases of one multilayer perceptron, in single precision.

    Args:
        hidden: units of each hidden layer.
        inputs: number of inputs.
        outputs: number of outputs.
        depth: number of hidden layers.

    Returns:
        Bytes.
    """
    return 4 * sum((i + 1) * o for i, o in pairwise([inputs, *[hidden] * depth, outputs]))
