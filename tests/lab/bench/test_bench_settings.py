"""Counts of operations, shares of acting steps, and settings."""

from __future__ import annotations

import pytest
import torch

from supple.lab.bench.engine import Engine
from supple.lab.bench.flops import step_flops
from supple.lab.bench.settings import METHODS, action_share, images, method_settings
from supple.lab.streams import PermutedStream
from supple.methods.schedule import ReplacementSchedule


def test_operations_counted_by_hand() -> None:
    # Inputs 2, hidden 3 and 3, outputs 1, batch 5. Multiply-adds: forward 30 + 45 + 15, weight gradients the same,
    # input gradients 45 + 15.
    assert step_flops(3, inputs=2, outputs=1, depth=2, batch=5) == 2 * (90 + 90 + 60)


@pytest.mark.parametrize("hidden", [10, 100])
def test_operations_counted_by_torch(hidden: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from supple.lab.bench.loops import sequential

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


@pytest.mark.parametrize("hidden", [10, 100, 1000])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_share_of_acting_steps_of_cbp_is_what_its_schedule_does(hidden: int, optimizer: str) -> None:
    settings = method_settings("cbp", hidden, optimizer)
    maturity, rate = int(settings["maturity"]), settings["replacement_rate"]
    schedule = ReplacementSchedule([hidden], torch.tensor([maturity]), torch.tensor([rate], dtype=torch.float64))
    acted = []
    for _ in range(6000):
        acted.append(schedule.due)
        schedule.advance()
    # At first all units become eligible at once.
    settled = acted[3 * maturity :]
    assert sum(settled) / len(settled) == pytest.approx(action_share("cbp", settings, hidden), rel=0.05)


@pytest.mark.parametrize("method", ["redo", "cbp"])
def test_share_of_acting_steps_is_what_the_engine_sees(method: str) -> None:
    engine = Engine(10, 1, PermutedStream(images(30 * 400), [0]), ["sgd"], [method])
    engine.start_task()
    acted = 0
    while engine.steps_left:
        acted += engine.acts_next()
        engine.step()
    assert acted / 400 == pytest.approx(engine.action_share, abs=1.5 / 400)


def test_methods_that_do_the_same_at_every_step_have_no_share() -> None:
    for method in ("base", "l2", "shrink_and_perturb"):
        assert action_share(method, method_settings(method, 100, "sgd"), 100) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_method_trains(method: str, optimizer: str) -> None:
    engine = Engine(10, 2, PermutedStream(images(1500), [0, 1]), [optimizer], [method])
    engine.start_task()
    initial = engine.network.output.weight.detach().clone()
    while engine.steps_left:
        engine.step()
    assert not torch.equal(engine.network.output.weight, initial)
    assert engine.loss.isfinite().all()


def test_images_are_repeated() -> None:
    more = images(20_003)
    assert len(more) == 20_003
    assert torch.equal(more.images[:10_000], more.images[10_000:20_000])
    assert torch.equal(more.labels[20_000:], more.labels[:3])
