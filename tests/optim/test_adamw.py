import math

import numpy as np
import pytest
import torch

from supple.lab.nn import StackedMLP
from supple.optim import AdamW


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.8)])
def test_each_replica_is_torch_adamw_whose_decay_is_over_the_step_size(betas):
    rates, decays = [1e-2, 1e-3, 5e-4], [1e-3, 1e-5, 0.0]
    stack = StackedMLP([0, 1, 2], inputs=6, hidden=5, outputs=3, layer_norm="after").double()
    alone = [stack.replica(r) for r in range(3)]
    optimizer = AdamW(
        stack.parameters(),
        lr=torch.tensor(rates, dtype=torch.float64),
        betas=betas,
        weight_decay=torch.tensor(decays, dtype=torch.float64),
    )
    others = [
        torch.optim.AdamW(network.parameters(), lr=rate, betas=betas, weight_decay=decay / rate)
        for network, rate, decay in zip(alone, rates, decays, strict=True)
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
            torch.testing.assert_close(p[r], q, rtol=1e-8, atol=1e-9)
            for name in ("exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(optimizer.state[p][name][r], others[r].state[q][name], rtol=1e-7, atol=1e-10)
            assert optimizer.state[p]["step"] == others[r].state[q]["step"] == 50


@pytest.mark.parametrize("contiguous", [True, False])
def test_entry_by_entry_reference(contiguous):
    shapes, rates, decays = [(3, 2, 4), (3, 4)], [0.1, 0.01, 0.5], [1e-2, 0.0, 1e-3]
    beta1, beta2, eps = 0.8, 0.95, 1e-3
    generator = np.random.default_rng(0)
    start = [generator.normal(size=shape) for shape in shapes]
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in start]
    optimizer = AdamW(
        parameters,
        lr=torch.tensor(rates, dtype=torch.float64),
        betas=(beta1, beta2),
        eps=eps,
        weight_decay=torch.tensor(decays, dtype=torch.float64),
    )
    w, m, v = [value.copy() for value in start], [np.zeros(s) for s in shapes], [np.zeros(s) for s in shapes]
    for t in range(1, 51):
        for k, shape in enumerate(shapes):
            gradient = generator.normal(size=shape)
            parameters[k].grad = torch.tensor(gradient)
            if not contiguous:
                parameters[k].grad = parameters[k].grad.mT.contiguous().mT
            for i in np.ndindex(*shape):
                w[k][i] = (1 - decays[i[0]]) * w[k][i]
                m[k][i] = beta1 * m[k][i] + (1 - beta1) * gradient[i]
                v[k][i] = beta2 * v[k][i] + (1 - beta2) * gradient[i] ** 2
                average, square = m[k][i] / (1 - beta1**t), v[k][i] / (1 - beta2**t)
                w[k][i] -= rates[i[0]] * average / (math.sqrt(square) + eps)
        optimizer.step()
    for parameter, value in zip(parameters, w, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-11, atol=1e-12)
