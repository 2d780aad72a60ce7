"""All contenders compute the same: equal losses from equal initial values on equal batches."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from engine import METHODS, OPTIMIZERS, Engine, action_share, images, method_settings
from loops import CarefulLoop, JaxLoop, PermutedImages, PlainLoop, sequential
from population import step_flops

from supple.lab.data import LabelledImages, mnist10k
from supple.lab.streams import PermutedStream

SEED, HIDDEN, STEPS = 7, 12, 50


def stream(seeds: list[int], count: int = 1500) -> PermutedStream:
    some = mnist10k()
    return PermutedStream(LabelledImages(some.images[:count], some.labels[:count], 10, "some"), seeds)


def losses(loop: PlainLoop | CarefulLoop) -> list[float]:
    """The loss of each step of the first task."""
    loop.start_task()
    before, found = 0.0, []
    while loop.calls_left:
        loop.step()
        found.append(float(loop.loss) - before)
        before = float(loop.loss)
    return found


def reference() -> tuple[list[float], int]:
    """Losses and hits of the most obvious program, in double precision."""
    task = stream([SEED]).task(0)
    network = sequential(HIDDEN, SEED).double()
    found, hits = [], 0
    for k in range(task.steps):
        chosen = task.order[0, 30 * k : 30 * (k + 1)]
        x = task.images[chosen].double() / 255
        x = torch.stack([image[task.pixels[0]] for image in x])
        y = task.labels[chosen]
        logits = network(x)
        loss = -torch.stack([row.log_softmax(0)[label] for row, label in zip(logits, y, strict=True)]).mean()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
        found.append(loss.item())
        hits += int((logits.argmax(1) == y).sum())
    return found, hits


@pytest.mark.parametrize("kind", [PlainLoop, CarefulLoop])
def test_loops_train_as_the_obvious_program(kind: type[PlainLoop | CarefulLoop]) -> None:
    loop = kind(HIDDEN, stream([SEED]))
    found = losses(loop)
    expected, hits = reference()
    assert len(found) == STEPS
    assert found == pytest.approx(expected, rel=1e-4)
    assert int(loop.hits) == hits
    assert sum(found[-10:]) < 0.9 * sum(found[:10])


def test_engine_trains_each_replica_as_the_obvious_program() -> None:
    engine = Engine(HIDDEN, 2, stream([3, SEED]), ["sgd"], ["base"])
    engine.start_task()
    found, before = [], torch.zeros(4, dtype=torch.float64)
    while engine.calls_left:
        engine.step()
        found.append((engine.loss - before).tolist())
        before = engine.loss.clone()
    expected, hits = reference()
    for replica in (2, 3):
        assert [step[replica] for step in found] == pytest.approx(expected, rel=1e-4)
        assert int(engine.hits[replica]) == hits
    assert [step[0] for step in found] != pytest.approx(expected, rel=1e-2)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_loop_trains_as_the_obvious_program() -> None:
    loop = JaxLoop(HIDDEN, stream([SEED]))
    loop.start_task()
    assert (loop.steps_a_call, loop.calls_left) == (STEPS, 1)
    loop.step()
    expected, hits = reference()
    assert loop.losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert loop.hits == hits


@pytest.mark.parametrize("kind", [PlainLoop, CarefulLoop])
def test_each_task_has_its_own_permutation_and_the_network_goes_on(kind: type[PlainLoop | CarefulLoop]) -> None:
    loop = kind(HIDDEN, stream([SEED], 300))
    first = losses(loop)
    weights = loop.network[0].weight.detach().clone()
    second = losses(loop)
    assert loop.tasks == 2
    assert not torch.equal(loop.network[0].weight, weights)
    assert second != pytest.approx(first, rel=1e-2)


def test_items_are_permuted() -> None:
    images = torch.tensor([[0, 51, 102], [255, 204, 153]], dtype=torch.uint8)
    dataset = PermutedImages(images, torch.tensor([4, 9]), torch.tensor([2, 0, 1]))
    x, y = dataset[1]
    assert x.tolist() == pytest.approx([0.6, 1.0, 0.8])
    assert (len(dataset), y) == (2, 9)


def test_engine_takes_turns_with_methods_and_skips_to_their_actions() -> None:
    engine = Engine(10, 2, stream([0, 1]), ["sgd", "adamw"], ["base", "swr"])
    assert engine.population.method is None
    engine.use("sgd", "swr")
    engine.start_task()
    method = engine.population.method
    assert method is not None
    assert not engine.acts_next()
    weights = engine.network.output.weight.detach().clone()
    engine.skip_to_action()
    assert torch.equal(engine.network.output.weight, weights)
    assert engine.acts_next()
    assert method.steps == 2047
    engine.step()
    assert not engine.acts_next()
    assert int(method.reinitialized.last.min()) > 0  # pixels that are dark on all images of the batch


@pytest.mark.parametrize("hidden", [10, 100])
def test_operations_counted_by_torch(hidden: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = sequential(hidden, 0)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(30, 784)).sum().backward()
    assert counter.get_total_flops() == step_flops(hidden)


def test_settings_are_those_of_the_study() -> None:
    assert method_settings("swr", 10, "sgd") == {"frequency": 2048, "factor": 1e-6}
    assert method_settings("cbp", 100, "sgd") == {"maturity": 500, "replacement_rate": 1e-4}
    assert method_settings("cbp", 100, "adamw") == {"maturity": 1, "replacement_rate": 1e-3}
    assert method_settings("redo", 10, "sgd") == {"frequency": 8, "threshold": 1e-2}
    assert method_settings("redo", 100, "sgd") == {"frequency": 16, "threshold": 1e-4}
    assert method_settings("base", 100, "sgd") == {}


@pytest.mark.parametrize("method", ["redo", "cbp"])
def test_share_of_acting_steps_is_what_the_engine_sees(method: str) -> None:
    engine = Engine(10, 1, PermutedStream(images(30 * 400), [0]), ["sgd"], [method])
    engine.start_task()
    acted = 0
    while engine.calls_left:
        acted += engine.acts_next()
        engine.step()
    assert acted / 400 == pytest.approx(engine.action_share, abs=1.5 / 400)


def test_methods_that_do_the_same_at_every_step_have_no_share() -> None:
    for method in ("base", "l2", "shrink_and_perturb"):
        assert action_share(method, 100, "sgd") == 0


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", ["base", *METHODS])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_method_trains(method: str, optimizer: str) -> None:
    engine = Engine(10, 2, PermutedStream(images(1500), [0, 1]), [optimizer], [method])
    engine.start_task()
    initial = engine.network.output.weight.detach().clone()
    while engine.calls_left:
        engine.step()
    assert not torch.equal(engine.network.output.weight, initial)
    assert engine.loss.isfinite().all()


def test_images_are_repeated() -> None:
    more = images(20_003)
    assert len(more) == 20_003
    assert torch.equal(more.images[:10_000], more.images[10_000:20_000])
    assert torch.equal(more.labels[20_000:], more.labels[:3])
