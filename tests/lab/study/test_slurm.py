"""Studies on a SLURM of this machine: arrays, limits of time, members and commands that are ended."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from cli_runs import run as command
from cli_runs import words, write_images
from test_running import CHECKPOINT, STUDY, all_files, config

from supple.lab.commands.scale import scale
from supple.lab.study import claims, load, running
from supple.lab.study.results import part_folder
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import read

pytest.importorskip("submitit")
from supple.lab.study import slurm
from supple.lab.study.errors import StudyError


@pytest.fixture(scope="module")
def engine() -> None:
    """Skips what needs a SLURM where there is none that takes jobs."""
    try:
        subprocess.run(["sinfo", "--noheader"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("there is no SLURM that takes jobs")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY.replace("tasks = 12", "tasks = 40"))
    return path


def start(study: Path, out: Path, workers: int, options: str = "time=30", *more: str) -> subprocess.Popen[str]:
    arguments = ("run", str(study), "--out", str(out), "--part-size", "1", *more, "--on", "slurm", "--slurm", options)
    return subprocess.Popen(
        [sys.executable, "-m", "supple", *arguments, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def whole(study: Path, folder: Path) -> dict[str, bytes]:
    assert running.run(RunConfig(read(study), "tiny", folder, processes=2, part_size=1)).complete
    return all_files(folder)


def wait(condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def requeued(out: Path, number: str) -> bool:
    """Whether a member was queued again; SLURM would let it wait for two minutes then, and is told not to."""
    logs = (out / slurm.JOBS).glob("*_log.out")
    if slurm.members(number) != {"PENDING": 1} or not any("Requeued job" in path.read_text() for path in logs):
        return False
    return subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=False).returncode == 0


def job(out: Path) -> str:
    return str(json.loads((out / slurm.JOBS / "job.json").read_text())["job"])


@pytest.mark.slurm
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("thread_workers", "engine")
class TestEngine:
    def test_a_member_is_ended_and_the_command_is_killed(self, study: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        process = start(study, out, workers=2)
        wait(lambda: list(out.glob(f"parts/*/{CHECKPOINT}")))
        # The command that looks on is killed, and one of the two members ended.
        process.kill()
        process.wait()
        number = job(out)
        assert slurm.running_job(out) == number
        subprocess.run(["scancel", f"{number}_1"], check=True)
        again = start(study, out, workers=2)
        output = again.communicate(timeout=600)[0]
        assert again.returncode == 0, output
        assert "was submitted" not in output
        assert "Done: all results are in" in output
        assert all_files(out) == whole(study, tmp_path / "whole")
        assert all(part["ran"] for part in running.open_manifest(out).parts)

    def test_at_the_limit_of_time_a_member_writes_a_checkpoint_and_is_queued_again(
        self, study: Path, tmp_path: Path
    ) -> None:
        """As SLURM does then, the signal is sent; a member that ends loses nothing that it has learned."""
        out = tmp_path / "out"
        process = start(study, out, workers=1)
        wait(lambda: list(out.glob(f"parts/*/{CHECKPOINT}")))
        number = job(out)
        subprocess.run(["scancel", "--signal=USR1", number], check=True)
        wait(lambda: requeued(out, number))
        assert slurm.running_job(out) == number
        done = load(out).runs["done"].sum()
        assert done > 0
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        assert all_files(out) == whole(study, tmp_path / "whole")

    def test_a_limit_of_time_that_is_waited_out(self, tmp_path: Path) -> None:
        """SLURM tells the member that its time is over, and the next goes on where it was."""
        study, out = tmp_path / "long.toml", tmp_path / "out"
        study.write_text(STUDY.replace("tasks = 12", "tasks = 20_000").replace("seeds = 2", "seeds = 1"))
        process = start(study, out, 1, "time=3,signal_delay_s=30", "--methods", "swr")
        wait(lambda: list(out.glob(f"parts/*/{CHECKPOINT}")))
        number = job(out)
        wait(lambda: requeued(out, number))
        first = load(out).runs["done"].sum()
        wait(lambda: load(out).runs["done"].sum() > first)
        # Enough is seen.
        subprocess.run(["scancel", number], check=True)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 1, output
        assert "the same command goes on where it was" in output
        tasks = load(out).runs["done"].sum()
        study.write_text(study.read_text().replace("tasks = 20_000", f"tasks = {tasks}"))
        chosen = scale(read(study), methods="swr")
        assert running.run(RunConfig(chosen, "long", tmp_path / "whole", part_size=1)).complete
        assert all_files(out) == all_files(tmp_path / "whole")

    def test_workers_without_the_images(self, tmp_path: Path) -> None:
        study, out, data = tmp_path / "tiny.toml", tmp_path / "out", tmp_path / "data"
        data.mkdir()
        write_images(data)
        study.write_text(STUDY.replace("mnist10k", "mnist").replace("500", "40"))
        # The node has them no more when its turn comes.
        options = ("--data-dir", str(data), "--no-verify")
        process = start(study, out, 1, "time=5,begin=now+5", *options)
        wait(lambda: (out / slurm.JOBS / "job.json").exists())
        shutil.rmtree(data)
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 1, output
        assert "no worker of job" in output
        assert re.search(rf"Error: .*{data.name}", output.replace("\n", "")), output
        assert "is as it was" in output
        assert not out.exists()

    def test_a_partition_that_does_not_exist(self, study: Path, tmp_path: Path) -> None:
        began = time.monotonic()
        out = tmp_path / "out"
        result = command("run", study, "--out", out, "--on", "slurm", "--slurm", "partition=nowhere", "--workers", 2)
        assert result.exit_code == 1
        assert "--on slurm: invalid partition specified: nowhere" in words(result)
        assert time.monotonic() - began < 30
        assert not out.exists()


def test_a_dry_run_prints_the_script(study: Path, tmp_path: Path) -> None:
    options = ("--slurm", "partition=gpu,time=4:00:00,gpus_per_node=1,exclude=n1,n2", "--workers", 40, "--dry-run")
    result = command("run", study, "--out", tmp_path / "out", "--on", "slurm", *options)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "#!/bin/bash"
    for line in ("partition=gpu", "time=240", "gpus-per-node=1", "exclude=n1,n2", "array=0-39%40", "requeue"):
        assert f"#SBATCH --{line}" in lines
    assert any(re.fullmatch(r"#SBATCH --signal=USR\d@90", line) for line in lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("4:00:00", 240), ("0:00:01", 1), ("1-12", 2160), ("2-0:30", 2910), ("1-1:1:1", 1502)],
)
def test_times_are_those_of_slurm(text: str, minutes: int) -> None:
    assert slurm.parameters(f"time={text},signal_delay_s=30", 1)["time"] == minutes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("gpu", "'gpu' is no option with a value"),
        ("time=soon", "time is 'soon'; write minutes"),
        ("time=0", "time is '0'"),
        ("time=1", "time is 1 min, and workers are told 90 s before"),
        ("partition=", "is no option of sbatch with a value"),
        ("array=0-3", "array is set by supple"),
        ("signal_delay_s=x", "it is a number of seconds"),
    ],
)
def test_options_that_are_none(options: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        slurm.parameters(options, 1)


def test_without_slurm(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = command("run", study, "--out", tmp_path / "out", "--on", "slurm")
    assert result.exit_code == 1
    assert "there is no sbatch here; run this on a login node" in words(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("thread_workers")
class TestWhatNoMemberBegan:
    """A folder after an array of which no member has begun a part."""

    def submitted(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
        """As after sbatch has taken an array."""

        class Submitted(slurm.SlurmExecutor):
            @classmethod
            def affinity(cls) -> int:
                """Says that there is a SLURM."""
                return 1

            def submit(self, *_: object) -> Job:  # type: ignore[override]
                (self.folder / "7_submission.sh").touch()
                return Job()

            def batch(self, *_: object) -> AbstractContextManager[None]:  # type: ignore[override]
                return nullcontext()

        class Job:
            job_id = "7_0"

        monkeypatch.setattr(slurm, "SlurmExecutor", Submitted)
        return slurm.start(config(folder), slurm.parameters("", 2), 2)

    def test_a_new_one_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "out"
        assert self.submitted(folder, monkeypatch) == "7"
        assert load(folder).runs["done"].sum() == 0
        assert "do not see the folder" in slurm.last_words(folder, "7")
        assert slurm.withdraw(folder)
        assert not folder.exists()

    def test_other_files_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "notes.txt").touch()
        self.submitted(tmp_path, monkeypatch)
        assert slurm.withdraw(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_results_that_were_there_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert running.run(config(tmp_path, methods={"base": {}})).complete
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in (".json", ".parquet")}
        assert len(before) == 3
        self.submitted(tmp_path, monkeypatch)
        assert len(load(tmp_path).runs) == 4
        assert slurm.withdraw(tmp_path)
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        assert len(load(tmp_path).runs) == 2

    def test_what_was_begun_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.submitted(tmp_path, monkeypatch)
        part_folder(tmp_path, 0).mkdir(parents=True)
        with claims.take(part_folder(tmp_path, 0), None):
            pass
        assert not slurm.withdraw(tmp_path)
        assert load(tmp_path).runs["done"].sum() == 0


@pytest.mark.parametrize(
    ("said", "states"),
    [("error: Invalid job id specified", {}), ("error: Unable to contact slurm controller", {"UNKNOWN": 1})],
)
def test_members_where_squeue_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, states: dict[str, int]
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\necho 'slurm_load_jobs {said}' >&2\nexit 1\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.members("7") == states


@pytest.mark.parametrize(("on", "module", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_an_engine_that_is_not_installed(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str, module: str, extra: str
) -> None:
    for name in ("ray_workers", "slurm"):
        monkeypatch.delitem(sys.modules, f"supple.lab.study.{name}", raising=False)
        monkeypatch.delattr(f"supple.lab.study.{name}", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    result = command("run", study, "--out", tmp_path / "out", "--on", on)
    assert result.exit_code == 1
    assert f'which is not installed: pip install "supple[{extra}]"' in words(result)
    assert not (tmp_path / "out").exists()
