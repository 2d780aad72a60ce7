"""The command from end to end, and the worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from supple.lab.bench import Plan, Results, command, run
from supple.lab.bench.command import bench_command, make_plan
from supple.lab.bench.crew import Crew
from supple.lab.bench.flops import step_flops
from supple.lab.bench.table import show
from supple.lab.study.run_config import cores

app = typer.Typer()
app.command()(bench_command)

TINY = Plan(
    widths=(10,),
    optimizers=("sgd",),
    methods=("base", "redo"),
    repeats=2,
    seconds=0.1,
    replicas=4,
    settings=2,
    images=900,
    jax=False,
    footprint=None,
    scaling=(2, 4),
)


@pytest.fixture(scope="module")
def tiny() -> Results:
    return run(TINY)


def test_rates_and_ratios_fit_together(tiny: Results) -> None:
    base, redo = tiny.engine
    plain, careful = tiny.contenders
    assert (base.method, redo.method, plain.name, careful.name) == ("base", "redo", "plain", "careful")
    assert base.workers == plain.workers == tiny.machine["cores"] == len(cores())
    assert base.replicas == 4
    assert redo.action_share == 1 / 8
    for n in range(2):
        steps = base.steps_per_second.values[n]
        assert base.gflops.values[n] == pytest.approx(steps * step_flops(10) / 1e9)
        assert base.of_peak.values[n] == pytest.approx(base.gflops.values[n] / tiny.peak.values[n])
        assert plain.engine_over.values[n] == pytest.approx(steps / plain.steps_per_second.values[n])
        assert redo.overhead.values[n] == pytest.approx(steps / redo.steps_per_second.values[n] - 1)
        # Each process trains 4 networks a step, in tasks of 30 steps. The sum of the processes' rates is no less than
        # the rate at their mean time, and a few times more if the machine is busy with something else on one core.
        seconds = base.quiet_seconds.values[n] + base.start_seconds.values[n] / 30
        assert 1 - 1e-9 <= steps / (4 * base.workers / seconds) < 5
    assert set(base.overhead.values) == {0.0}


def test_scaling_is_measured_for_two_tasks(tiny: Results) -> None:
    assert [len(one.seconds) for one in tiny.scaling] == [2, 2]
    assert [one.replicas for one in tiny.scaling] == [2, 4]
    parameters = 784 * 100 + 100 + 2 * 10100 + 1010
    assert [one.parameters for one in tiny.scaling] == [4 * 2 * parameters, 4 * 4 * parameters]


def test_json_holds_everything(tiny: Results) -> None:
    found = json.loads(tiny.to_json())
    assert found["format"] == 1
    assert set(found) == {
        "format", "plan", "machine", "peak", "engine", "contenders", "footprints", "scaling", "notes",
    }  # fmt: skip
    assert {"cpu", "cores", "torch", "python", "supple"} <= set(found["machine"])
    spread = found["contenders"][0]["engine_over"]
    assert set(spread) == {"median", "low", "high", "values"}
    assert spread["low"] <= spread["median"] <= spread["high"]
    assert found["engine"][1]["settings"] == {"frequency": 8, "threshold": 1e-2}


def test_table_shows_every_contender(tiny: Results) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(show(tiny))
    text = capture.get()
    for part in ("base", "ReDo", "plain loop", "careful loop", "engine is", "two tasks"):
        assert part in text
    assert "JAX is not installed" in text
    assert "…" not in text


@pytest.mark.parametrize("where", ["file", "stdout"])
def test_the_command_writes_json(where: str, tiny: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(command, "run", lambda plan, progress: plans.append(plan) or tiny)
    file = tmp_path / "bench.json"
    options = ["--width", "10", "--width", "20", "--method", "redo", "--repeats", "1", "--replicas", "4"]
    done = CliRunner().invoke(
        app, [*options, "--settings", "2", "--quick", "--json", str(file) if where == "file" else "-"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(file.read_text() if where == "file" else done.stdout) == json.loads(tiny.to_json())
    assert "plain loop" in (done.stdout if where == "file" else done.stderr)
    (plan,) = plans
    assert (plan.widths, plan.methods, plan.optimizers) == ((10, 20), ("base", "redo"), ("sgd",))
    assert (plan.repeats, plan.replicas, plan.settings, plan.scaling) == (1, 4, 2, ())


def test_interruption_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 130
    assert "Stopped" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "swt"], "methods has 'swt'"),
        (["--replicas", "5"], "multiple of settings"),
        (["--precision", "half"], "precision is 'half'"),
        (["--precision", "tf32"], "precision is 'tf32', which GPUs have"),
        (["--graphs"], "graphs is on, which are replayed on GPUs"),
    ],
)
def test_wrong_options_are_explained(options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())


def test_quick_measures_less_and_yields_to_options() -> None:
    assert make_plan(True, repeats=None).repeats < Plan().repeats
    assert make_plan(True, repeats=7).repeats == 7
    assert make_plan(False, repeats=None) == Plan()


def test_failures_and_deaths_of_workers_are_reported() -> None:
    with Crew("testers", "cpu", [cores()[:1]]) as crew:
        with pytest.raises(RuntimeError, match=r"testers failed at 'tell'(?s:.*)there are make"):
            crew.ask("tell")
        crew._processes[0].kill()
        with pytest.raises(RuntimeError, match=r"testers ended at 'peak' with code -9; memory"):
            crew.ask("peak")


def test_workers_end_with_the_crew() -> None:
    with Crew("testers", "cpu", [cores()[:1]]) as crew:
        process = crew._processes[0]
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_run(how: signal.Signals, tmp_path: Path) -> None:
    program = (
        "from supple.lab.bench import crew\n"
        "from supple.lab.study.run_config import cores\n"
        "with crew.Crew('testers', 'cpu', [[n] for n in cores()[:1]]) as workers:\n"
        "    print(workers._processes[0].pid, flush=True)\n"
        "    workers.ask('peak')\n"
        "    print('ready', flush=True)\n"
        "    while True: workers.ask('peak')\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert starter.stdout.readline() == "ready\n"
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


@pytest.mark.slow
def test_quick_from_end_to_end() -> None:
    done = CliRunner().invoke(app, ["--quick", "--json", "-"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for one in found["contenders"]:
        assert one["engine_over"]["median"] > 1
