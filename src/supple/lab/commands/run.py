"""``supple run``: a study, or what is missing of it; ``supple plan``: what that will take."""

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
from rich.table import Table

from supple.lab.commands.cluster import print_slurm_script, run_on_slurm
from supple.lab.commands.options import (
    DataDir,
    DataName,
    Device,
    ProductPrecision,
    Verify,
    Where,
    interruptible,
    plain_errors,
    say,
    say_error,
    there,
    writable,
)
from supple.lab.escaping import short, shown
from supple.lab.study import shipped
from supple.lab.study.errors import StudyError, nearest
from supple.lab.study.estimate import Estimate, estimate, makespan
from supple.lab.study.executor import Executor
from supple.lab.study.problems import noise_problem
from supple.lab.study.progress import Bars, Lines, duration, pace
from supple.lab.study.run_config import PART_SIZE, RunConfig
from supple.lab.study.running import join, run
from supple.lab.study.schema import Settings, Transformer
from supple.lab.study.spec import OwnStudy, Study, from_dict, read
from supple.methods.registry import METHODS


class On(str, Enum):
    """What trains."""

    local = "local"
    ray = "ray"
    slurm = "slurm"


StudyName = Annotated[str, typer.Argument(help="A study file, or the name of a study that comes with supple.")]
Tasks = Annotated[int | None, typer.Option(min=1, help="Tasks of each run.", show_default="as the study")]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs of each task, where classes are added.", show_default="as the study")
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="How many seeds, or which: 5, or 0,3,7, or 3, with a comma for one.", show_default="as the study"
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(help="Only these methods, of the study or of the package, such as swr,fire.", show_default="all"),
]
Data = Annotated[DataName | None, typer.Option("--data", help="Other images.", show_default="as the study")]
Precision = Annotated[
    ProductPrecision | None, typer.Option(help="Of the products in training.", show_default="as the study")
]
Graphs = Annotated[bool, typer.Option("--graphs/--no-graphs", help="Replay equal steps on a GPU as a CUDA graph.")]
Processes = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that train at the same time.", show_default="one a core; one for a GPU"),
]
Memory = Annotated[
    float | None,
    typer.Option(help="GB that a process may take.", show_default="3/4 of what is free, shared by the processes"),
]
PartSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs that are trained together at most; fewer keep more processes busy, and results differ in rounding.",
        show_default=f"as the folder, else {PART_SIZE}; on a GPU all",
    ),
]


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
    allowed = _bytes(memory)
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
    for message in outcome.errors:
        say_error(message)
    if outcome.complete:
        done = "all results" if share is None else f"the results of share {share[0]} of {share[1]}"
        say(f"Done: {done} are in {folder}.", console)
        return
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


def plan_command(
    study: StudyName,
    tasks: Tasks = None,
    seeds: Seeds = None,
    methods: Methods = None,
    epochs: Epochs = None,
    data_name: Data = None,
    precision: Precision = None,
    device: Where = Device.cpu,
    graphs: Graphs = False,
    processes: Processes = None,
    part_size: PartSize = None,
    memory: Memory = None,
) -> None:
    """Say what running a study will take here: runs, parts, memory and time, from a measurement of seconds.

    Takes the options of [bold]supple run[/]. Nothing is downloaded and nothing
    is kept.

    [bold]Examples[/]

    [dim]$[/] supple plan permuted_mnist/small

    [dim]$[/] supple plan permuted_mnist/sweeps/large --methods swr --seeds 3 --tasks 100
    """
    allowed = _bytes(memory)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with plain_errors():
            path, name = shipped.find(study)
            chosen = scale(read(path), tasks, seeds, methods, data_name, epochs, precision)
            config = RunConfig(
                chosen,
                name,
                Path(),
                device=device.value,
                graphs=graphs,
                processes=processes,
                memory=allowed,
                part_size=part_size,
            )
            found = estimate(config, noise_problem(chosen, **config.runtime))
    finally:
        torch.set_num_threads(threads)
    Console().print(_table(found, config))


def scale(
    study: Study,
    tasks: int | None = None,
    seeds: str | None = None,
    methods: str | None = None,
    data_name: DataName | None = None,
    epochs: int | None = None,
    precision: ProductPrecision | None = None,
) -> Study:
    """Cuts a study down to what the command line asks for; StudyError if the study does not have that."""
    content = study.model_dump(mode="json")
    given = {"--data": data_name, "--epochs": epochs, "--precision": precision}
    if isinstance(study, OwnStudy) and any(given.values()):
        name = next(name for name, value in given.items() if value)
        raise StudyError(f"{name}: this problem is one of your own, whose settings its file says; leave it out")
    if tasks is not None:
        content["run"]["tasks"] = tasks
    if seeds is not None:
        try:
            numbers = [int(part) for part in seeds.split(",") if part.strip()]
        except ValueError as error:
            raise StudyError(
                f"--seeds is {seeds!r}; give how many, such as 5, or which, such as 0,3,7 or 3,"
            ) from error
        content["run"]["seeds"] = numbers if "," in seeds else numbers[0] if numbers else 0
    if methods is not None:
        chosen = [part.strip() for part in methods.split(",") if part.strip()]
        # A method that the study says nothing of has its defaults, its paper's settings.
        others: dict[str, dict[str, object]] = {
            name: {} for name in chosen if name in METHODS and name not in study.methods
        }
        known = {**content["methods"], **others}
        for name in chosen:
            if name not in known:
                raise StudyError(f"--methods: {nearest(name, {**study.methods, **METHODS})}")
        if not chosen:
            raise StudyError(f"--methods is {methods!r}; give some of {', '.join(study.methods)}, or leave it out")
        content["methods"] = {name: entry for name, entry in known.items() if name in chosen}
    if data_name is not None:
        content["problem"]["data"] = data_name.value
    if epochs is not None:
        if "epochs" not in content["problem"]:
            raise StudyError("--epochs: a task of permuted images is one pass over them; leave it out, or give --tasks")
        content["problem"]["epochs"] = epochs
    if precision is not None:
        content["network"]["precision"] = precision.value
    return from_dict(content, "command line")


def _bytes(memory: float | None) -> int | None:
    """A memory in GB, if it may be one, in bytes; None where nothing was said."""
    if memory is not None and not 0 < memory < 1e6:
        raise typer.BadParameter(f"it is {memory:g}; it has to be above 0, in GB.", param_hint="--memory")
    return None if memory is None else int(memory * 1e9)


def _table(found: list[Estimate], config: RunConfig) -> Table:
    runs, steps = sum(one.runs for one in found), sum(one.runs * one.steps for one in found)
    count, parts = config.process_count, sum(one.parts for one in found)
    idle = f" There are parts for {parts}; a smaller --part-size makes more." if parts < min(count, runs) else ""
    table = Table(
        caption=f"{runs:,} runs of {found[0].steps:,} steps, {steps:,} network steps in all, "
        f"{sum(one.flops for one in found) / 1e15:.3g} PFLOP. About {duration(makespan(found, config))} with {count} "
        f"process{'es' if count > 1 else ''}.{idle}",
        caption_justify="left",
    )
    headings = ("network", "methods", "runs", "parts", "runs a part", "memory a process", "steps/s a process")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("network", "methods") else "right")
    for one in found:
        table.add_row(
            _network(one),
            shown(", ".join(map(short, one.methods))),
            f"{one.runs:,}",
            f"{one.parts:,}",
            f"{one.part:,}",
            f"{one.memory / 1e6:,.0f} MB",
            pace(one.rate),
        )
    return table


def _network(one: Estimate) -> str:
    """Such as "3 x 100 relu, layer_norm after, adamw", or "8 x 384 transformer, reparameterized, sgd"."""
    network, optimizer = one.network, one.optimizer
    if isinstance(network, Settings) or isinstance(optimizer, Settings):
        sections = [section.values for section in (network, optimizer) if isinstance(section, Settings)]
        return ", ".join(f"{name} {value}" for values in sections for name, value in values.items()) or "its own"
    precision = [network.precision] * (network.precision != "float32")
    if isinstance(network, Transformer):
        options = ["reparameterized"] * network.reparameterized
        return ", ".join([f"{network.depth} x {network.width} transformer", *options, *precision, optimizer.name])
    options = [f"{name} {value}" for name in ("skip", "layer_norm") if (value := getattr(network, name))]
    return ", ".join([f"{network.depth} x {network.hidden} {network.activation}", *options, *precision, optimizer.name])
