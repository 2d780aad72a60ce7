"""``supple run``: a study, or what is missing of it, on this machine or on a cluster."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from supple.lab.commands.cluster import print_slurm_script, run_on_slurm
from supple.lab.commands.options import (
    DataDir,
    Device,
    Verify,
    interruptible,
    plain_errors,
    say,
    say_error,
    there,
    writable,
)
from supple.lab.commands.scale import (
    Data,
    Epochs,
    Graphs,
    Memory,
    Methods,
    PartSize,
    Precision,
    Processes,
    Seeds,
    StudyName,
    Tasks,
    in_bytes,
    scale,
)
from supple.lab.escaping import short
from supple.lab.study import shipped
from supple.lab.study.executor import Executor
from supple.lab.study.pool import Outcome
from supple.lab.study.progress import Bars, Lines
from supple.lab.study.run_config import RunConfig
from supple.lab.study.running import join, run
from supple.lab.study.spec import read


class On(str, Enum):
    """What trains."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


def run_command(
    study: StudyName,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="supple-results/STUDY")
    ] = None,
    tasks: Tasks = None,
    seeds: Seeds = None,
    methods: Methods = None,
    epochs: Epochs = None,
    data_name: Data = None,
    data_dir: DataDir = None,
    verify: Verify = True,
    precision: Precision = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.cpu,
    graphs: Graphs = False,
    processes: Processes = None,
    part_size: PartSize = None,
    memory: Memory = None,
    on: Annotated[
        On, typer.Option(help="What trains: this machine, a Ray cluster, or an array of SLURM jobs.")
    ] = On.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers on the cluster.", show_default="ray: as there is room; slurm: 1"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster: HOST:PORT, or auto.", show_default="a Ray of this machine"),
    ] = None,
    slurm: Annotated[
        str, typer.Option(metavar="K=V,...", help="Options of sbatch, such as partition=gpu,time=4:00:00.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script for SLURM, and do nothing.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Train only share I, from 0, of N, beside others that train the rest; auto or auto/N takes I from "
            "SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX.",
        ),
    ] = None,
) -> None:
    """Run a study, or what is missing of it.

    Results are written as they come. Ctrl-C stops; after that, or a crash, or
    a loss of power, the same command goes on where it was, and ends with the
    same results. With more seeds, methods or tasks than before it runs only
    what is missing. [bold]supple plan[/] says before how long it will take.

    [bold]Examples[/]

    [dim]$[/] supple run permuted_mnist/small --tasks 20 --seeds 2 --data mnist10k

    [dim]$[/] supple run permuted_mnist/small --data-dir ~/datasets/mnist --methods base,swr

    [dim]$[/] supple run incremental_cifar100/regular --device cuda --precision bfloat16

    [dim]$[/] supple run my-study.toml --out results/my-study

    [dim]$[/] supple run my-study.toml --on ray --address auto

    [dim]$[/] supple run my-study.toml --on slurm --slurm partition=gpu,time=4:00:00 --workers 40

    [dim]$[/] supple run my-study.toml --shard 3/16
    """
    console = Console()
    allowed = in_bytes(memory)
    share = _where(on, workers, address, slurm, dry_run, shard)
    if on is On.local or device is Device.cpu:
        there(device)
    elif allowed is None and not torch.cuda.is_available():
        raise typer.BadParameter(
            "this machine has no GPU to ask; give the GB of GPU memory that a worker may take.", param_hint="--memory"
        )
    with plain_errors():
        path, name = shipped.find(study)
        original = read(path)
        chosen = scale(original, tasks, seeds, methods, data_name, epochs, precision)
        folder = out or Path("supple-results") / name
        config = RunConfig(
            chosen,
            name,
            folder,
            original=original,
            data_dir=data_dir,
            verify=verify,
            device=device.value,
            graphs=graphs,
            processes=processes,
            memory=allowed,
            part_size=part_size,
            command=shlex.join(["supple", *sys.argv[1:]]),
        )
        if dry_run:
            print_slurm_script(config, slurm, workers or 1, console)
            return
        was_there = folder.exists()
        writable(folder)
        if not was_there:
            folder.rmdir()
        executor = _executor(on, address, workers)
        say(
            f"{short(chosen.title, 200)}: {len(chosen.columns) * len(chosen.run.seeds):,} runs, "
            f"{chosen.run.tasks:,} tasks each, into {folder}. Ctrl-C stops; the same command goes on.",
            console,
        )
        with interruptible() as stop:
            if on is On.slurm:
                run_on_slurm(config, slurm, workers or 1, console, stop)
                return
            with Bars(console) if console.is_terminal else Lines(console) as watcher:
                if share is not None:
                    outcome = join(config, share, watcher, stop)
                else:
                    outcome = run(config, watcher, stop, executor)
    check_complete(outcome, console)
    done = "all results" if share is None else f"the results of share {share[0]} of {share[1]}"
    say(f"Done: {done} are in {folder}.", console)


def check_complete(outcome: Outcome, console: Console) -> None:
    """Says what went wrong, and exits where something is missing."""
    for message in outcome.errors:
        say_error(message)
    if not outcome.complete:
        say("Not complete; the same command goes on where it was.", console)
        raise typer.Exit(1 if outcome.errors else 130)


def _where(
    on: On, workers: int | None, address: str | None, slurm: str, dry_run: bool, shard: str | None
) -> tuple[int, int] | None:
    """The share that is meant, None for all; refuses options that do not go together."""
    given = {"--workers": workers, "--address": address, "--slurm": slurm, "--dry-run": dry_run, "--shard": shard}
    allowed = {
        On.local: ["--shard"],
        On.ray: ["--workers", "--address"],
        On.slurm: ["--workers", "--slurm", "--dry-run"],
    }
    for name, value in given.items():
        if value and name not in allowed[on]:
            needed = " or ".join(f"--on {one.value}" for one, names in allowed.items() if name in names)
            raise typer.BadParameter(f"it is for {needed}; leave it out.", param_hint=name)
    return None if shard is None else share_of(shard, os.environ)


def share_of(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """The share, (which, of how many), of "3/16", "auto/16" or "auto"."""
    which, _, count = text.partition("/")
    if which == "auto":
        number = environment.get("SLURM_ARRAY_TASK_ID")
        if number is not None:
            which = str(int(number) - int(environment.get("SLURM_ARRAY_TASK_MIN", 0)))
            count = count or environment.get("SLURM_ARRAY_TASK_COUNT", "")
        else:
            which = environment.get("JOB_COMPLETION_INDEX", "")
        if not which or not count:
            missing = "of how many; give auto/16" if which else "which share this is; give 3/16"
            raise typer.BadParameter(f"no scheduler says {missing}, or the like.", param_hint="--shard")
    if not (which.isdigit() and count.isdigit() and int(which) < int(count)):
        raise typer.BadParameter(
            f"it is {text!r}; give a share, counted from 0, and of how many: 0/16 to 15/16.", param_hint="--shard"
        )
    return int(which), int(count)


def _executor(on: On, address: str | None, workers: int | None) -> Executor | None:
    """What has the workers; None: processes of this machine."""
    if on is not On.ray:
        return None
    from supple.lab.study.ray_workers import RayWorkers

    return RayWorkers(address, workers)
