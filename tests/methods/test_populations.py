"""A population of different settings and seeds gives what each network gives alone."""

import pytest
import torch
from every_method import EVERY, FEW, build
from helpers import train
from torch import nn

import supple
from supple.lab.nn import StackedMLP
from supple.methods import weights
from supple.optim import SGDW, AdamW

REPLICAS, STEPS, BATCH = 6, 100, 5
SEEDS = [3, 3, 8, 2**40, 0, 11]
RATES = [0.05, 0.02, 0.1, 0.05, 0.03, 0.01]
ARCHITECTURES = {
    "plain": {},
    "layer norm": {"layer_norm": "after"},
    "crelu, norm before": {"activation": "crelu", "layer_norm": "before", "reparameterized": True},
}


def batches(steps):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, REPLICAS, BATCH, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (steps, REPLICAS, BATCH), generator=generator)
    return x, y


def learn(model, optimizer, method, x, y):
    """X [steps, (R,) B, inputs]; the counts of every step."""

    def loss(model, inputs, labels):
        outputs = model(inputs).flatten(0, -2)
        return nn.functional.cross_entropy(outputs, labels.flatten(), reduction="sum") / BATCH

    counts = train(model, optimizer, method, zip(x, y, strict=True), loss)
    assert bool(torch.equal(sum(counts), method.reinitialized.total))
    return torch.stack(counts)


def compare(architecture, make_method, make_optimizer, replicas=range(REPLICAS), steps=STEPS, tolerance=1e-9):
    x, y = batches(steps)
    stack = StackedMLP(SEEDS, 5, 8, 3, 2, **ARCHITECTURES[architecture]).double()
    alone = [stack.replica(r) for r in replicas]
    optimizer = make_optimizer(stack.parameters(), torch.tensor(RATES, dtype=torch.float64))
    method = make_method(stack, optimizer, None)
    together = learn(stack, optimizer, method, x, y)
    assert together.shape == (steps, REPLICAS)
    for r, model in zip(replicas, alone, strict=True):
        optimizer = make_optimizer(model.parameters(), RATES[r])
        counts = learn(model, optimizer, make_method(model, optimizer, r), x[:, r], y[:, r])
        assert torch.equal(counts, together[:, r]), f"replica {r}"
        for name, p in stack.named_parameters():
            # The products of the two are summed in another order, so they differ in the last bit at first.
            torch.testing.assert_close(
                model.get_parameter(name), p[r], rtol=tolerance, atol=tolerance / 100, msg=f"{name} {r}"
            )
    return together


def sgdw(parameters, lr):
    return SGDW(parameters, lr=lr, momentum=0.3)


def with_seed(name, model, optimizer, replica, **more):
    seed = {} if replica is None else {"seed": SEEDS[replica]}
    return build(name, model, optimizer, replica, **seed, **more)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", EVERY)
def test_every_method_acts_alike_alone_and_in_a_population(name):
    """One of the six alone for each method; which one changes, so that all settings have their turn."""
    one = list(EVERY).index(name) % REPLICAS
    steps = STEPS if name in FEW else 50
    counts = compare("plain", lambda *arguments: with_seed(name, *arguments), sgdw, replicas=[one], steps=steps)
    assert bool(counts.any()) is EVERY[name][0].replaces


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", EVERY)
def test_every_method_with_all_replicas_and_architectures(name, architecture):
    """Where a normalization divides by little, training blows a change in the last bit up: there fewer steps."""
    limits = {} if architecture == "plain" else {"steps": 50, "tolerance": 1e-6}
    compare(architecture, lambda *arguments: with_seed(name, *arguments), sgdw, **limits)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("architecture", ["layer norm", "crelu, norm before"])
@pytest.mark.parametrize(
    "name", ["SWR gradient threshold resample", "CBP of 2024", "CBP gradient", "ReDo contribution"]
)
def test_other_architectures(name, architecture):
    compare(architecture, lambda *arguments: with_seed(name, *arguments), sgdw, replicas=[4])


@pytest.mark.parametrize("name", [name for name, (kind, *_) in EVERY.items() if getattr(kind, "pieces", "")])
def test_pieces_of_large_parameters_are_acted_on_as_all_at_once(name, monkeypatch):
    def learned():
        stack = StackedMLP(SEEDS, 5, 8, 3, 2).double()
        optimizer = sgdw(stack.parameters(), torch.tensor(RATES, dtype=torch.float64))
        learn(stack, optimizer, with_seed(name, stack, optimizer, None), *batches(10))
        return stack.state_dict()

    at_once = learned()
    monkeypatch.setattr(weights, "_ENTRIES", 90)  # two replicas of 5 x 8 weights, and some outputs of one
    monkeypatch.setattr(weights, "_CACHED", 20)
    torch.testing.assert_close(learned(), at_once, rtol=1e-10, atol=1e-12)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["SWR gradient threshold resample", "CBP contribution", "ReDo gradient"])
def test_fresh_optimizer_state(name):
    def adamw(parameters, lr):
        return AdamW(parameters, lr=lr, weight_decay=1e-5)

    compare("plain", lambda *a: with_seed(name, *a, optimizer_state="fresh"), adamw, replicas=[5])


def test_a_chain():
    def both(model, optimizer, replica):
        return supple.chain(
            with_seed("S&P", model, optimizer, replica),
            with_seed("SWR gradient proportional resample", model, optimizer, replica),
            with_seed("CBP activation", model, optimizer, replica),
        )

    compare("plain", both, sgdw, replicas=[1, 5])


def test_replicas_of_the_same_seed_and_settings_are_the_same():
    stack = StackedMLP([5, 5, 6], 5, 8, 3, 2)
    methods = supple.chain(
        supple.ShrinkAndPerturb(stack, variance=1e-4),
        supple.SWR(stack, frequency=2, factor=0.4, utility="random"),
        supple.CBP(stack, maturity=1, replacement_rate=0.2, utility="magnitude", counting="draw"),
    )
    for _ in range(10):
        methods.step()
    for p in stack.parameters():
        assert torch.equal(p[0], p[1])
    assert not torch.equal(stack.output.weight[0], stack.output.weight[2])
