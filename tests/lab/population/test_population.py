"""What a population measures is what a plain training loop over one ordinary network measures."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import CoupledDecay, Restart
from torch.optim.optimizer import register_optimizer_step_post_hook

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.optim import SGDW, AdamW


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("layer_norm", [None, "after"])
def test_metrics_against_a_plain_loop(general: bool, layer_norm: str | None) -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (60, 4, 4), generator=generator, dtype=torch.uint8)
    data = LabelledImages(pictures, torch.randint(0, 10, (60,), generator=generator), 10, "random images")
    networks = StackedMLP([4, 4, 9, 9], inputs=16, hidden=6, layer_norm=layer_norm).double()
    step_sizes = [0.05, 0.1, 0.05, 0.1]
    single = [networks.replica(i) for i in range(4)]
    with torch.no_grad():
        for network in (*single, networks):
            network.blocks[1].linear.bias[..., :2] = -50  # dead units
    optimizer = SGDW(networks.parameters(), lr=torch.tensor(step_sizes, dtype=torch.float64))
    stream = PermutedStream(data, [4, 9], batch_size=6, dtype=torch.float64)
    seen: list[int] = []
    population = Population(networks, optimizer, stream, general=general, measured_on=20)
    found = [population.train_task(task, seen.append) for task in range(2)]
    assert seen == [*range(1, 11)] * 2

    for i, network in enumerate(single):
        plain = torch.optim.SGD(network.parameters(), lr=step_sizes[i])
        for number, metrics in enumerate(found):
            task = stream.task(number)
            x = task.examples(20)[0][i // 2]
            dead = 0
            with torch.no_grad():
                for block in network.blocks:
                    z = torch.relu(block.linear(x))
                    dead += sum(all(value == 0 for value in z[:, u].tolist()) for u in range(6))
                    x = block.norm(z) if layer_norm else z
            assert float(metrics.dead[i]) == pytest.approx(dead / 18)
            spectrum = torch.linalg.svdvals(x)
            assert int(metrics.rank[i]) == 1 + int((spectrum.cumsum(0) < 0.99 * spectrum.sum()).sum())
            entries = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
            assert float(metrics.weight_magnitude[i]) == pytest.approx(float(entries.abs().mean()))
            if layer_norm:
                scales = torch.cat([block.norm.weight.detach() for block in network.blocks])
                assert float(metrics.scale_magnitude[i]) == pytest.approx(float(scales.abs().mean()))
            else:
                assert metrics.scale_magnitude is None
            losses, right = [], 0
            for step in range(10):
                images, labels = task.batch(step)
                images, labels = images[i // 2], labels[i // 2]
                logits = network(images)
                right += int((logits.argmax(dim=1) == labels).sum())
                loss = torch.nn.functional.cross_entropy(logits, labels)
                plain.zero_grad()
                loss.backward()
                if step == 0:
                    slopes = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
                    assert float(metrics.gradient_magnitude[i]) == pytest.approx(float(slopes.abs().mean()))
                plain.step()
                losses.append(loss.item())
            assert float(metrics.loss[i]) == pytest.approx(sum(losses) / 10)
            assert float(metrics.accuracy[i]) == pytest.approx(right / 60)
            assert int(metrics.reinitialized[i]) == 0


def test_what_does_not_belong_together_is_refused() -> None:
    data = LabelledImages(torch.zeros(60, 4, 4, dtype=torch.uint8), torch.zeros(60, dtype=torch.int64), 10, "images")
    stream = PermutedStream(data, [0, 1], batch_size=6)
    network = StackedMLP([0, 0, 1, 1], inputs=16, hidden=6)
    optimizer = SGDW(network.parameters(), lr=0.1)
    for seeds in ([0, 1, 2], [0, 1, 0, 1], [1, 1, 0, 0]):
        wrong = StackedMLP(seeds, inputs=16, hidden=6)
        with pytest.raises(ValueError, match=r"2 seeds \(0, 1\).* in the same order"):
            Population(wrong, SGDW(wrong.parameters(), lr=0.1), stream)
    wide = StackedMLP([0, 1], inputs=17, hidden=6)
    with pytest.raises(ValueError, match="17 inputs and 10 outputs; images has 16 pixels and 10 classes"):
        Population(wide, SGDW(wide.parameters(), lr=0.1), stream)
    with pytest.raises(ValueError, match="does not hold all parameters"):
        Population(network, SGDW(wide.parameters(), lr=0.1), stream)
    with pytest.raises(ValueError, match=r"^chain\(L2\(l2=0.1\)\) was made for another network"):
        Population(network, optimizer, stream, supple.chain(supple.L2(wide, l2=0.1)))


def test_fast_step_takes_what_the_optimizer_takes_and_calls_its_hooks() -> None:
    data = LabelledImages(
        torch.randint(0, 256, (60, 4, 4), dtype=torch.uint8), torch.randint(0, 10, (60,)), 10, "images"
    )
    calls: list[int] = []
    results = []
    for general in (False, True):
        network = StackedMLP([0, 0, 1, 1], inputs=16, hidden=6).double()
        optimizer = SGDW(network.parameters(), lr=torch.tensor(0.1), weight_decay=torch.tensor(1e-2))
        stream = PermutedStream(data, [0, 1], batch_size=6, dtype=torch.float64)
        population = Population(network, optimizer, stream, general=general)
        for step, batch in enumerate(stream.task(0)):
            if step == 5:
                optimizer.register_step_post_hook(lambda *given: calls.append(1))
            population.step(*batch)
        results.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
    assert len(calls) == 10


def small_population(optimizer: str, general: bool = False) -> Population:
    data = LabelledImages(
        torch.randint(0, 256, (60, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)),
        torch.randint(0, 10, (60,), generator=torch.Generator().manual_seed(4)),
        10,
        "images",
    )
    network = StackedMLP([0, 0, 1, 1], inputs=16, hidden=6).double()
    made = {
        "SGDW": lambda: SGDW(network.parameters(), lr=0.05),
        "momentum": lambda: SGDW(network.parameters(), lr=0.05, momentum=0.9),
        "AdamW": lambda: AdamW(network.parameters(), lr=0.01),
    }[optimizer]()
    return Population(network, made, PermutedStream(data, [0, 1], batch_size=6, dtype=torch.float64), general=general)


@pytest.mark.parametrize("optimizer", ["SGDW", "momentum", "AdamW"])
def test_a_parameter_frozen_on_the_way_stays(optimizer: str) -> None:
    fast, general = small_population(optimizer), small_population(optimizer, general=True)
    for population in (fast, general):
        population.train_task(0)
        population.network.blocks[0].linear.weight.requires_grad_(False)
        kept = population.network.blocks[0].linear.weight.clone()
        population.train_task(1)
        assert torch.equal(population.network.blocks[0].linear.weight, kept)
    for one, other in zip(fast.network.parameters(), general.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_a_replica_that_diverges_leaves_the_others_alone() -> None:
    ill, well = small_population("SGDW"), small_population("SGDW")
    ill.optimizer.param_groups[0]["lr"] = [0.05, 0.05, 1e300, 0.05]
    for task in range(3):
        found, expected = ill.train_task(task), well.train_task(task)
    assert not found.loss[2].isfinite()
    assert int(found.rank[2]) == 0
    others = [0, 1, 3]
    torch.testing.assert_close(found.loss[others], expected.loss[others], rtol=1e-6, atol=1e-9)
    assert torch.equal(found.rank[others], expected.rank[others])


def test_a_scheduler_and_global_hooks_see_the_steps() -> None:
    population = small_population("SGDW")
    scheduler = torch.optim.lr_scheduler.StepLR(population.optimizer, 1)
    calls: list[int] = []
    handle = register_optimizer_step_post_hook(lambda *given: calls.append(1))
    try:
        for batch in population.stream.task(0):
            population.step(*batch)
            scheduler.step()
    finally:
        handle.remove()
    assert len(calls) == 10


def test_features_that_the_fast_step_does_not_have_are_named() -> None:
    population = small_population("SGDW")
    (group, *_) = population.network.hidden_units()
    elsewhere = dataclasses.replace(group, feature=supple.Feature("blocks.0.linear", "output", group.feature.layout))
    population.method = supple.ReDo(population.network, frequency=1, threshold=0.1, units=[elsewhere])
    with pytest.raises(ValueError, match=r"output of blocks.0.linear.*general=True"):
        population.train_task(0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_method_adds_to_gradients_before_each_step(momentum: float) -> None:
    """As the same method does in a plain loop over each network."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (60, 4, 4), generator=generator, dtype=torch.uint8)
    data = LabelledImages(pictures, torch.randint(0, 10, (60,), generator=generator), 10, "random images")
    networks = StackedMLP([4, 4], inputs=16, hidden=6).double()
    single = [networks.replica(i) for i in range(2)]
    strengths = [0.0, 0.3]
    optimizer = SGDW(networks.parameters(), lr=0.1, momentum=momentum)
    stream = PermutedStream(data, [4], batch_size=6, dtype=torch.float64)
    Population(networks, optimizer, stream, CoupledDecay(networks, optimizer, l2=strengths)).train_task(0)
    for i, network in enumerate(single):
        plain = torch.optim.SGD(network.parameters(), lr=0.1, momentum=momentum, weight_decay=strengths[i])
        for x, y in stream.task(0):
            plain.zero_grad()
            torch.nn.functional.cross_entropy(network(x[0]), y[0]).backward()
            plain.step()
        for one, other in zip(networks.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(one.detach()[i], other.detach(), rtol=1e-9, atol=1e-12)


def test_a_method_acts_at_the_boundaries_between_tasks() -> None:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (60, 4, 4), generator=generator, dtype=torch.uint8)
    data = LabelledImages(pictures, torch.randint(0, 10, (60,), generator=generator), 10, "random images")
    networks = StackedMLP([4, 4], inputs=16, hidden=6)
    optimizer = SGDW(networks.parameters(), lr=0.1)
    method = Restart(networks, optimizer)
    population = Population(networks, optimizer, PermutedStream(data, [4], batch_size=6), method)
    entries = sum(parameter[0].numel() for parameter in networks.parameters())
    assert [population.train_task(task).reinitialized.tolist() for task in range(3)] == [
        [0, 0],
        [entries, entries],
        [entries, entries],
    ]
    assert method.boundaries == 2
