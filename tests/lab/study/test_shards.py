"""Runs beside others: shares, parts taken as they come, what is with others, and what ``supple status`` says of it."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from cli_runs import run as command
from cli_runs import words
from test_running import all_files, config

from supple.lab.commands.run import share_of
from supple.lab.study import claims, fitness, running, status
from supple.lab.study.manifest import open_manifest
from supple.lab.study.progress import Watcher
from supple.lab.study.results import part_folder
from supple.lab.study.run_config import RunConfig

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import workers as simulation

pytestmark = pytest.mark.usefixtures("thread_workers")


def one_a_part(folder: Path) -> RunConfig:
    return replace(config(folder), part_size=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, thread_workers: None) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert running.run(one_a_part(folder)).complete
    return folder


def test_shares_make_the_whole(whole: Path, tmp_path: Path) -> None:
    for which in (2, 0, 1):
        assert running.join(one_a_part(tmp_path), (which, 3)).complete
        assert (status.look(tmp_path, claims.Watch()).complete) == (which == 1)
    assert all_files(tmp_path) == all_files(whole)
    manifest = open_manifest(tmp_path)
    assert len(manifest.sessions) == 1
    machine = {"host": claims.here()["host"], "processor": claims.processor(), "device": "CPU"}
    assert [part["ran"] for part in manifest.parts] == [[machine]] * 4


def test_of_parts_that_are_taken_as_they_come_each_is_trained_once(whole: Path, tmp_path: Path) -> None:
    running.prepare(one_a_part(tmp_path))
    outcomes: list[object] = []
    both = [
        threading.Thread(
            target=lambda k=k: outcomes.append(running.join(one_a_part(tmp_path), (k, 2), whole=True))  # type: ignore[misc]
        )
        for k in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(outcomes) == 2
    assert all_files(tmp_path) == all_files(whole)
    for part in range(4):
        claim = claims.read(part_folder(tmp_path, part))
        assert claim is not None
        assert claim.number == 1


@pytest.mark.slow
def test_what_others_train_is_left_to_them(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.2)
    monkeypatch.setattr(claims, "LOST_AFTER", 2.0)
    running.prepare(one_a_part(tmp_path))
    place = part_folder(tmp_path, 1)
    place.mkdir(parents=True)
    said: list[str] = []

    class Said(Watcher):
        def say(self, message: str) -> None:
            said.append(message)

    with claims.take(place, None):
        outcome = running.join(one_a_part(tmp_path), (0, 1), Said())
    assert not outcome.complete
    assert outcome.left == 1
    assert not outcome.errors
    assert said == ["1 part is with other workers; waiting in case they are lost."]
    # Of another machine that is silent it is taken over, after some time and by itself.
    holder = {"host": "elsewhere", "process": 1, "started": "1"}
    content = {"holder": holder, "renewed": 7, "note": {}, "given_back": False, "before": []}
    (place / ".claim-000009").write_text(json.dumps(content))
    found = status.look(tmp_path, claims.Watch())
    assert (found.count("done"), found.count("running")) == (3, 1)
    watch = claims.Watch()
    status.look(tmp_path, watch)
    monkeypatch.setattr(status, "SILENT", 0.3)
    time.sleep(0.4)
    assert status.look(tmp_path, watch).count("lost") == 1
    assert running.join(one_a_part(tmp_path), (0, 1)).complete
    assert all_files(tmp_path) == all_files(whole)
    assert [one["host"] for one in open_manifest(tmp_path).parts[1]["ran"]] == ["elsewhere", claims.here()["host"]]


def test_other_versions_are_refused(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(fitness, "installed", lambda: {"torch": "1.0", "supple": "0.1.0"})
    with pytest.raises(ValueError, match=r"has torch 1.0 instead of .*; install the same versions on all machines"):
        running.join(one_a_part(folder), (0, 2))
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_status(whole: Path, tmp_path: Path) -> None:
    result = command("status", whole)
    assert result.exit_code == 0, result.output
    assert words(result) == "4 parts: 4 done; 100.0%"
    running.prepare(one_a_part(tmp_path))
    place = part_folder(tmp_path, 2)
    place.mkdir(parents=True)
    with claims.take(place, None) as holder:
        holder.note = {"done": 1.5, "rate": 100.0}
        holder.renew()
        result = command("status", tmp_path)
    assert "4 parts: 1 running, 3 waiting; 18.8%, 100 network steps/s, 1 s left" in words(result)
    assert "part 2 (1 runs) is running" in words(result)
    result = command("status", tmp_path / "nothing")
    assert result.exit_code == 1
    assert "holds no results" in words(result)


ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "8"}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/16", {}, (3, 16)),
        ("auto", ARRAY, (2, 8)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "4"}, (4, 16)),
        ("auto", {"JOB_COMPLETION_INDEX": "4"}, "of how many; give auto/16"),
        ("auto", {}, "which share this is; give 3/16"),
        ("16/16", {}, "counted from 0"),
        ("3", {}, "counted from 0"),
        ("a/b", {}, "counted from 0"),
    ],
)
def test_which_share(text: str, environment: Mapping[str, str], expected: object) -> None:
    if isinstance(expected, str):
        with pytest.raises(typer.BadParameter, match=expected):
            share_of(text, environment)
    else:
        assert share_of(text, environment) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "3"], "it is for --on ray or --on slurm"),
        (["--on", "ray", "--slurm", "time=1"], "it is for --on slurm"),
        (["--on", "slurm", "--shard", "0/2"], "it is for --on local"),
        (["--dry-run"], "it is for --on slurm"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, options: list[str], message: str) -> None:
    result = command("run", "permuted_mnist/small", "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert message in words(result)
    assert not (tmp_path / "out").exists()


class TestFitness:
    @pytest.fixture
    def arguments(self, tmp_path: Path) -> dict[str, object]:
        (tmp_path / "token").write_text("x")
        return {"token": ("token", "x"), "versions": fitness.installed()}

    def test_fit(self, tmp_path: Path, arguments: dict[str, object]) -> None:
        study = config(tmp_path).study
        identity = running.open_problem(study).identity()
        fitness.check(tmp_path, **arguments, study=study.model_dump(mode="json"), problem={}, identity=identity)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"token": ("other", "x")}, "does not see the folder"),
            ({"token": ("token", "y")}, "does not see the folder"),
            ({"versions": {"torch": "1.0"}}, "instead of 1.0; install the same versions"),
            ({"problem": {"data_dir": "/nowhere"}}, "cannot open the problem: .*nowhere"),
            ({"identity": {"count": 1, "digest": ""}}, "has other data under the name of mnist10k"),
        ],
    )
    def test_unfit(self, tmp_path: Path, arguments: dict[str, object], change: dict[str, object], message: str) -> None:
        content = config(tmp_path).study.model_dump(mode="json")
        if "problem" in change:
            content["problem"]["data"] = "mnist"
        with pytest.raises(ValueError, match=f"^{claims.here()['host']} .*{message}"):
            fitness.check(tmp_path, **{**arguments, "study": content, **change})  # type: ignore[arg-type]


def slept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, parts: int, seconds: float) -> None:
    """Of so many workers a tenth dies; no part is lost, and none is trained twice."""
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.5)
    monkeypatch.setattr(claims, "LOST_AFTER", 5.0)
    log, _ = simulation.simulate(workers, parts, seconds, tmp_path)
    assert log.deaths == workers // 10
    assert dict(log.completed) == dict.fromkeys(range(parts), 1)


def test_many_workers_of_which_some_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept(tmp_path, monkeypatch, 20, 60, 0.2)


@pytest.mark.slow
def test_more_workers_of_which_some_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept(tmp_path, monkeypatch, 200, 800, 5.0)
