from __future__ import annotations

import pytest
from typer.testing import CliRunner

from supple.bench.estimate import estimate, free_memory, weights
from supple.bench.estimate_command import duration
from supple.commands import app
from supple.nn import StackedMLP


def test_an_estimate_adds_up() -> None:
    found = estimate(20, ["base", "swr"], "sgd", seeds=3, settings=4, tasks=7, count=90, seconds=0.05)
    assert [one.method for one in found] == ["base", "swr"]
    for one in found:
        assert (one.networks, one.parts, one.part, one.steps) == (12, 1, 12, 21)
        # Forward and both gradients of 784-20-20-20-10, but no gradient of the images, at batch 30.
        assert one.flops == 12 * 21 * 2 * 30 * (2 * 784 * 20 + 3 * (2 * 20 * 20 + 20 * 10))
        assert one.memory == 3 * 12 * weights(20) + 90 * (784 + 8)
        assert one.rate > 0
        assert one.seconds == pytest.approx(12 * 21 / one.rate)


def test_weights_are_those_of_the_network() -> None:
    network = StackedMLP([0], hidden=13)
    assert weights(13) == sum(parameter.nbytes for parameter in network.parameters())


def test_networks_that_do_not_fit_together_are_split() -> None:
    room = 90 * 792 + 3 * 5 * weights(10)
    (one,) = estimate(10, ["base"], "sgd", 3, 4, tasks=1, count=90, memory=room, seconds=0.02)
    assert (one.parts, one.part) == (3, 4)
    (one,) = estimate(10, ["base"], "adamw", 3, 4, tasks=1, count=90, memory=room, seconds=0.02)
    assert (one.parts, one.part) == (6, 2)  # a network takes 7 times its weights, of which two have room
    with pytest.raises(ValueError, match=r"one network of width 10 takes 0\.1 MB .* give more memory"):
        estimate(10, ["base"], "sgd", 3, 4, tasks=1, count=90, memory=90 * 792)
    assert free_memory("cpu") > 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (25500, "7 h 5 min"), (1051200, "12 d 4 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_command() -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["plan", "--method", "swr", "--seeds", "2", "--tasks", "3", "--images", "60"])
    assert result.exit_code == 0, result.output
    assert "6 steps of each network; 2 networks a method" in " ".join(result.output.split())
    assert runner.invoke(app, ["plan", "--method", "foo"]).exit_code == 2
    result = runner.invoke(app, ["plan", "--memory", "0.001", "--images", "60", "--width", "1000"])
    assert result.exit_code == 1
    assert "give more memory" in result.output
