"""``supple run --on slurm``: an array of jobs, looked on at; ``supple status``: how far a results folder is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from supple.lab.commands.options import plain_errors, say, say_error
from supple.lab.study import claims
from supple.lab.study.progress import duration, pace
from supple.lab.study.run_config import RunConfig
from supple.lab.study.status import SILENT, PartStatus, Status, look

_EVERY = 30.0
"""Seconds between two lines of somebody who looks on."""


def status_command(
    folder: Annotated[Path, typer.Argument(help="A folder of results, finished or not.")],
    every: Annotated[
        float | None, typer.Option(min=1, help="Look again every so many seconds, until all is done or Ctrl-C.")
    ] = None,
) -> None:
    """Show how far a results folder is: parts done, running, lost and waiting, how fast, and the time left.

    Where other machines train, it listens for seconds whether they do: a part is
    lost that gives no sign of life. It is taken over by the next worker that is
    free a minute after the last, and goes on from its checkpoint.

    [bold]Examples[/]

    [dim]$[/] supple status supple-results/permuted_mnist/small

    [dim]$[/] supple status results/my-study --every 30
    """
    console, watch = Console(), claims.Watch()
    with plain_errors():
        found = look(folder, watch)
        if any(part.state == "running" and part.holder.get("host") != claims.here()["host"] for part in found.parts):
            say(f"Listening {SILENT:.0f} s for those who train.", console)
            time.sleep(SILENT)
            found = look(folder, watch)
        while True:
            say(_line(found), console)
            for part in found.parts:
                if part.state in ("running", "lost"):
                    say(_of_part(part, found), console)
            if every is None or found.complete:
                return
            time.sleep(every)
            found = look(folder, watch)


def print_slurm_script(config: RunConfig, options: str, workers: int, console: Console) -> None:
    """Prints the script of the array that :func:`run_on_slurm` would submit."""
    from supple.lab.study import slurm

    text = slurm.script(slurm.parameters(options, workers), config.folder, workers)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def run_on_slurm(config: RunConfig, options: str, workers: int, console: Console, stop: threading.Event) -> None:
    """Submits an array of jobs that train, unless one is at work already, and shows how far they are."""
    from supple.lab.study import slurm

    given = slurm.parameters(options, workers)
    slurm.check_there()
    job = slurm.running_job(config.folder)
    if job is None:
        job = slurm.start(config, given, workers)
        if job is None:
            say(f"Done: all results are in {config.folder}.", console)
            return
        say(
            f"Job {job} was submitted, with {workers} workers; their logs are in {config.folder / slurm.JOBS}.", console
        )
    else:
        say(f"Job {job} is at work in {config.folder} already.", console)
    say(f"This command only looks on: it may end (Ctrl-C) and be run again; scancel {job} ends the workers.", console)
    watch, told, last = claims.Watch(), float("-inf"), ""
    while not stop.is_set():
        found, states = look(config.folder, watch), slurm.members(job)
        line = f"{_line(found)}; workers: {', '.join(f'{n} {name.lower()}' for name, n in states.items()) or 'none'}"
        if line != last and (time.monotonic() - told >= _EVERY or found.complete or not states):
            say(line, console)
            told, last = time.monotonic(), line
        if found.complete:
            say(f"Done: all results are in {config.folder}.", console)
            return
        if not states:
            said = slurm.last_words(config.folder, job)
            say_error(f"no worker of job {job} is left, and not all is done. {said}".strip())
            back = slurm.withdraw(config.folder)
            then = f"{config.folder} is as it was" if back else "the same command goes on where it was"
            say(f"Not complete; {then}.", console)
            raise typer.Exit(1)
        stop.wait(5)
    say(f"Job {job} goes on; the same command looks on again, and scancel {job} ends it.", console)
    raise typer.Exit(130)


def _line(found: Status) -> str:
    states = [
        f"{found.count(state):,} {state}" for state in ("done", "running", "lost", "waiting") if found.count(state)
    ]
    share = 100 * found.taken / found.steps if found.steps else 100
    left = ""
    if found.rate:
        left = f", {pace(found.rate)} network steps/s, {duration((found.steps - found.taken) / found.rate)} left"
    return f"{len(found.parts):,} parts: {', '.join(states)}; {share:.1f}%{left}"


def _of_part(part: PartStatus, found: Status) -> str:
    who = f"{part.holder.get('host', 'an unknown machine')}, process {part.holder.get('process', '?')}"
    rate = f", {pace(part.rate)} network steps/s" if part.rate else ""
    return f"  part {part.number} ({part.runs} runs) is {part.state}: {who}, {part.done:.2f} tasks{rate}"
