import numpy as np
import pytest
import torch

from supple.lab.nn import StackedMLP
from supple.optim import SGDW


def gradients(step, shapes):
    generator = np.random.default_rng(step)
    return [generator.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_decay_each_replica_is_torch_sgd(momentum):
    rates = [0.1, 0.03, 0.01]
    stack = StackedMLP([0, 1, 2], inputs=6, hidden=5, outputs=3, layer_norm="after").double()
    alone = [stack.replica(r) for r in range(3)]
    optimizer = SGDW(stack.parameters(), lr=torch.tensor(rates, dtype=torch.float64), momentum=momentum)
    others = [
        torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)
        for network, rate in zip(alone, rates, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        x = torch.randn(8, 6, dtype=torch.float64, generator=generator)
        y = torch.randint(3, (8,), generator=generator)
        for model, one in zip([stack, *alone], [optimizer, *others], strict=True):
            out = model(x).view(-1, 8, 3)
            one.zero_grad()
            sum(torch.nn.functional.cross_entropy(part, y) for part in out).backward()
            one.step()
    for r, network in enumerate(alone):
        for p, q in zip(stack.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(p[r], q, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_entry_by_entry_reference(momentum):
    shapes, rates, decays = [(3, 2, 4), (3, 4)], [0.1, 0.01, 0.5], [1e-2, 0.0, 1e-3]
    start = gradients(1000, shapes)
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = SGDW(
        parameters,
        lr=torch.tensor(rates, dtype=torch.float64),
        momentum=momentum,
        weight_decay=torch.tensor(decays, dtype=torch.float64),
    )
    expected, buffers = [value.copy() for value in start], [np.zeros(shape) for shape in shapes]
    for step in range(50):
        for k, gradient in enumerate(gradients(step, shapes)):
            parameters[k].grad = torch.tensor(gradient)
            for index in np.ndindex(*shapes[k]):
                r = index[0]
                expected[k][index] -= decays[r] * expected[k][index]
                buffers[k][index] = momentum * buffers[k][index] + gradient[index]
                expected[k][index] -= rates[r] * buffers[k][index]
        optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-11, atol=1e-12)


def test_the_gradient_is_not_changed():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = SGDW([parameter], lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.step()
    assert parameter.grad.tolist() == [1, 1, 1]
