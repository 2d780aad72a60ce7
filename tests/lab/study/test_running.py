"""Whole studies: run, killed, resumed, added to, refused; through worker processes, as a user runs them."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli_runs import run as command
from cli_runs import words

from supple.lab.data import mnist10k
from supple.lab.study import claims, executor, load, pool, running
from supple.lab.study.assembly import assemble
from supple.lab.study.errors import StudyError
from supple.lab.study.manifest import open_manifest
from supple.lab.study.part import Part
from supple.lab.study.permuted import PermutedProblem
from supple.lab.study.progress import Watcher
from supple.lab.study.results import MANIFEST
from supple.lab.study.run_config import PART_SIZE, RunConfig
from supple.lab.study.spec import from_dict, read

STUDY = """
title = "tiny"

[problem]
data = "mnist10k"
batch_size = 500

[network]
hidden = 6
depth = 2

[run]
tasks = 12
seeds = 2

[measure]
examples = 100
disturbances = 1

[methods.base]

[methods.cbp]
maturity = 5
replacement_rate = 0.02

[methods.swr]
frequency = 7
factor = 0.05
"""

TASKS, DISTURBANCES, CHECKPOINT = "tasks.parquet", "disturbances.parquet", "checkpoint.safetensors"


def config(folder: Path, **changes: Any) -> RunConfig:
    content: dict[str, Any] = {
        "title": "tiny",
        "problem": {"data": "mnist10k", "batch_size": 500},
        "network": {"hidden": 6, "depth": 2},
        "run": {"tasks": 2, "seeds": 2},
        "measure": {"examples": 100},
        "methods": {"base": {}, "swr": {"frequency": 7, "factor": 0.05}},
    }
    processes = changes.pop("processes", 1)
    study = from_dict({**content, **changes}, "tiny.toml")
    return RunConfig(study, "tiny", folder, processes=processes, command="supple run tiny.toml")


def start(study: Path, out: Path, processes: int = 2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "supple", "run", str(study), "--out", str(out)),
            *("--processes", str(processes), "--part-size", "3"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def all_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for name in (TASKS, DISTURBANCES, CHECKPOINT)
        for path in folder.rglob(name)
    }


def wait_for(folder: Path, pattern: str) -> None:
    end = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_session(folder: Path, count: int) -> None:
    """Waits until a run has begun, and listens to Ctrl-C."""
    end = time.monotonic() + 120
    while len(json.loads((folder / "manifest.json").read_text())["sessions"]) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_interrupted_it_ends_with_the_same_files(tmp_path: Path, thread_workers: None) -> None:
    study = tmp_path / "tiny.toml"
    study.write_text(STUDY)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(study, killed)
    wait_for(killed, f"parts/*/{CHECKPOINT}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # At once, while the workers of the first may still be there.
    process = start(study, killed)
    wait_for_session(killed, 2)
    wait_for(killed, "parts/0001/*.parquet")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    if process.returncode != 0:
        assert process.returncode == 130, output
        assert "the same command goes on where it was" in output
    process = start(study, killed)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "Done: all results are in" in output

    assert running.run(RunConfig(read(study), "tiny", whole, processes=2, part_size=3)).complete
    expected = all_files(whole)
    assert len(expected) == 6
    assert all_files(killed) == expected
    results = load(killed)
    assert len(results.sessions) == 3
    assert results.runs["done"].unique().to_list() == [12]
    assert len(results.tasks) == 2 * 3 * 12


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path, thread_workers: None) -> None:
    """Bit for bit, with networks in which the least difference of rounding grows."""
    own = {
        "network": {"hidden": 6, "depth": 2, "layer_norm": "after"},
        "run": {"tasks": 1, "seeds": 3},
        "methods": {f"swr{k}": {"kind": "swr", "frequency": k + 2, "factor": 0.05} for k in range(9)},
    }
    found = []
    for processes in (1, 2, 7):
        folder = tmp_path / str(processes)
        assert running.run(config(folder, processes=processes, **own)).complete
        found.append(all_files(folder))
        assert len(open_manifest(folder).parts) == 2
    assert found[0] == found[1] == found[2]


def test_a_folder_keeps_the_size_of_its_parts(tmp_path: Path, thread_workers: None) -> None:
    """More seeds are trained in parts of the size that was once asked for, or of another that is asked for now."""
    for part_size, seeds, expected in ((2, 2, [2, 2]), (None, 4, [2] * 4), (3, 7, [2] * 4 + [2] * 3)):
        one = replace(config(tmp_path, run={"tasks": 1, "seeds": seeds}), part_size=part_size)
        assert running.run(one).complete
        manifest = open_manifest(tmp_path)
        assert [manifest.part(number).size for number in range(len(manifest.parts))] == expected
    assert manifest.part_size == 3
    # A folder of an earlier version says nothing of it.
    content = json.loads((tmp_path / MANIFEST).read_text())
    del content["part_size"]
    (tmp_path / "digests.json").unlink()
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert running.run(config(tmp_path, run={"tasks": 1, "seeds": 8})).complete
    assert open_manifest(tmp_path).part_size == PART_SIZE


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.argv[1:] = ["run", *sys.argv[2:]]
from supple.lab.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of the size of files are of POSIX")
def test_after_a_full_disk_it_goes_on(finished: Path, tmp_path: Path) -> None:
    """A limit of the size of files, which a checkpoint exceeds, stands for the disk."""
    study = tmp_path / "tiny.toml"
    text = STUDY.replace("tasks = 12", "tasks = 2").replace("disturbances = 1", "")
    study.write_text(text.replace("[methods.cbp]\nmaturity = 5\nreplacement_rate = 0.02\n", ""))
    folder = tmp_path / "out"
    checkpoint, *others = sorted((one.stat().st_size for one in finished.rglob("*") if one.is_file()), reverse=True)
    assert others[0] < checkpoint == (finished / "parts" / "0000" / CHECKPOINT).stat().st_size
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(checkpoint - 1),
        str(study),
        "--out",
        str(folder),
        "--processes",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"Error: cannot write {folder}/parts/0000/{CHECKPOINT}: " in done.stderr
    assert "Not complete; the same command goes on where it was." in done.stdout
    assert running.run(config(folder)).complete
    assert all_files(folder) == all_files(finished)


def test_only_what_is_missing_is_run(tmp_path: Path, thread_workers: None) -> None:
    assert running.run(config(tmp_path)).complete
    first = load(tmp_path)
    assert first.runs["method"].to_list() == ["base", "swr"] * 2
    assert first.runs["seed"].to_list() == [0, 0, 1, 1]
    assert first.runs["frequency"].to_list() == [None, 7, None, 7]
    before = all_files(tmp_path)
    assert before

    # Another seed, another method, and another point of a grid.
    more = {"base": {}, "swr": {"frequency": 7, "factor": [0.05, 0.1]}, "l2": {"l2": 1e-4}}
    assert running.run(config(tmp_path, methods=more, run={"tasks": 2, "seeds": 3})).complete
    after = all_files(tmp_path)
    assert {name: after[name] for name in before} == before
    runs = load(tmp_path).runs
    assert runs["run"].to_list() == list(range(12))
    found = set(runs.select("method", "factor", "seed").iter_rows())
    points = [("base", None), ("swr", 0.05), ("swr", 0.1), ("l2", None)]
    assert found == {(method, factor, seed) for method, factor in points for seed in range(3)}

    # A part of it, with more tasks: only the parts that have such runs go on.
    wanted = {"l2": {"l2": 1e-4}}
    assert running.run(config(tmp_path, methods=wanted, run={"tasks": 3, "seeds": [0]})).complete
    runs = load(tmp_path).runs
    assert set(runs.filter(pl.col("done") == 3)["method"]) >= {"l2"}
    assert set(runs.filter(pl.col("part") == 0)["done"]) == {2}
    study = open_manifest(tmp_path).study
    assert set(study.methods) == {"base", "swr", "l2"}
    assert study.run.seeds == (0, 1, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"swr": {"frequency": 7, "factor": 0.1}}}, "methods.swr.factor: the results have 0.05, .* 0.1"),
        ({"methods": {"swr": {"kind": "l2", "l2": 0.1}}}, "methods.swr.kind: the results have 'swr', .* 'l2'"),
        ({"network": {"hidden": 7, "depth": 2}}, "methods.base.network.hidden: the results have 6, .* 7"),
        ({"optimizer": {"step_size": 0.1}}, "methods.base.optimizer.step_size: the results have 0.05"),
        ({"problem": {"data": "mnist10k", "batch_size": 250}}, "problem.batch_size: the results have 500"),
        ({"measure": {"examples": 50}}, "measure.examples: the results have 100"),
        ({"run": {"tasks": 1, "seeds": 2}}, "run.tasks: the results have 2, the study now has 1 .*only grow"),
        (
            {"network": {"hidden": 6, "depth": 2, "precision": "bfloat16"}},
            "methods.base.network.precision: the results have 'float32', the study now has 'bfloat16'",
        ),
    ],
)
def test_what_no_longer_matches_is_refused(finished: Path, changes: dict[str, Any], message: str) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()}
    with pytest.raises(StudyError, match=message):
        running.run(config(finished, **changes))
    assert {path: path.read_bytes() for path in finished.rglob("*.*") if path.is_file()} == before


def test_methods_that_stay_keep_their_network_and_optimizer(tmp_path: Path, thread_workers: None) -> None:
    """Another study, whose tables would make something else of them, or nothing that can be."""
    short = {"run": {"tasks": 1, "seeds": 1}}
    own = {"momentum": {"kind": "base", "optimizer": {"momentum": 0.9}}, "base": {}}
    assert running.run(config(tmp_path, methods=own, **short)).complete
    other = {"methods": {"l2": {}}, "optimizer": {"name": "adamw"}, "network": {"hidden": 7, "depth": 2}, **short}
    for _ in range(2):
        assert running.run(config(tmp_path, **other)).complete
        manifest = open_manifest(tmp_path)
        assert {column.text for column in manifest.study.columns} == {column.text for column in manifest.columns}
    runs = load(tmp_path).runs.sort("method")
    assert runs["method"].to_list() == ["base", "l2", "momentum"]
    assert runs["network.hidden"].to_list() == [6, 7, 6]
    assert runs["optimizer.name"].to_list() == ["sgd", "adamw", "sgd"]
    with pytest.raises(StudyError, match=r"methods.base.network.hidden: the results have 6, the study now has 7"):
        running.run(config(tmp_path, **{**other, "methods": {"base": {}}, "optimizer": {}}))


class Killed:
    """A worker process that was killed."""

    def wait(self) -> int:
        return -signal.SIGTERM


@pytest.fixture
def killed_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pool.WorkerPool:
    """A pool whose workers are always killed, on a part that has come as far as ``reached`` says next."""
    _, parts = running.prepare(config(tmp_path))
    processes = executor.Processes(1)
    one = pool.WorkerPool(config(tmp_path), open_manifest(tmp_path), parts, processes, Watcher(), threading.Event())
    monkeypatch.setattr(one, "_halve", lambda part, message: one.outcome.errors.append(message))
    return one


def put_killed_worker(one: pool.WorkerPool) -> None:
    assert isinstance(one.executor, executor.Processes)
    one.executor._processes[0] = Killed()  # type: ignore[assignment]
    one.workers.add(0)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_only_what_the_kernel_kills_twice_at_one_point_is_short_of_memory(
    killed_pool: pool.WorkerPool, monkeypatch: pytest.MonkeyPatch, by_kernel: bool
) -> None:
    kernel, reached = iter(range(1, 9)), iter([0.0, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75])
    monkeypatch.setattr(executor, "memory_kills", lambda: next(kernel) if by_kernel else 0)
    monkeypatch.setattr(Part, "reached", lambda self, stages: next(reached))
    kills = 0
    while not killed_pool.outcome.errors:
        put_killed_worker(killed_pool)
        killed_pool.busy[0] = 0
        killed_pool._ended(0)
        kills += 1
    message = "killed twice where memory ran out" if by_kernel else r"killed 5 times before they got any further"
    assert re.search(message, killed_pool.outcome.errors[0])
    assert kills == (4 if by_kernel else 7)


def test_workers_that_are_killed_while_they_start(killed_pool: pool.WorkerPool) -> None:
    for kills in range(1, 6):
        put_killed_worker(killed_pool)
        killed_pool._ended(0)
        assert bool(killed_pool.outcome.errors) == (kills == 5)
    assert "memory ran out" not in killed_pool.outcome.errors[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_while_it_starts_has_a_successor(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The first two end themselves before they are ready; the third is a worker."""
    real, count = executor.Popen, itertools.count()

    def start(command: list[str], **options: Any) -> Any:
        if next(count) < 2:
            return subprocess.Popen([sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"], **options)
        return real(command, **options)

    monkeypatch.setattr(executor, "Popen", start)
    outcome = running.run(config(tmp_path))
    assert outcome.complete
    assert not outcome.halved
    assert all_files(tmp_path) == all_files(finished)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, thread_workers: None) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert running.run(config(folder)).complete
    return folder


def test_a_folder_of_another_version_or_of_something_else(finished: Path, tmp_path: Path) -> None:
    content = json.loads((finished / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**content, "format": 99}))
    for use in (load, lambda folder: running.run(config(folder))):
        with pytest.raises(ValueError, match=r"holds results of format 99, written by supple 0.1.0; this supple reads"):
            use(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no results"):
        load(tmp_path / "nothing")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Its results are not taken for those of a machine without memory."""
    monkeypatch.setattr(executor, "Popen", subprocess.Popen)
    killed = threading.Event()

    class Killer(Watcher):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
            if not killed.is_set():
                killed.set()
                workers = subprocess.run(
                    ["pgrep", "-P", str(os.getpid()), "-f", "supple.lab.study.worker"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.split()
                for worker in workers:
                    os.kill(int(worker), number)

        def say(self, message: str) -> None:
            self.messages.append(message)

    watcher = Killer()
    long = {"run": {"tasks": 30, "seeds": 2}}
    assert running.run(config(tmp_path / "killed", **long), watcher).complete
    assert watcher.messages == ["A worker process was killed; its part goes on from its last checkpoint."]
    assert running.run(config(tmp_path / "whole", **long)).complete
    assert all_files(tmp_path / "killed") == all_files(tmp_path / "whole")


@pytest.mark.slow
def test_where_memory_runs_out_half_of_the_networks_go_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Said(Watcher):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def say(self, message: str) -> None:
            self.messages.append(message)

    monkeypatch.setattr(executor, "WORKER", [sys.executable, str(Path(__file__).with_name("short_of_memory.py"))])
    watcher = Said()
    outcome = running.run(config(tmp_path), watcher)
    assert outcome.complete
    assert outcome.halved == 1
    assert watcher.messages == ["Memory ran out with 4 networks; going on with half of them."]
    results, expected = load(tmp_path), load(finished)
    assert results.runs.drop("part").equals(expected.runs.drop("part"))
    assert results.runs["part"].to_list() == [0, 0, 1, 1]
    assert [one.halved for one in results.sessions] == [1]
    keys = ["run", "task"]
    found, wanted = (one.tasks.sort(keys) for one in (results, expected))
    assert found.select(*keys, "accuracy").equals(wanted.select(*keys, "accuracy"))


def test_one_process_at_a_time(finished: Path) -> None:
    with claims.claimed(finished), pytest.raises(claims.Busy, match="another process is writing into"):
        running.run(config(finished))


def test_a_worker_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "WORKER", [sys.executable, "-c", "raise SystemExit(3)"])
    outcome = running.run(config(tmp_path))
    assert not outcome.complete
    assert outcome.errors == ["a worker process ended with code 3; what it printed stands above"]


def test_a_stop_before_the_first_task(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    outcome = running.run(config(tmp_path), stop=stop)
    assert not outcome.complete
    assert not outcome.errors
    assert load(tmp_path).runs["done"].to_list() == [0] * 4


@pytest.mark.usefixtures("thread_workers")
def test_a_stop_when_all_is_done(tmp_path: Path) -> None:
    """Nothing is left that the same command would go on with."""

    class StopsAtTheEnd(Watcher):
        def stage(self, part: int, done: float, accuracy: Sequence[tuple[str, float]]) -> None:
            if done == wanted:
                stop.set()

    stop, wanted = threading.Event(), config(tmp_path).study.run.tasks
    assert running.run(config(tmp_path), StopsAtTheEnd(), stop).complete
    assert stop.is_set()
    assert running.run(config(tmp_path), stop=stop).complete


@pytest.mark.usefixtures("thread_workers")
class TestCommand:
    """What a user sees, in process where nothing is trained."""

    @pytest.fixture
    def study(self, tmp_path: Path) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(STUDY)
        return path

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--methods", "srw"], "--methods: there is no 'srw'. Did you mean swr?"),
            (["--methods", ","], "give some of base, cbp, swr"),
            (["--seeds", "few"], "--seeds is 'few'; give how many, such as 5, or which, such as 0,3,7"),
            (["--seeds", "--5"], "--seeds is '--5'; give how many"),
            (["--seeds", "1,1"], "a seed is given twice"),
            (["--memory", "0"], "above 0, in GB"),
            (["--memory", "0.001"], "give more with --memory"),
            (["--data", "mnist", "--data-dir", "/nowhere"], "/nowhere"),
            (["--precision", "tf32"], "precision tf32 is of products on a GPU; choose float32 or bfloat16"),
            (["--precision", "float16"], "is not one of 'float32', 'tf32', 'bfloat16'"),
            (["--graphs"], "--graphs records steps of a GPU; leave it out, or add --device cuda"),
        ],
    )
    def test_bad_options(self, study: Path, tmp_path: Path, options: Sequence[str], message: str) -> None:
        result = command("run", study, "--out", tmp_path / "out", *options)
        assert result.exit_code in (1, 2)
        assert message in words(result)
        assert not (tmp_path / "out" / MANIFEST).exists()

    def test_scaled_down(self, study: Path, tmp_path: Path) -> None:
        options = ("--tasks", 1, "--seeds", "5", "--methods", "swr", "--processes", 1)
        result = command("run", study, "--out", tmp_path / "out", *options)
        assert result.exit_code == 0, result.output
        assert "tiny: 5 runs, 1 tasks each" in words(result)
        assert "100.0% swr" in words(result)
        assert "network steps/s" in words(result)
        options = ("--tasks", 1, "--seeds", "7,", "--methods", "base", "--processes", 1, "--no-graphs")
        assert command("run", study, "--out", tmp_path / "out", *options).exit_code == 0
        results = load(tmp_path / "out")
        assert [one.graphs for one in results.sessions] == [False, False]
        # What the folder holds, and not only what was run last.
        assert results.scaled == {
            "tasks": (12, 1),
            "seeds": ([0, 1], [0, 1, 2, 3, 4, 7]),
            "methods": (["base", "cbp", "swr"], ["swr", "base"]),
        }
        assert results.name == "tiny"

    def test_precision(self, study: Path, tmp_path: Path) -> None:
        options = ("--tasks", 1, "--seeds", 1, "--methods", "base", "--processes", 1, "--precision", "bfloat16")
        assert command("run", study, "--out", tmp_path / "out", *options).exit_code == 0
        results = load(tmp_path / "out")
        assert results.runs["network.precision"].to_list() == ["bfloat16"]
        assert results.scaled["precision"] == ("float32", "bfloat16")
        one = from_dict({**results.study.model_dump(mode="json"), "network": {"hidden": 6, "depth": 2}}, "tiny.toml")
        population = assemble(mnist10k(), one.columns, [0], one.problem, one.measure)
        exact = population.train_task(0)
        (row,) = results.tasks.iter_rows(named=True)
        assert row["loss"] != pytest.approx(float(exact.loss), rel=1e-6)
        assert row["loss"] == pytest.approx(float(exact.loss), rel=0.02)

    def test_plan(self, study: Path) -> None:
        result = command("plan", study, "--seeds", 3, "--processes", 2)
        assert result.exit_code == 0, result.output
        assert "9 runs of 240 steps, 2,160 network steps in all" in words(result)
        assert "with 2 processes. There are parts for 1; a smaller --part-size makes more." in words(result)
        result = command("plan", study, "--seeds", 3, "--processes", 2, "--part-size", 5)
        assert "with 2 processes. There" not in words(result)

    def test_plan_measures_each_choice_of_methods(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three runs of plain training at 50 steps a second, and three of CBP and three of SWR at 5, each of 240."""
        rates = {frozenset({"base"}): 50.0, frozenset({"cbp", "swr"}): 5.0}
        monkeypatch.setattr(
            PermutedProblem, "rate", lambda self, columns, *unused: rates[frozenset(one.kind for one in columns)]
        )
        result = command("plan", study, "--seeds", 3, "--processes", 1, "--part-size", 2)
        assert 240 * (3 / 50 + 6 / 5) == 302.4
        assert "About 5 min 2 s with 1 process" in words(result)

    def test_plan_says_when_others_keep_the_machine_busy(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(PermutedProblem, "rate", lambda *unused: time.sleep(0.2) or 5.0)
        result = command("plan", study)
        assert re.search(r"Other programs keep this machine busy: the measurement got \d% of a core", words(result))


@pytest.mark.cuda
def test_graphs_change_nothing(tmp_path: Path) -> None:
    found = []
    for graphs in (False, True):
        one = replace(config(tmp_path / str(graphs)), device="cuda", graphs=graphs)
        assert running.run(one).complete
        results = load(one.folder)
        assert results.sessions[0].graphs == graphs
        found.append(results.tasks["loss"].to_list())
    assert found[0] == pytest.approx(found[1], rel=1e-5)
