"""What the demo writes: a page, a figure and all numbers."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import supple
from supple.lab.data import LabelledImages
from supple.lab.report.attribution import attribution, source
from supple.lab.report.comparison import Comparison, Summary
from supple.lab.report.drawing import to_png, to_svg
from supple.lab.report.figures import accuracy_over_tasks
from supple.lab.report.page import Page, render
from supple.lab.study.spec import Study

FILES = ("report.html", "accuracy.png", "accuracy.svg", "results.csv")
"""What :func:`write` writes; nothing else in the folder is touched."""

CODE = """import supple

method = supple.SWR(model, optimizer, frequency=2048, factor=1e-5)
for x, y in stream:
    optimizer.zero_grad()
    loss_fn(model(x), y).backward()
    optimizer.step()
    method.step()  # after optimizer.step(), before the next zero_grad()"""


@dataclass(frozen=True, eq=False)
class Run:
    """What exactly a demo runs.

    Args:
        data: name of the data set.
        images: the images.
        study: where network, optimizer and settings come from.
        methods: names of methods of the study.
        seeds: the seeds.
        tasks: tasks that were asked for.
        device: where it trains.
        command: the command line.
        own: whether the images come from files that were not compared with those of the data set.
        started: when it started, in seconds of ``time.monotonic``.
    """

    data: str
    images: LabelledImages
    study: Study
    methods: Sequence[str]
    seeds: Sequence[int]
    tasks: int
    device: str
    command: str
    own: bool = False
    started: float = field(default_factory=time.monotonic)


def facts(run: Run, comparison: Comparison) -> list[tuple[str, str]]:
    """What exactly was run, as pairs of a name and a text.

    Args:
        run: what was asked for.
        comparison: what was measured.

    Returns:
        The pairs.
    """
    count, pixels = len(run.images), run.images.images[0].numel()
    hidden, batch_size = run.study.network.hidden, run.study.problem.batch_size
    steps = count // batch_size
    where = torch.cuda.get_device_name() if run.device == "cuda" else f"{platform.machine()} CPU, 1 thread"
    replicas = len(run.seeds) * len(run.methods)
    return [
        ("Problem", "permuted images: each task has its own random order of the pixels, and shows every image once"),
        ("Data", ": ".join(filter(None, (f"{count:,} images", attribution(run.data, run.own))))),
        (
            "Network",
            f"{pixels}-{hidden}-{hidden}-{hidden}-{run.images.classes}, ReLU, Kaiming normal weights, biases 0",
        ),
        ("Optimizer", f"SGD, step size {run.study.optimizer.step_size:g}, batches of {batch_size}, cross-entropy"),
        ("Length", f"{comparison.tasks} tasks of {steps:,} steps: {comparison.tasks * steps:,} steps a network"),
        ("Seeds", f"{', '.join(map(str, run.seeds))}; {replicas} networks trained at once"),
        ("Source", "network and settings: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212"),
        ("Machine", f"{platform.system()}, {where}"),
        ("Versions", f"supple {supple.__version__}, torch {torch.__version__}, Python {platform.python_version()}"),
        ("Training", f"{time.monotonic() - run.started:.0f} s"),
        ("Command", run.command),
    ]


def write(out: Path, run: Run, comparison: Comparison, summaries: Sequence[Summary]) -> list[Path]:
    """Writes :data:`FILES`; earlier ones are replaced.

    Args:
        out: the folder, which is there.
        run: what was asked for.
        comparison: what was measured.
        summaries: from :func:`supple.lab.report.comparison.summarize`.

    Returns:
        The four files.

    Raises:
        OSError: if a file cannot be written.
    """
    paths = [out / name for name in FILES]
    report, png, svg, results = paths
    comparison.write_csv(results)
    title = f"Accuracy on permuted {_title(run)}"
    figure = accuracy_over_tasks(comparison.curves(), title)
    png.write_bytes(to_png(figure))
    svg.write_bytes(to_svg(figure))
    page = Page(
        title=f"supple demo: permuted {_title(run)}",
        figure_title=title,
        partial=_stopped(run, comparison),
        facts=facts(run, comparison),
        settings={method: _settings(run.study.methods[method]) for method in run.methods},
        code=CODE,
    )
    report.write_text(render(page, comparison, summaries), encoding="utf-8")
    return paths


def _title(run: Run) -> str:
    """What the images are called."""
    if run.own:
        return "images"
    known = source(run.data)
    return run.data if known is None else known.title


def _stopped(run: Run, comparison: Comparison) -> str:
    """What is missing of a run that was stopped; empty where nothing is."""
    if comparison.tasks == run.tasks:
        return ""
    return (
        f"The run was stopped after {comparison.tasks} of {run.tasks} tasks, and this report is about those only. "
        "It cannot be resumed; the same command starts again from the first task."
    )


def _settings(given: Mapping[str, float]) -> str:
    """Settings as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in given.items())
