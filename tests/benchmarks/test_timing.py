"""Times of contenders whose times are known, statistics, and worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from conftest import BENCHMARKS
from engine import measure
from loops import Contender
from memory import footprint
from timing import ask, cores, peak, ratios, spread, workers


class Sleeper(Contender):
    """Steps of 1 ms; every ``period``-th one acts and takes 20 ms; tasks of ``steps`` start in 10 ms."""

    replicas = 4
    calls_a_task = 0

    def __init__(self, period: int, steps: int = 1000) -> None:
        self.period, self.calls_a_task = period, steps
        self.action_share = 1 / period if period else 0.0
        self.taken = self.skipped = 0

    def start_task(self) -> None:
        time.sleep(0.01)
        self.tasks += 1
        self.started += 1
        self.calls_left = self.calls_a_task

    def acts_next(self) -> bool:
        return bool(self.period) and (self.taken + self.skipped + 1) % self.period == 0

    def skip_to_action(self) -> None:
        while not self.acts_next():
            self.skipped += 1

    def train(self) -> None:
        assert self.calls_left > 0
        time.sleep(0.02 if self.acts_next() else 0.001)
        self.taken += 1


# A busy machine only makes things take longer, so these bounds from below hold on any.


def test_kinds_of_steps_are_timed_apart() -> None:
    sample = measure(Sleeper(period=5), 0.1)
    assert sample["acting"] >= 0.02
    assert sample["start"] >= 0.01
    parts = 0.8 * sample["quiet"] + 0.2 * sample["acting"] + sample["start"] / 1000
    assert sample["step"] == pytest.approx(parts)


def test_an_action_that_the_window_misses_is_timed_after_it() -> None:
    sleeper = Sleeper(period=100_000)
    sample = measure(sleeper, 0.05)
    assert sleeper.skipped > 0
    assert sample["acting"] >= 0.02
    assert sample["quiet"] >= 0.001
    share = 1e-5
    parts = (1 - share) * sample["quiet"] + share * sample["acting"] + sample["start"] / 1000
    assert sample["step"] == pytest.approx(parts)


def test_tasks_that_end_are_followed_by_others() -> None:
    sleeper = Sleeper(period=0, steps=10)
    sample = measure(sleeper, 0.1)
    assert sleeper.tasks > 4
    assert sample["acting"] == 0
    assert sample["step"] == pytest.approx(sample["quiet"] + sample["start"] / 10)


def test_a_method_that_acts_at_every_step_has_no_other_steps() -> None:
    sample = measure(Sleeper(period=1), 0.1)
    assert sample["step"] >= sample["acting"] >= 0.02


def test_spread_and_ratios() -> None:
    assert spread([3.0, 1.0, 10.0]) == {"median": 3.0, "low": 1.0, "high": 10.0, "values": [3.0, 1.0, 10.0]}
    assert spread([1.0, 2.0])["median"] == 1.5
    # Within each turn: 8 / 2, 6 / 6, 9 / 3. The ratio of the medians, 8 / 3, is another number.
    assert spread(ratios([8, 6, 9], [2, 6, 3]))["median"] == 3


def test_peak_is_a_rate_of_products() -> None:
    assert peak(sizes=(64,), seconds=0.01) > 0


@pytest.mark.slow
def test_footprint() -> None:
    # In a process of its own: one that has worked before has free memory that a population would take first.
    with workers([cores()[:1]]) as one:
        (found,) = ask(one, footprint, [(200, 2, 4, "swr", "cpu", 300, 2)])
        with pytest.raises(TypeError, match="missing"):
            ask(one, footprint)
    assert found["replicas"] == 8
    assert found["parameters"] == 4 * 8 * (785 * 200 + 2 * 201 * 200 + 2010)
    assert found["data"] == 300 * (784 + 8)
    assert len(found["seconds"]) == 2
    if found["extra"] is not None:
        # The parameters themselves are there, and room for gradients where SWR acts.
        assert 1 < found["times_the_parameters"] < 10


@pytest.mark.slow
def test_the_death_of_a_worker_is_noticed() -> None:
    with workers([cores()[:1]]) as one, pytest.raises(BrokenProcessPool):
        ask(one, os._exit, [(1,)])
    with pytest.raises(SystemExit, match="A worker process of the benchmark has ended"), workers([cores()[:1]]) as one:
        ask(one, os._exit, [(1,)])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_run(how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from timing import ask, workers\n"
        "if __name__ == '__main__':\n"
        "    with workers([[0]]) as one:\n"
        "        print(ask(one, os.getpid)[0], flush=True)\n"
        "        while True: ask(one, time.sleep, [(0.1,)])\n"
    )
    starter = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])},
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    if how == signal.SIGINT:
        os.killpg(starter.pid, how)  # as Ctrl-C does
    else:
        starter.kill()
    starter.wait(timeout=20)
    deadline = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)
    starter.stdout.close()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
