"""Selective weight reinitialization against a loop over weights."""

import copy
import itertools
import math
import weakref

import numpy as np
import pytest
import reference
import torch
from helpers import network
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import supple
from supple.functional import initial, random

UTILITIES, PRUNINGS, REINITS = ["gradient", "magnitude", "random"], ["threshold", "proportional"], ["resample", "mean"]
VARIANTS = list(itertools.product(UTILITIES, PRUNINGS, REINITS))
every_variant = pytest.mark.parametrize(("utility", "pruning", "reinit"), VARIANTS)
FACTORS = {"threshold": 0.7, "proportional": 0.15}
MISSED = weakref.WeakKeyDictionary()
"""For each method how many turns each parameter has missed one after the other."""


class Everything(nn.Module):
    """Parameters of every kind: an embedding with padding, a convolution in channels_last, a scalar, a tied weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=2)
        self.conv = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.LayerNorm(4)
        self.gain = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.zeros(5))
        self.one = nn.Linear(4, 5)
        self.two = nn.Linear(5, 5)
        self.tied = nn.Linear(5, 5)
        self.tied.weight = self.two.weight
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        tokens, images = x
        body = self.norm(self.embedding(tokens).mean(dim=1) + self.conv(images).mean(dim=(2, 3)))
        return self.gain * self.frozen(self.tied(torch.tanh(self.two(torch.tanh(self.one(body))))) + self.shift)


def everything(dtype=torch.float64):
    torch.manual_seed(0)
    return Everything().to(dtype)


def batch(step, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, 7, (6, 3), generator=generator)
    images = torch.randn(6, 2, 5, 5, generator=generator, dtype=torch.float64)
    return (tokens, images.to(dtype)), torch.randint(0, 5, (6,), generator=generator)


def backward(model, step, dtype=torch.float64):
    x, y = batch(step, dtype)
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()


def sampled(distribution, name, step, shape, seed=0):
    """The values of a whole tensor, of which the chosen entries are taken."""
    where = random.purpose("SWR", "resample", name)
    return initial.sample(distribution, torch.tensor([seed]), where, step, shape)[0]


def expected_change(method, name, parameter, step, average=None):
    """(new values, places) by a loop over the entries; None for a parameter that is left alone."""
    gradient = parameter.grad
    if gradient is None and method.utility == "gradient":
        return None
    seed = torch.tensor([0])
    old = parameter.detach().double().flatten().tolist()
    if method.utility == "random":
        noise = random.uniform(seed, random.purpose("SWR", "utility", name), step, len(old))
        utilities = noise[0].double().tolist()
    else:
        theirs = None if gradient is None else gradient.double().flatten().tolist()
        utilities = reference.weight_utilities(method.utility, old, theirs)
        if method.utility == "gradient" and not any(utilities):
            return None
    if average is not None:
        decay, past = average
        past[name] = utilities = [
            decay * before + (1 - decay) * now
            for before, now in zip(past.get(name, [0.0] * len(old)), utilities, strict=True)
        ]
    turns = 1 + MISSED.get(method, {}).get(name, 0)
    factor = FACTORS[method.pruning] * turns
    if method.pruning == "threshold":
        places = reference.below_threshold(utilities, factor)
    else:
        chance = float(random.uniform(seed, random.purpose("SWR", "count", name), step, 1))
        words = reference.tie_words("SWR", name, step, len(old))
        places = reference.lowest(utilities, reference.share_of(len(old), min(1.0, factor), chance), words)
    if name == "embedding.weight":
        places = [place for place in places if place // 4 != 2]
    distribution = method.distributions[name]
    new = sampled(distribution, name, step, parameter.shape).double().flatten().tolist()
    values = list(old)
    for place in places:
        values[place] = distribution.mean if method.reinit == "mean" else new[place]
    return values, places


def check_step(model, method, step, average=None):
    """Lets the method act, and compares everything with the loop."""
    before = copy.deepcopy(model.state_dict())
    changes = {
        name: expected_change(method, name, p, step, average) for name, p in model.named_parameters() if p.requires_grad
    }
    method.step()
    count = 0
    for name, value in model.state_dict().items():
        change = changes.get("two.weight" if name == "tied.weight" else name)
        missed = MISSED.setdefault(method, {})
        missed[name] = missed.get(name, 0) + 1 if change is None else 0
        if change is None:
            assert torch.equal(value, before[name]), name
            continue
        values, places = change
        expected = torch.tensor(values, dtype=torch.float64).to(value.dtype).view(value.shape)
        assert torch.equal(value, expected), name
        count += len(places) * (name != "tied.weight")
    assert int(method.reinitialized.last) == count
    return count


@pytest.mark.one_in(3)
@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_step_equals_a_loop_over_weights(utility, pruning, reinit, dtype):
    model = everything(dtype)
    method = supple.SWR(
        model, frequency=3, factor=FACTORS[pruning], utility=utility, pruning=pruning, reinit=reinit, seed=0
    )
    total = 0
    for step in range(1, 7):
        backward(model, step, dtype)
        if step % 3:
            before = copy.deepcopy(model.state_dict())
            method.step()
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
            assert int(method.reinitialized.last) == 0
        else:
            total += check_step(model, method, step)
        assert int(method.reinitialized.total) == total
    assert total > 20


@pytest.mark.one_in(3)
@every_variant
def test_moving_average_equals_a_loop_and_starts_again_when_due(utility, pruning, reinit):
    model = everything()
    decay, past = 0.6, {}
    settings = {"frequency": 3, "factor": FACTORS[pruning], "decay": decay, "seed": 0}
    method = supple.SWR(model, utility=utility, pruning=pruning, reinit=reinit, **settings)
    for step in range(1, 10):
        backward(model, step)
        if step % 3 == 0:
            assert check_step(model, method, step, (decay, past)) > 10
            past = {}
            continue
        for name, p in model.named_parameters():
            if p.requires_grad:
                expected_change(method, name, p, step, (decay, past))
        method.step()


def test_memory_order_stays_as_it_is():
    model = everything()
    assert not model.conv.weight.is_contiguous()
    method = supple.SWR(model, frequency=1, factor=0.5, decay=0.5)
    backward(model, 1)
    strides, pointer = model.conv.weight.stride(), model.conv.weight.data_ptr()
    method.step()
    assert (model.conv.weight.stride(), model.conv.weight.data_ptr()) == (strides, pointer)


def test_without_gradients_a_parameter_is_left_alone_only_by_the_gradient_utility():
    for utility, touched in (("gradient", False), ("magnitude", True)):
        model = everything()
        before = model.unused.weight.detach().clone()
        backward(model, 1)
        supple.SWR(model, frequency=1, factor=0.9, utility=utility).step()
        assert torch.equal(model.unused.weight, before) is not touched


def test_entries_without_a_gradient_are_reborn():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    method = supple.SWR(model, frequency=1, factor=1e-12)
    x = torch.randn(5, 4, dtype=torch.float64)
    x[:, 1] = 0  # a pixel that is always dark
    model(x).sum().backward()
    before = model[0].weight.detach().clone()
    method.step()
    changed = model[0].weight.detach() != before
    dead = model[0].weight.grad.abs().sum(dim=1) == 0
    assert changed[:, 1].all()
    assert torch.equal(changed, (torch.arange(4) == 1) | dead.unsqueeze(1))


def test_resampled_values_follow_the_initial_distribution():
    torch.manual_seed(0)
    model = nn.Linear(300, 200)
    method = supple.SWR(model, frequency=1, factor=1, utility="random", pruning="proportional", seed=5)
    before = model.weight.detach().clone()
    method.step()
    weight, bound = model.weight.detach().clone(), 300**-0.5
    assert not torch.equal(weight, before)
    assert float(weight.abs().max()) <= bound
    ranks = torch.arange(1, weight.numel() + 1) / weight.numel()
    distance = ((weight.flatten().sort().values + bound) / (2 * bound) - ranks).abs().max()
    assert float(distance) < 1.95 / weight.numel() ** 0.5  # Kolmogorov and Smirnov, one time in a thousand
    method.step()
    assert not torch.equal(model.weight, weight)


def test_proportional_numbers_are_right_on_average():
    model = nn.Linear(3, 3, bias=False)
    method = supple.SWR(model, frequency=1, factor=0.05, utility="random", pruning="proportional")
    steps = 600
    for _ in range(steps):
        method.step()
    share = 0.45
    error = (share * (1 - share) / steps) ** 0.5
    assert int(method.reinitialized.total) / steps == pytest.approx(share, abs=4 * error)


@given(
    st.sampled_from(VARIANTS),
    st.floats(0, 1),
    st.floats(0, 0.99),
    st.integers(1, 3),
    st.integers(-(2**63), 2**63 - 1),
)
def test_counts_equal_what_changed_and_nothing_else_changes(variant, factor, decay, frequency, seed):
    """Weights only: a resampled continuous value is never the old one; constants may stay as they are."""
    utility, pruning, reinit = variant
    model = network(4, 6, 3, layer_norm=True).double()
    for name, p in model.named_parameters():
        p.requires_grad_(name in ("0.weight", "3.weight"))
    method = supple.SWR(
        model,
        frequency=frequency,
        factor=factor,
        utility=utility,
        pruning=pruning,
        reinit=reinit,
        decay=decay,
        seed=seed,
    )
    total = 0
    for step in range(1, 4):
        model.zero_grad()
        x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.01  # so that no weight is at its mean already
        before = copy.deepcopy(model.state_dict())
        method.step()
        changed = sum(int((value != before[name]).sum()) for name, value in model.state_dict().items())
        assert int(method.reinitialized.last) == changed
        if step % frequency or factor == 0:
            assert changed == 0
        elif pruning == "proportional":
            # A layer whose utilities are all 0 stays as it is: the layer norm of equal features has no gradient.
            some = {"0.weight": True, "3.weight": True}
            if utility == "gradient":
                some = {name: bool(p.grad.any()) for name, p in model.named_parameters() if p.grad is not None}
            expected = [factor * size for name, size in (("0.weight", 24), ("3.weight", 18)) if some[name]]
            assert sum(map(math.floor, expected)) <= changed <= sum(math.floor(e) + 1 for e in expected)
        total += changed
    assert int(method.reinitialized.total) == total


@pytest.mark.parametrize("optimizer_state", ["keep", "fresh"])
def test_optimizer_state_of_reinitialized_entries(optimizer_state):
    model = network(4, 6, 3, layer_norm=True).double()
    optimizer = torch.optim.Adam(model.parameters())
    method = supple.SWR(
        model,
        optimizer,
        frequency=2,
        factor=0.4,
        optimizer_state=optimizer_state,
    )
    for step in (1, 2):
        optimizer.zero_grad()
        x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        before = copy.deepcopy(model.state_dict())
        states = {name: copy.deepcopy(optimizer.state[p]) for name, p in model.named_parameters()}
        method.step()
    assert int(method.reinitialized.last) > 5
    for name in ("0.weight", "3.weight"):
        p = model.get_parameter(name)
        changed = p.detach() != before[name]
        assert changed.any()
        for key in ("exp_avg", "exp_avg_sq"):
            old, new = states[name][key], optimizer.state[p][key]
            wanted = torch.where(changed, 0.0, old) if optimizer_state == "fresh" else old
            assert torch.equal(new, wanted)
        assert float(optimizer.state[p]["step"]) == 2


def test_reference_catches_a_wrong_entry():
    """The comparison itself can fail: one more entry changed, and it says so."""
    model = everything()
    method = supple.SWR(model, frequency=1, factor=0.3, seed=0)
    backward(model, 1)
    step = method.step

    def wrong():
        step()
        with torch.no_grad():
            model.one.weight[0, 0] += 1

    method.step = wrong
    with pytest.raises(AssertionError):
        check_step(model, method, 1)


def test_the_reference_is_the_formula():
    """The loop's own answers on numbers worked out by hand."""
    assert reference.weight_utilities("gradient", [2.0, -3.0], [-1.0, 0.5]) == [2.0, 1.5]
    assert reference.below_threshold([0.0, 1.0, 2.0, 5.0], 0.5) == [0, 1]
    assert reference.below_threshold([0.0, 1.0], 0.0) == []
    assert reference.lowest([3.0, 1.0, 1.0, 0.5], 2, [4, 3, 1, 2]) == [3, 2]
    assert reference.lowest([3.0, 1.0, 1.0, 0.5], 2, [4, 1, 1, 2]) == [3, 1]
    assert (reference.share_of(10, 0.25, 0.4), reference.share_of(10, 0.25, 0.6)) == (3, 2)
    assert reference.unit_utility("contribution", [1.0, -3.0], [0.5, -0.5, 0.5, 0.5], []) == 1.0
    assert reference.unit_utility("gradient", [], [1.0, 2.0], [3.0, -1.0]) == 1.0
    ages = reference.Ages(4, maturity=1, rate=0.25)
    assert [ages.choose([4, 3, 2, 1], [0, 0, 0, 0]) for _ in range(5)] == [[], [3], [], [3], [2]]
    assert np.isclose(reference.Averages(1, 0.5).add([3.0]), 3.0)
