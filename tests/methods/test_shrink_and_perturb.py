"""L2 and shrink and perturb against the formula, entry by entry and in distribution."""

import math

import pytest
import torch
from helpers import perceptron
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import supple
from supple.lab.nn import StackedMLP


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@given(st.floats(0, 1), st.integers(1, 5))
def test_l2_shrinks_every_parameter(l2, steps):
    model = perceptron(layer_norm="after").double()
    before = weights(model)
    method = supple.L2(model, l2=l2)
    for _ in range(steps):
        method.step()
    torch.testing.assert_close(weights(model), before * (1 - l2) ** steps, rtol=1e-13, atol=1e-300)
    assert int(method.reinitialized.total) == 0


def test_l2_does_not_depend_on_the_step_size_and_is_not_seen_by_the_optimizer():
    model, plain = perceptron(layer_norm="after").double(), perceptron(layer_norm="after").double()
    for one, method in ((model, supple.L2(model, l2=0.01)), (plain, None)):
        optimizer = torch.optim.SGD(one.parameters(), lr=1e-3, momentum=0.9)
        one(torch.ones(1, 5, dtype=torch.float64)).sum().backward()
        optimizer.step()
        if method:
            method.step()
    torch.testing.assert_close(weights(model), 0.99 * weights(plain), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("l2", "variance"), [(0.0, 1e-4), (0.3, 4e-6), (1.0, 1.0)])
def test_shrink_and_perturb_in_distribution(l2, variance):
    model = nn.Linear(300, 300, dtype=torch.float64)
    before = weights(model)
    method = supple.ShrinkAndPerturb(model, l2=l2, variance=variance, seed=7)
    first = None
    for _ in range(2):
        method.step()
        noise = (weights(model) - (1 - l2) * before) / math.sqrt(variance)
        before = weights(model)
        # Mean, variance and the share beyond 1.96, each within four standard errors.
        n = noise.numel()
        assert float(noise.mean()) == pytest.approx(0, abs=4 / n**0.5)
        assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
        assert float((noise.abs() > 1.96).double().mean()) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / n) ** 0.5)
        if first is not None:  # of another step, so independent
            assert float((first * noise).mean()) == pytest.approx(0, abs=4 / n**0.5)
        first = noise


def test_noise_is_a_function_of_seed_and_step_and_leaves_torchs_generator_alone():
    def perturbed(seed, steps, skip=0):
        model = perceptron(layer_norm="after").double()
        method = supple.ShrinkAndPerturb(model, l2=0, variance=1, seed=seed)
        method.steps = skip
        for _ in range(steps):
            before = weights(model)
            method.step()
        return weights(model) - before

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    third = perturbed(5, 3)
    assert torch.equal(torch.rand(1), expected)
    torch.testing.assert_close(perturbed(5, 1, skip=2), third, rtol=0, atol=1e-12)
    assert not torch.equal(perturbed(5, 1), third)
    assert not torch.equal(perturbed(6, 3), third)


@pytest.mark.parametrize("kind", [supple.L2, supple.ShrinkAndPerturb])
def test_zero_does_nothing(kind):
    model = perceptron(layer_norm="after")
    before = weights(model)
    settings = {"l2": 0.0} | ({"variance": 0.0} if kind is supple.ShrinkAndPerturb else {})
    method = kind(model, **settings)
    for _ in range(3):
        method.step()
    assert torch.equal(weights(model), before)


def test_frozen_parameters_stay_and_tied_ones_are_changed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    supple.L2(model, l2=0.5).step()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name] * (1.0 if name.startswith("2") else 0.5))


def test_settings_and_seeds_of_each_replica():
    stack = StackedMLP([1, 1, 2], 5, 6, 3, 2)
    before = [p.detach().clone() for p in stack.parameters()]
    supple.ShrinkAndPerturb(stack, l2=[0.0, 0.5, 0.0], variance=[0.0, 0.0, 1.0]).step()
    for p, old in zip(stack.parameters(), before, strict=True):
        assert torch.equal(p[0], old[0])
        assert torch.equal(p[1], 0.5 * old[1])
        assert bool((p[2] != old[2]).all())
