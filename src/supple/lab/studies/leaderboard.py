"""The leaderboard: all methods on the same problems, each with the same number of settings to choose from.

A problem is a study file of the folder ``leaderboard``: plain training with a grid over the optimizer's step size. Each
method is tried at every point of that grid, each time with other settings, drawn from the ranges that it states
(``about.ranges``). At the point that ends best it is run again with seeds that had no part in the choice.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from supple.lab.report.leaderboard import Board, board, check_same
from supple.lab.report.measures import measure
from supple.lab.study import shipped
from supple.lab.study.errors import StudyError, nearest
from supple.lab.study.methods import BASE, defaults, method_class
from supple.lab.study.problems import open_problem
from supple.lab.study.results import Results, holds_results, scan
from supple.lab.study.spec import Study, expand, from_dict, read
from supple.methods import registry

SCRATCH = "scratch"
"""Training from scratch: all parameters are drawn again for each task, and the optimizer forgets."""

TUNING_SEEDS = 3
"""Seeds that settings are chosen with."""

FIRST_SEED = 100
"""Of the seeds of the runs at the chosen settings."""

TUNING, FINAL = "tuning", "final"
"""Folders of the results that settings are chosen with, and of those that count."""

Settings = Mapping[str, Any]


def problems() -> dict[str, Study]:
    """The problems by name, as their files say."""
    names = [name for name in shipped.names() if name.startswith("leaderboard/")]
    return {name.rpartition("/")[2]: read(shipped.FOLDER / f"{name}.toml") for name in names}


def contestants(kinds: Sequence[str] = ()) -> dict[str, Settings]:
    """What is compared, by name, each with what it always has: some methods, or all that a study can train.

    A method of one's own, "package.module:Class", is called as it calls itself. StudyError if there is no such method.
    """
    known = [BASE, SCRATCH, *(name for name, method in registry.METHODS.items() if not method.loops_only)]
    found: dict[str, Settings] = {}
    for kind in kinds or known:
        if kind == SCRATCH:
            found[SCRATCH] = {"kind": "layer_reset", "layers": 0, "optimizer_state": "fresh"}
        elif ":" in kind:
            method = method_class(kind)
            assert method is not None
            name = method.about.name
            if name in found or (name in known and registry.METHODS.get(name) is not method):
                raise StudyError(
                    f"--methods: {kind} calls itself {name!r}, as another method does; give it a name of its own, such "
                    'as about = dataclasses.replace(supple.SWR.about, name="mine", label="Mine")'
                )
            found[name] = {"kind": kind}
        elif kind in known:
            found[kind] = {"kind": kind}
        elif kind in registry.METHODS:
            method_class(kind)  # raises, and says what this one needs
        else:
            raise StudyError(f"--methods: {nearest(kind, known)} One of your own is named package.module:Class.")
    return found


def drawn(name: str, fixed: Settings, count: int) -> list[dict[str, Any]]:
    """So many settings of a method, the same ones each time: a Latin hypercube in the ranges that it states.

    Numbers are spread evenly, or, where the ends of a range are ten times apart or more, their logarithms are.
    """
    method = method_class(fixed["kind"])
    ranges = {} if method is None else {key: one for key, one in method.about.ranges.items() if key not in fixed}
    for key, values in ranges.items():
        if key not in (known := defaults(fixed["kind"])) or not values:
            what = (
                f"is {values!r}; it has to be (lowest, highest) or several values" if key in known else "is no setting"
            )
            raise StudyError(f"about.ranges of {fixed['kind']}: {key} {what}")
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    found: list[dict[str, Any]] = [dict(fixed) for _ in range(count)]
    for key, values in ranges.items():
        places = (generator.permutation(count) + generator.random(count)) / count
        for settings, place in zip(found, places, strict=True):
            settings[key] = _within(values, float(place), defaults(fixed["kind"])[key])
    return found


def _within(values: Sequence[Any], place: float, default: Any) -> Any:
    """The value at a place, from 0 to 1, of a range or of several values, of the type of a default."""
    if len(values) != 2 or isinstance(default, str | bool):
        return values[int(place * len(values))]
    low, high = values
    value = low * (high / low) ** place if low > 0 and high >= 10 * low else low + (high - low) * place
    return round(value) if isinstance(default, int) else float(f"{value:.3g}")


def tuning(study: Study, compared: Mapping[str, Settings]) -> Study:
    """The study in which settings are chosen: each method at each point of the grid, with other settings each time."""
    points = [point.values.get("optimizer", {}) for point in expand(study.methods[BASE])]
    methods = {
        _numbered(name, number): {**settings, "optimizer": optimizer}
        for name, fixed in compared.items()
        for number, (settings, optimizer) in enumerate(zip(drawn(name, fixed, len(points)), points, strict=True))
    }
    return _with(study, methods, range(TUNING_SEEDS), "choosing settings")


def final(study: Study, chosen: Mapping[str, Settings], seeds: int) -> Study:
    """The study that counts: each method at the settings that were chosen for it, with fresh seeds."""
    return _with(study, chosen, range(FIRST_SEED, FIRST_SEED + seeds), "")


def choose(tuned: Results, compared: Mapping[str, Settings]) -> dict[str, Settings]:
    """For each method the settings with the best mean at the end, the first of equal ones; a diverged run is worst."""
    means = dict(measure(tuned).runs.group_by("method").agg(pl.mean("late")).iter_rows())
    entries = tuned.study.methods
    numbered = {name: [key for key in entries if key.rpartition("_")[0] == name] for name in compared}
    return {name: entries[max(keys, key=means.__getitem__)] for name, keys in numbered.items()}


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number + 1}"


def _with(study: Study, methods: Mapping[str, Settings], seeds: Sequence[int], more: str) -> Study:
    content = study.model_dump(mode="json")
    content["methods"] = {name: dict(entry) for name, entry in methods.items()}
    content["run"]["seeds"] = list(seeds)
    content["title"] = ", ".join(filter(None, (study.title, more)))
    return from_dict(content, study.title)


def stages(
    problem: str, study: Study, compared: Mapping[str, Settings], seeds: int, out: Path
) -> Iterator[tuple[Study, Path]]:
    """What is to be run for a problem, and into which folder: first what settings are chosen with, then what counts."""
    tuned = out / problem / TUNING
    yield tuning(study, compared), tuned
    yield final(study, choose(scan(tuned), compared), seeds), out / problem / FINAL


def of_folder(place: Path) -> list[str]:
    """The problems of which a folder has the runs that count."""
    return [name for name in problems() if holds_results(place / name / FINAL)]


def _results(name: str, places: Sequence[Path]) -> list[Results]:
    return [scan(place / name / FINAL) for place in places if holds_results(place / name / FINAL)]


def check_comparable(studies: Mapping[str, Study], compared: Collection[str], beside: Path | None, out: Path) -> None:
    """Refuses what could not be compared once it has been trained.

    StudyError unless each problem will have two methods that the others have too, ValueError where the results beside
    are of other data, networks or tasks.
    """
    places = [place for place in (beside, out) if place is not None]
    methods = {name: {*compared}.union(*(one.study.methods for one in _results(name, places))) for name in studies}
    if len(set.intersection(*methods.values())) < 2:
        fewest = min(methods, key=lambda name: len(methods[name]))
        raise StudyError(
            f"--problems: on {fewest} there would be {', '.join(sorted(methods[fewest]))} and no other method to "
            f"compare with, as {' and '.join(map(str, places))} have no results of it; leave it out, or name more "
            "--methods"
        )
    for name, study in studies.items():
        for results in _results(name, [beside] if beside else []):
            check_same(name, results, study, open_problem(study).identity()["digest"], "what would be trained")


def collect(problems: Mapping[str, str], places: Sequence[Path]) -> Board:
    """The leaderboard of what there is of some problems, names by titles, in folders; of one method the last counts.

    ValueError if there is nothing.
    """
    found = {title: _results(name, places) for title, name in problems.items()}
    if not any(found.values()):
        raise ValueError(f"there are no results in {' or '.join(map(str, places))} yet; leave out --no-run")
    return board({title: some for title, some in found.items() if some})
