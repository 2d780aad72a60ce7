"""What ``supple run`` and ``supple plan`` have in common: the options that say how much of a study is meant."""

from __future__ import annotations

from typing import Annotated

import typer

from supple.lab.commands.options import DataName, ProductPrecision, names_in
from supple.lab.study.errors import StudyError, nearest
from supple.lab.study.run_config import PART_SIZE
from supple.lab.study.spec import OwnStudy, Study, from_dict
from supple.methods.registry import METHODS

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
            numbers = [int(part) for part in names_in(seeds)]
        except ValueError as error:
            raise StudyError(
                f"--seeds is {seeds!r}; give how many, such as 5, or which, such as 0,3,7 or 3,"
            ) from error
        content["run"]["seeds"] = numbers if "," in seeds else numbers[0] if numbers else 0
    if methods is not None:
        chosen = names_in(methods)
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


def in_bytes(memory: float | None) -> int | None:
    """A memory in GB, if it may be one, in bytes; None where nothing was said."""
    if memory is not None and not 0 < memory < 1e6:
        raise typer.BadParameter(f"it is {memory:g}; it has to be above 0, in GB.", param_hint="--memory")
    return None if memory is None else int(memory * 1e9)
