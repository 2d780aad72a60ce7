"""``supple leaderboard``: every method on the same problems, with the same number of settings to choose from."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from supple.lab.commands.options import Device, Where, interruptible, names_in, plain_errors, say, writable
from supple.lab.commands.run import check_complete
from supple.lab.commands.scale import Memory, PartSize, Processes, in_bytes, scale
from supple.lab.escaping import shown
from supple.lab.study.compare import one_thread
from supple.lab.study.errors import StudyError, nearest
from supple.lab.study.estimate import Estimate, estimate, makespan, others
from supple.lab.study.problems import noise_problem
from supple.lab.study.progress import Bars, Lines, duration
from supple.lab.study.run_config import RunConfig
from supple.lab.study.running import run
from supple.lab.study.spec import Study


def leaderboard_command(
    out: Annotated[Path, typer.Option(help="Folder for the results and the page.")] = Path(
        "supple-results/leaderboard"
    ),
    methods: Annotated[
        str | None,
        typer.Option(
            help="Train only these, such as swr,cbp, or package.module:Class of your own; base is plain training, "
            "scratch training from scratch.",
            show_default="all",
        ),
    ] = None,
    problems: Annotated[
        str | None, typer.Option(help="Only these, such as mlp10_sgd,gpt_adam.", show_default="all")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            help="Results of other methods that the page shows too, such as results/leaderboard. Without --problems, "
            "only problems that are there."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the runs at the chosen settings.")] = 10,
    tasks: Annotated[int | None, typer.Option(min=1, help="Tasks of each run.", show_default="as the problem")] = None,
    train: Annotated[
        bool, typer.Option("--run/--no-run", help="Whether to train what is missing, or only make the page.")
    ] = True,
    plan: Annotated[bool, typer.Option("--plan", help="Say how long it will take here, and do nothing.")] = False,
    device: Where = Device.cpu,
    processes: Processes = None,
    part_size: PartSize = None,
    memory: Memory = None,
) -> None:
    """Rank the methods on a dozen small problems, each at the best of six settings.

    On each problem every method is tried with the same step sizes, each time
    with other settings drawn from the ranges that the method states
    ([bold]supple methods NAME[/]), with 3 seeds. At the best it is run again
    with fresh seeds. Ctrl-C stops; the same command goes on.

    Writes leaderboard.md, leaderboard.svg and a table as CSV each.

    [bold]Examples[/]

    [dim]$[/] supple leaderboard --plan

    [dim]$[/] supple leaderboard --problems mlp10_sgd,mlp10_adam --methods base,scratch,swr,l2_init

    [dim]$[/] supple leaderboard --methods my_methods:Mine --beside results/leaderboard --out mine

    [dim]$[/] supple leaderboard --no-run --beside results/leaderboard
    """
    console = Console()
    options: dict[str, Any] = {
        "device": device.value, "processes": processes, "memory": in_bytes(memory), "part_size": part_size,
        "command": shlex.join(["supple", *sys.argv[1:]]),
    }  # fmt: skip
    with plain_errors():
        from supple.lab.studies import leaderboard

        known = leaderboard.problems()
        wanted = list(known)
        if problems is not None:
            wanted = names_in(problems)
        elif beside is not None:
            wanted = leaderboard.of_folder(beside)
        if not wanted:
            option = f"--beside: {beside} has no results" if problems is None else f"--problems is {problems!r}"
            raise StudyError(f"{option} of a leaderboard; give some of {', '.join(known)}")
        for name in wanted:
            if name not in known:
                raise StudyError(f"--problems: {nearest(name, known)}")
        studies = {name: scale(study, tasks) for name, study in known.items() if name in wanted}
        if methods is not None and not names_in(methods):
            raise StudyError(f"--methods is {methods!r}; give some, or leave it out")
        compared = leaderboard.contestants(names_in(methods or ""))
        if train:
            leaderboard.check_comparable(studies, compared, beside, out)
        if plan:
            _plan(
                {name: leaderboard.tuning(study, compared) for name, study in studies.items()}, seeds, options, console
            )
            return
        if train:
            writable(out)
            with interruptible() as stop:
                for name, study in studies.items():
                    for stage, folder in leaderboard.stages(name, study, compared, seeds, out):
                        _train(RunConfig(stage, f"leaderboard/{name}", folder, **options), stop, console)
        _write_page({study.title: name for name, study in studies.items()}, beside, out, console)


def _plan(studies: Mapping[str, Study], seeds: int, options: Mapping[str, Any], console: Console) -> None:
    whole, measured = 0.0, list[Estimate]()
    for name, study in studies.items():
        config = RunConfig(study, name, Path(), **options)
        with one_thread():
            found = estimate(config, noise_problem(study, **config.runtime), 0.5)
        tuned = len(study.columns) * len(study.run.seeds)
        runs = tuned + len({column.method.rpartition("_")[0] for column in study.columns}) * seeds
        seconds = makespan(found, config) * runs / tuned
        measured, whole = measured + found, whole + seconds
        say(f"{name}: {runs:,} runs, about {duration(seconds)}", console)
    count = config.process_count
    say(
        f"All: about {duration(whole)} with {count} process{'es' if count > 1 else ''}.{others(measured, config)}",
        console,
    )


def _train(config: RunConfig, stop: threading.Event, console: Console) -> None:
    study = config.study
    say(f"{study.title}: {len(study.columns) * len(study.run.seeds):,} runs, into {config.folder}", console)
    with Bars(console) if console.is_terminal else Lines(console) as watcher:
        outcome = run(config, watcher, stop)
    check_complete(outcome, console)


def _write_page(problems: Mapping[str, str], beside: Path | None, out: Path, console: Console) -> None:
    from supple.lab.report.figures import Canvas, to_themed_svg
    from supple.lab.report.leaderboard import figure, tables
    from supple.lab.studies.leaderboard import collect

    found = collect(problems, [place for place in (beside, out) if place is not None])
    made, drawn = tables(found), figure(found)
    writable(out)
    (out / "leaderboard.svg").write_bytes(to_themed_svg(drawn.draw(Canvas()), drawn.styles))
    picture = "![Mean rank of each method, with its interval](leaderboard.svg)"
    page = ["# The leaderboard", "", picture, "", *(table.to_markdown() for table in made)]
    (out / "leaderboard.md").write_text("\n".join(page), encoding="utf-8")
    for table in made:
        (out / f"{table.name}.csv").write_text(table.to_csv(), encoding="utf-8")
    shown_here = Table(*made[0].header, box=None, padding=(0, 1))
    for row in made[0].rows:
        shown_here.add_row(*map(shown, row))
    console.print(shown_here)
    say(f"{out / 'leaderboard.md'}", console)
