"""A study as an array of SLURM jobs, submitted through submitit; its members take parts as they come."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from supple.lab.study import claims, files, fitness
from supple.lab.study.errors import StudyError
from supple.lab.study.progress import Lines
from supple.lab.study.results import MANIFEST, RUNS, part_folder
from supple.lab.study.run_config import RunConfig
from supple.lab.study.running import emptied, join, plan, session
from supple.lab.study.status import look

try:
    from submitit import SlurmExecutor
    from submitit.core.utils import DelayedSubmission, FailedJobError
except ModuleNotFoundError as error:
    raise StudyError('--on slurm needs submitit, which is not installed: pip install "supple[slurm]"') from error

JOBS = "slurm"
"""Folder within the results for what submitit writes: scripts, logs, and what members are told."""

_JOB = "job.json"

_DESCRIPTION = MANIFEST, RUNS, files.DIGESTS
"""What is written before the first part is trained."""

_SIGNAL = 90
"""Seconds before the limit of time at which SLURM tells a member that it will end."""

_REQUEUES = 100_000
"""How often a member may be put back into the queue; each time has brought its parts on."""


@dataclass
class Member:
    """What a member of the array does, in a process of its own on its node."""

    config: RunConfig
    which: int
    count: int
    token: Mapping[str, Any]

    def __call__(self) -> str:
        """Trains parts until none is left; submitit calls it."""
        self._stop, done = threading.Event(), threading.Event()
        # As SLURM does before it kills, where somebody ends the job or another needs its place.
        signal.signal(signal.SIGTERM, self._end)
        # The signal before the limit of time is one of these, by the settings of submitit, or of the site.
        handlers = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)]
        requeue = next((handler for handler in handlers if callable(handler)), self._end)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, requeue)
        found: list[Any] = []

        def train() -> None:
            try:
                fitness.check(self.config.folder, **self.token)
                found.append(join(self._here(), (self.which, self.count), Lines(Console()), self._stop, whole=True))
            except (OSError, ValueError) as error:
                found.append(error)
            finally:
                done.set()

        # In a thread, since submitit's handler of the signal before the limit of time runs in this one.
        self._thread = threading.Thread(target=train)
        self._thread.start()
        while not done.wait(0.5):
            pass
        (outcome,) = found
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.errors:
            raise RuntimeError("; ".join(outcome.errors))
        return "complete" if outcome.complete else "left"

    def checkpoint(self) -> DelayedSubmission:
        """Ends with checkpoints; submitit calls it before the limit of time, and then queues the member again."""
        self._stop.set()
        self._thread.join()
        return DelayedSubmission(Member(self.config, self.which, self.count, self.token))

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _here(self) -> RunConfig:
        """With one process a core that SLURM gave, where it is not said how many."""
        given = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        return replace(self.config, processes=self.config.processes or int(given))


def parameters(text: str, workers: int) -> dict[str, Any]:
    """The options of sbatch from "partition=gpu,time=4:00:00"; ValueError names the one that is none.

    A comma within a value is written in a part without "=": "exclude=n1,n2".
    """
    found: dict[str, str] = {}
    for piece in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = piece.partition("=")
        if equals:
            found[name.strip().lstrip("-").replace("-", "_")] = value.strip()
        elif found:
            found[next(reversed(found))] += f",{piece}"
        else:
            raise StudyError(f"--slurm: {piece!r} is no option with a value; write such as partition=gpu,time=4:00:00")
    for name, value in found.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not value:
            raise StudyError(f"--slurm: {name}={value} is no option of sbatch with a value, such as partition=gpu")
    own = {"array", "output", "error", "signal", "open_mode", "requeue"} & found.keys()
    if own:
        raise StudyError(
            f"--slurm: {', '.join(sorted(own))} is set by supple; leave it out (--workers is the size of the array)"
        )
    known = SlurmExecutor._valid_parameters() - {"additional_parameters", "setup", "teardown", "srun_args", "use_srun"}
    delay = found.pop("signal_delay_s", str(_SIGNAL))
    if not delay.isdigit():
        raise StudyError(f"--slurm: signal_delay_s is {delay!r}; it is a number of seconds")
    special = {name: value for name, value in found.items() if name not in known}
    whole: dict[str, Any] = {name: int(value) if value.isdigit() else value for name, value in found.items()}
    if "time" in found:
        whole["time"] = _minutes(found["time"])
        if 60 * whole["time"] <= int(delay):
            raise StudyError(
                f"--slurm: time is {whole['time']} min, and workers are told {delay} s before (signal_delay_s); "
                "give more time"
            )
    return {
        "job_name": "supple",
        "time": 60,
        "array_parallelism": workers,
        "stderr_to_stdout": True,
        **{name: value for name, value in whole.items() if name in known},
        "signal_delay_s": int(delay),
        "additional_parameters": {"requeue": True, "chdir": os.getcwd(), **special},
    }


def script(given: Mapping[str, Any], folder: Path, workers: int) -> str:
    """The script that :func:`submit` would give to sbatch."""
    from submitit.slurm.slurm import _make_sbatch_string

    command = f"{sys.executable} -u -m submitit.core._submit {folder / JOBS}"
    return str(_make_sbatch_string(command=command, folder=folder.absolute() / JOBS, map_count=workers, **given))


def start(config: RunConfig, given: Mapping[str, Any], workers: int) -> str | None:
    """Submits an array for a study, and writes the manifest that its members wait for.

    Returns the number of the job; None where all is done.
    """
    with emptied(config.folder), claims.claimed(config.folder):
        manifest, _, new = plan(config)
        if not new and look(config.folder, claims.Watch()).complete:
            return None
        job = _submit(config, given, workers, _keep(config.folder))
        manifest.sessions.append(session(config))
        manifest.write()
    return job


def withdraw(folder: Path) -> bool:
    """Puts a folder back as it was before its array, if no member has begun a part; whether it did."""
    before = json.loads((folder / JOBS / _JOB).read_text())["before"]
    if _claims(folder) != before["claims"]:
        return False
    for name in _DESCRIPTION:
        if name in before:
            files.replace(folder / name, b64decode(before[name]))
        else:
            (folder / name).unlink()
    if MANIFEST not in before:
        shutil.rmtree(folder / JOBS)
        for path in folder.glob(".claim-*"):
            path.unlink()
        with suppress(OSError):  # there are other files
            folder.rmdir()
    return True


def _keep(folder: Path) -> dict[str, Any]:
    """What :func:`withdraw` needs to know of a folder."""
    there = [name for name in _DESCRIPTION if (folder / name).exists()]
    return {"claims": _claims(folder), **{name: b64encode((folder / name).read_bytes()).decode() for name in there}}


def _claims(folder: Path) -> list[str]:
    """Names of the claims of all parts, of which there is a new one whenever somebody begins a part."""
    return sorted(str(path.relative_to(folder)) for path in part_folder(folder, 0).parent.glob("*/.claim-*"))


def _submit(config: RunConfig, given: Mapping[str, Any], workers: int, before: Mapping[str, Any]) -> str:
    """Submits the array, and returns the number of its job; StudyError with what sbatch says if it refuses."""
    folder = config.folder.absolute()
    here = replace(config, folder=folder, data_dir=None if config.data_dir is None else config.data_dir.absolute())
    was_there = (folder / JOBS).exists()
    executor = SlurmExecutor(folder / JOBS, max_num_timeout=_REQUEUES)
    executor.update_parameters(**given)
    token = f"{JOBS}/token", uuid.uuid4().hex
    try:
        files.replace(folder / token[0], token[1].encode())
        with executor.batch():
            jobs = [
                executor.submit(Member(here, which, workers, {"token": token, "versions": fitness.installed()}))
                for which in range(workers)
            ]
        number = str(jobs[0].job_id).partition("_")[0]
    except FailedJobError as error:
        if not was_there:
            shutil.rmtree(folder / JOBS, ignore_errors=True)
        raise StudyError(f"--on slurm: {_said(error)}") from error
    files.replace(folder / JOBS / _JOB, json.dumps({"job": number, "workers": workers, "before": before}).encode())
    return number


def running_job(folder: Path) -> str | None:
    """The job of a folder that has members in the queue or at work; None if there is none."""
    try:
        number = str(json.loads((folder / JOBS / _JOB).read_text())["job"])
    except FileNotFoundError:
        return None
    return number if members(number) else None


def members(job: str) -> dict[str, int]:
    """How many members of an array are in each state, such as "RUNNING"; those that have ended are left out.

    Where SLURM does not answer, they are in the state "UNKNOWN".
    """
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%T", "--jobs", job],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode and "Invalid job id" not in done.stderr:
        return {"UNKNOWN": 1}
    states = done.stdout.split()
    return {state: states.count(state) for state in dict.fromkeys(states)}


def check_there() -> None:
    """StudyError where this machine does not belong to a SLURM cluster."""
    if shutil.which("sbatch") is None:
        raise StudyError("--on slurm: there is no sbatch here; run this on a login node of a SLURM cluster")


def last_words(folder: Path, job: str) -> str:
    """What the last member that failed has said; "" if none has."""
    logs = sorted((folder / JOBS).glob(f"{job}_*_log.out"), key=lambda path: path.stat().st_mtime)
    for path in reversed(logs):
        lines = [
            line for line in path.read_text(errors="replace").splitlines() if re.match(r"\w*(Error|Exception)\b", line)
        ]
        if lines:
            return lines[-1]
    return "" if logs else "No node has written a log there, as where nodes do not see the folder; see --out"


def _minutes(text: str) -> int:
    """The minutes of a time as SLURM writes it: 90, 90:00, 1:30:00, 1-12, 1-12:30 or 1-12:30:00; at least 1."""
    days, dash, rest = text.rpartition("-")
    try:
        numbers = [int(number) for number in rest.split(":")]
        if dash:
            hours, minutes, seconds = [*numbers, 0, 0][:3]
        else:
            hours, minutes, seconds = ([0, *numbers, 0] if len(numbers) == 1 else [0, 0, *numbers])[-3:]
        found = 1440 * int(days or 0) + 60 * hours + minutes + (seconds > 0)
    except ValueError:
        found = 0
    if found < 1:
        raise StudyError(f"--slurm: time is {text!r}; write minutes, such as 90, or such as 4:00:00 or 1-12:00:00")
    return found


def _said(error: Exception) -> str:
    """What sbatch said, in one line."""
    lines = [line for line in str(error).splitlines() if "sbatch: error" in line]
    return " ".join(line.partition("error:")[2].strip() for line in lines) or " ".join(str(error).split())[-300:]
