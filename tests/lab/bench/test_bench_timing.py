"""Times of contenders whose times are known, and statistics."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from supple.lab.bench.memory import footprint, linear
from supple.lab.bench.plan import Plan, part
from supple.lab.bench.results import Spread
from supple.lab.bench.timing import Sample, measure, peak, warm_up


class Sleeper:
    """Steps of 1 ms; every ``period``-th one acts and takes 20 ms; tasks of ``steps`` start in 10 ms."""

    replicas = 4

    def __init__(self, period: int, steps: int = 1000) -> None:
        self.period, self.steps = period, steps
        self.action_share = 1 / period if period else 0.0
        self.steps_left = self.taken = self.skipped = self.tasks = 0

    def start_task(self) -> None:
        time.sleep(0.01)
        self.tasks += 1
        self.steps_left = self.steps

    def acts_next(self) -> bool:
        return bool(self.period) and (self.taken + self.skipped + 1) % self.period == 0

    def skip_to_action(self) -> None:
        while not self.acts_next():
            self.skipped += 1

    def step(self) -> int:
        assert self.steps_left > 0
        time.sleep(0.02 if self.acts_next() else 0.001)
        self.taken += 1
        self.steps_left -= 1
        return 1


def test_kinds_of_steps_are_timed_apart() -> None:
    sleeper = Sleeper(period=5)
    sample = measure(sleeper, 0.3)
    assert 0.001 <= sample.quiet < 0.008
    assert 0.02 <= sample.acting < 0.03
    assert 0.01 <= sample.start < 0.02
    assert sleeper.skipped == 0


def test_an_action_that_the_window_misses_is_timed_after_it() -> None:
    sleeper = Sleeper(period=100_000)
    sample = measure(sleeper, 0.05)
    assert sleeper.skipped > 0
    assert 0.001 <= sample.quiet < 0.008
    assert 0.02 <= sample.acting < 0.03
    assert sleeper.taken + sleeper.skipped == 100_000


def test_tasks_that_end_are_followed_by_others() -> None:
    sleeper = Sleeper(period=0, steps=10)
    sample = measure(sleeper, 0.2)
    assert sleeper.tasks > 2
    assert sample.acting == 0
    assert 0.01 <= sample.start < 0.02


def test_a_method_that_acts_at_every_step_has_no_other_steps() -> None:
    sample = measure(Sleeper(period=1), 0.1)
    assert sample.quiet == 0
    assert sample.step(1.0, 1000) >= 0.02


def test_warming_up_includes_an_action() -> None:
    sleeper = Sleeper(period=50)
    warm_up(sleeper)
    assert (sleeper.taken + sleeper.skipped) % 50 == 0


def test_a_step_of_a_long_run_by_counting() -> None:
    # 2,048,000 steps: 1,000 act, 1,024 tasks of 2,000 start.
    sample = Sample(quiet=2e-3, acting=0.4, start=0.1)
    total = (2_048_000 - 1000) * 2e-3 + 1000 * 0.4 + 1024 * 0.1
    assert sample.step(1 / 2048, 2000) == pytest.approx(total / 2_048_000)


def test_spread() -> None:
    spread = Spread.of([3.0, 1.0, 10.0])
    assert (spread.median, spread.low, spread.high, spread.values) == (3.0, 1.0, 10.0, (3.0, 1.0, 10.0))
    assert Spread.of([1.0, 2.0]).median == 1.5
    # Within each repeat: 8 / 2, 6 / 6, 9 / 3. The ratio of the medians, 8 / 3, is another number.
    assert Spread.ratio([8, 6, 9], [2, 6, 3]).median == 3
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_linear() -> None:
    assert linear([1, 2, 4], [3, 6, 12]) == 1
    assert linear([1, 2], [3, 9]) == pytest.approx(1.5)


def test_footprint() -> None:
    # In a process of its own: one that has worked before has free memory that a population would take first.
    arguments = (200, 2, 4, "sgd", "swr", "cpu", 300, 2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
        found = fresh.submit(footprint, *arguments).result()
    assert found.replicas == 8
    assert found.parameters == 4 * 8 * (785 * 200 + 2 * 201 * 200 + 2010)
    assert found.data == 300 * (784 + 8)
    assert len(found.seconds) == 2
    if found.times_the_parameters is not None:
        assert found.extra is not None
        assert found.times_the_parameters * found.parameters + found.data == pytest.approx(found.extra)
        # The parameters themselves are there, and room for gradients where SWR acts.
        assert 1 < found.times_the_parameters < 10


def test_peak_is_a_rate_of_products() -> None:
    assert 1e8 < peak(sizes=(256,)) < 1e15


@pytest.mark.parametrize(("hidden", "expected"), [(10, (8, 32)), (100, (2, 32)), (1000, (1, 2)), (3000, (1, 1))])
def test_parts_of_a_population(hidden: int, expected: tuple[int, int]) -> None:
    # Weights take 33 kB, 0.4 MB, 11 MB and 82 MB a network, of which 26 MB are trained together.
    assert part(Plan(), hidden) == expected
    assert part(Plan(device="cuda"), hidden) == (8, 32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"widths": ()}, "no widths"),
        ({"widths": (0,)}, "width is 0"),
        ({"replicas": 60}, "replicas is 60.*multiple of settings, which is 32"),
        ({"scaling": (12,)}, "replicas is 12"),
        ({"methods": ("base", "swt")}, "methods has 'swt'; there are base, "),
        ({"methods": ("swr",)}, "base has to be the first"),
        ({"optimizers": ("adamw",)}, "sgd has to be the first"),
        ({"device": "tpu"}, "device is 'tpu'.*cpu, cuda"),
    ],
)
def test_wrong_plans_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(**wrong)  # type: ignore[arg-type]
