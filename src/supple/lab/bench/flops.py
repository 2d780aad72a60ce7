"""Floating-point operations of a training step, and the weights that it changes."""

from __future__ import annotations

from supple.lab.nn import Architecture


def step_flops(hidden: int, inputs: int = 784, outputs: int = 10, depth: int = 3, batch: int = 30) -> int:
    """Operations of the matrix products of one training step of one multilayer perceptron.

    A multiply-add is two operations. Only products count, so that a rate
    in these operations can be held against the machine's peak rate of matrix products.

    Args:
        hidden: units of each hidden layer.
        inputs: number of inputs.
        outputs: number of outputs.
        depth: number of hidden layers.
        batch: examples a step.

    Returns:
        The number of operations.
    """
    return 2 * batch * Architecture(inputs, hidden, outputs, depth).multiply_adds


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
    return 4 * Architecture(inputs, hidden, outputs, depth).parameter_count
