"""The one-cycle schedule against PyTorch's scheduler."""

from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from supple.optim import one_cycle


@pytest.mark.parametrize("steps", [4, 5, 10, 33, 2500])
@pytest.mark.parametrize("momentum", [(0.85, 0.95), (0.9, 0.9)])
def test_it_is_that_of_torch(steps, momentum):
    low, high = momentum
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(
        optimizer, 0.01, total_steps=steps, anneal_strategy="linear", base_momentum=low, max_momentum=high
    )
    for step in range(steps):
        group = optimizer.param_groups[0]
        assert one_cycle(step, steps, 0.01 / 25, 0.01, 0.01 / 25e4) == pytest.approx(group["lr"], rel=1e-9, abs=1e-15)
        assert one_cycle(step, steps, high, low, high) == pytest.approx(group["momentum"], rel=1e-9)
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()


def test_up_then_down_on_straight_lines():
    values = [one_cycle(step, 100, 1.0, 30.0, 0.0) for step in range(100)]
    assert values[0] == 1.0
    assert values[29] == 30.0
    assert values[99] == 0.0
    differences = [later - now for now, later in pairwise(values)]
    assert differences[:29] == pytest.approx([1.0] * 29)
    assert differences[29:] == pytest.approx([-30 / 70] * 70)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_cycles_end_at_the_end(steps):
    values = [one_cycle(step, steps, 0.5, 1.0, 0.1) for step in range(steps)]
    assert all(0 < value <= 1.0 for value in values)
    assert values[-1] == (pytest.approx(0.1))


@pytest.mark.parametrize("step", [-1, 10])
def test_steps_outside(step):
    with pytest.raises(ValueError, match=rf"step is {step}; a cycle of 10 steps"):
        one_cycle(step, 10, 0.0, 1.0, 0.0)
