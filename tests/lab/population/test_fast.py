"""The written-out step gives what autograd through the network gives, and a replica is the same in any company."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import ACTIVATIONS, StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.optim import SGDW, AdamW

STEPS, BATCH = 100, 6
SEEDS = [11, 12, 13]
SETTINGS = 2


def images(steps: int = STEPS) -> LabelledImages:
    """Random images, a third of their pixels dark on all of them, with labels that can be learned."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 10, (steps * BATCH,), generator=generator)
    prototypes = torch.randint(0, 200, (10, 5, 5), generator=generator)
    noise = torch.randint(0, 55, (steps * BATCH, 5, 5), generator=generator)
    pictures = (prototypes[labels] + noise) * (torch.rand(5, 5, generator=generator) > 1 / 3)
    return LabelledImages(pictures.to(torch.uint8), labels, 10, "random images")


def seed_first(*values: float) -> torch.Tensor:
    """Setting c of each seed is values[c]."""
    return torch.tensor(values, dtype=torch.float64).repeat(len(SEEDS))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGDW": lambda p: SGDW(p, lr=seed_first(0.01, 0.02), weight_decay=seed_first(0, 1e-3)),
    "SGDW with one number": lambda p: SGDW(p, lr=0.01, weight_decay=1e-3),
    "momentum": lambda p: SGDW(p, lr=seed_first(0.002, 0.004), momentum=0.9, weight_decay=1e-4),
    "AdamW": lambda p: AdamW(p, lr=seed_first(1e-3, 2e-3), weight_decay=seed_first(0, 1e-4)),
    "torch.optim.SGD": lambda p: torch.optim.SGD(p, lr=0.02),
}
METHODS: dict[str, Callable[[StackedMLP, torch.optim.Optimizer], supple.Method | supple.Chain | None]] = {
    "base": lambda n, o: None,
    "L2": lambda n, o: supple.L2(n, l2=seed_first(1e-4, 1e-3)),
    "S&P": lambda n, o: supple.ShrinkAndPerturb(n, variance=seed_first(1e-6, 1e-8)),
    "SWR": lambda n, o: supple.SWR(n, o, frequency=seed_first(7, 20), factor=seed_first(1e-2, 1e-1)),
    "SWR proportional": lambda n, o: supple.SWR(
        n, o, frequency=40, factor=seed_first(0.01, 0.02), pruning="proportional", reinit="mean"
    ),
    "SWR magnitude": lambda n, o: supple.SWR(n, o, frequency=40, factor=0.03, utility="magnitude"),
    "SWR average": lambda n, o: supple.SWR(n, o, frequency=50, factor=0.1, decay=0.9, optimizer_state="fresh"),
    "CBP": lambda n, o: supple.CBP(n, o, maturity=seed_first(5, 20), replacement_rate=seed_first(1e-2, 5e-3)),
    "CBP gradient": lambda n, o: supple.CBP(n, o, maturity=5, replacement_rate=1e-2, utility="gradient"),
    "CBP Nature": lambda n, o: supple.CBP(
        n, o, maturity=5, replacement_rate=1e-2, decay=0.99, counting="draw", absorb_mean=True
    ),
    "ReDo": lambda n, o: supple.ReDo(n, o, frequency=seed_first(8, 12), threshold=seed_first(0.3, 0.5)),
    "ReDo contribution": lambda n, o: supple.ReDo(
        n, o, frequency=8, threshold=0.2, utility="contribution", features="after_norm"
    ),
    "CBP in backward": lambda n, o: supple.CBP(
        n, o, maturity=seed_first(5, 20), replacement_rate=seed_first(1e-2, 5e-3), order="in_backward"
    ),
    "ReDo contribution in backward": lambda n, o: supple.ReDo(
        n, o, frequency=8, threshold=0.2, utility="contribution", features="after_norm", order="in_backward"
    ),
    "chain": lambda n, o: supple.chain(
        supple.L2(n, l2=1e-4), supple.SWR(n, o, frequency=20, factor=0.1), supple.CBP(n, o, maturity=9)
    ),
}


def trained(
    architecture: dict[str, Any],
    optimizer: str,
    method: str,
    *,
    general: bool = False,
    dtype: torch.dtype = torch.float64,
    steps: int = STEPS,
) -> tuple[StackedMLP, torch.Tensor, torch.Tensor]:
    """Networks after one task, the mean losses of the task, and how much was reinitialized."""
    network = StackedMLP([seed for seed in SEEDS for _ in range(SETTINGS)], inputs=25, **architecture).to(dtype)
    made = OPTIMIZERS[optimizer](network.parameters())
    acting = METHODS[method](network, made)
    stream = PermutedStream(images(steps), SEEDS, BATCH, dtype=dtype)
    metrics = Population(network, made, stream, acting, general=general).train_task(0)
    return network, metrics.loss, metrics.reinitialized


def assert_same(architecture: dict[str, Any], optimizer: str, method: str, steps: int = STEPS) -> int:
    """Trains in both ways, and says how much was reinitialized."""
    fast, loss, count = trained(architecture, optimizer, method, steps=steps)
    slow, expected_loss, expected_count = trained(architecture, optimizer, method, general=True, steps=steps)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-9)
    assert torch.equal(count, expected_count)
    for (name, one), other in zip(fast.named_parameters(), slow.parameters(), strict=True):
        # An entry reinitialized in one of the two only would differ by the size of a weight, some 0.3. Rounding grows
        # over the steps, most where a layer norm divides by little.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    return int(count.sum())


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer_norm", [pytest.param(None, marks=pytest.mark.slow), "after"])
def test_fast_equals_general_for_each_method(method: str, layer_norm: str | None) -> None:
    count = assert_same({"hidden": 10, "layer_norm": layer_norm}, "SGDW", method)
    assert (count > 0) is (method not in ("base", "L2", "S&P"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["base", "SWR", "CBP", "ReDo", "SWR average"])
def test_fast_equals_general_for_each_optimizer(optimizer: str, method: str) -> None:
    assert_same({"hidden": 8, "depth": 2}, optimizer, method, steps=100)


OPTIONS = [
    {"activation": activation, "skip": skip, "layer_norm": layer_norm, "reparameterized": reparameterized}
    for activation, skip, layer_norm, reparameterized in itertools.product(
        ACTIVATIONS, (None, "after", "before"), (None, "after", "before"), (False, True)
    )
    if (layer_norm or not reparameterized) and not (activation in ("crelu", "fourier") and skip == "before")
]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(value) for value in o.values()))
def test_fast_equals_general_for_each_architecture(options: dict[str, Any]) -> None:
    assert_same({"hidden": 8, **options}, "SGDW", "SWR", steps=21)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["CBP", "ReDo"])
@pytest.mark.parametrize(
    "options", [{"activation": "crelu"}, {"activation": "fourier"}, {"skip": "after"}, {"skip": "before"}], ids=str
)
def test_unit_methods_with_crelu_and_skip(method: str, options: dict[str, Any]) -> None:
    assert_same({"hidden": 10, **options}, "SGDW", method)


@pytest.mark.parametrize("hidden", [10, 100])
def test_losses_agree_in_single_precision(hidden: int) -> None:
    _, loss, count = trained({"hidden": hidden}, "SGDW", "SWR", dtype=torch.float32)
    _, expected, expected_count = trained({"hidden": hidden}, "SGDW", "SWR", dtype=torch.float32, general=True)
    # A utility within rounding of the bound may fall on either side of it, and from there on two networks differ.
    same = count == expected_count
    assert same.sum() >= 4
    torch.testing.assert_close(loss[same], expected[same], rtol=1e-4, atol=1e-5)
    assert ((count - expected_count).abs() <= 1e-4 * expected_count).all()
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["base", "S&P", "SWR", "CBP", "ReDo", "ReDo in backward"])
def test_replica_alone_equals_replica_in_a_population_of_64(method: str) -> None:
    seeds = list(range(8))
    make = {
        "base": lambda n, o, v: None,
        "S&P": lambda n, o, v: supple.ShrinkAndPerturb(n, variance=1e-6 * v),
        "SWR": lambda n, o, v: supple.SWR(n, o, frequency=10, factor=0.05 * v),
        "CBP": lambda n, o, v: supple.CBP(n, o, maturity=5, replacement_rate=2e-3 * v),
        "ReDo": lambda n, o, v: supple.ReDo(n, o, frequency=8, threshold=0.1 * v),
        "ReDo in backward": lambda n, o, v: supple.ReDo(n, o, frequency=8, threshold=0.1 * v, order="in_backward"),
    }[method]

    def run(chosen: list[int], values: torch.Tensor) -> tuple[StackedMLP, torch.Tensor]:
        copies = len(values) // len(chosen)
        network = StackedMLP([seed for seed in chosen for _ in range(copies)], inputs=25, hidden=10).double()
        optimizer = SGDW(network.parameters(), lr=0.01 * values, weight_decay=1e-4 * values)
        stream = PermutedStream(images(), chosen, BATCH, dtype=torch.float64)
        metrics = Population(network, optimizer, stream, make(network, optimizer, values)).train_task(0)
        return network, metrics.reinitialized

    values = torch.arange(1, 9, dtype=torch.float64)
    together, counts = run(seeds, values.repeat(8))
    for seed, setting in [(0, 0), (3, 5), (7, 7)]:
        alone, count = run([seed], values[setting : setting + 1])
        replica = seed * 8 + setting
        assert torch.equal(count[0], counts[replica])
        for one, many in zip(alone.parameters(), together.parameters(), strict=True):
            torch.testing.assert_close(one[0], many[replica], rtol=1e-6, atol=1e-9)


def test_a_method_says_when_it_needs_gradients() -> None:
    network = StackedMLP([0, 1], inputs=25, hidden=10)
    population = Population(
        network,
        SGDW(network.parameters(), lr=0.1),
        PermutedStream(images(), [0, 1], BATCH),
        supple.SWR(network, frequency=3, factor=0.1),
    )
    needed = []
    for step in range(6):
        needed.append(population.method.needs().gradients)
        population.step(*population.stream.task(0).batch(step))
    assert needed == [False, False, True, False, False, True]
