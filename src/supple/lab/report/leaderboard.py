"""The leaderboard as tables and a figure: ranks over problems, and what is behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from supple.lab.report.figures import Canvas, Figure, Panel, dots
from supple.lab.report.measures import measure
from supple.lab.report.statistics import Array, Interval, mean_interval, mean_over
from supple.lab.report.style import Style, own_style, styles_of
from supple.lab.report.tables import Table, ends_of
from supple.lab.report.texts import counted, interval_text, listed, number, percent
from supple.lab.study.results import Results
from supple.lab.study.spec import Study
from supple.methods import registry

RESAMPLES = 5000
"""Of the bootstrap."""


def stratified(
    samples: Sequence[Array], statistic: Callable[[Sequence[Array]], Array], resamples: int = RESAMPLES
) -> list[Interval]:
    """A statistic of several problems with its 95% percentile bootstrap interval, for each method.

    ``samples`` has for each problem values [methods, seeds]. Seeds are drawn again within each problem, the same for
    all methods, whose runs of one seed start alike; problems are what they are. ``statistic`` takes means [methods,
    ...] of each problem.

    Source: Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021,
    section 4.1.
    """

    def of(*values: Array, axis: int = -1) -> Array:
        return statistic([one.mean(axis) for one in values])

    observed = of(*samples)
    if min(one.shape[1] for one in samples) < 2:
        return [Interval(float(one), np.nan, np.nan) for one in observed]
    found = stats.bootstrap(
        tuple(samples), of, n_resamples=resamples, batch=500, axis=-1, vectorized=True, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return [Interval(*map(float, ends)) for ends in zip(observed, found.low, found.high, strict=True)]


def mean_ranks(means: Sequence[Array]) -> Array:
    """The rank of each method, 1 being that of the highest mean, averaged over problems; equal means share theirs."""
    return np.mean([stats.rankdata(-one, axis=0) for one in means], axis=0)


@dataclass(frozen=True, eq=False)
class Board:
    """What the problems gave, by their titles: a row a run with "method", "seed", "late" and "area".

    "late" is the accuracy on the last 10% of the tasks, "area" that on all. ``settings`` are those chosen, by problem
    and method.
    """

    runs: Mapping[str, pl.DataFrame]
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    kinds: Mapping[str, str]

    @cached_property
    def methods(self) -> list[str]:
        """The methods that all problems have."""
        there = [set(frame["method"]) for frame in self.runs.values()]
        return [name for name in self.kinds if all(name in some for some in there)]

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How methods are shown."""
        found = styles_of(self.kinds)
        scratch = own_style("reset")
        return found | ({"scratch": scratch} if "scratch" in found and scratch else {})

    def values(self, column: str) -> list[Array]:
        """For each problem the values of a column [methods, seeds] of the seeds that all methods have."""
        found = []
        for frame in self.runs.values():
            table = frame.pivot(on="method", index="seed", values=column).select("seed", *self.methods).drop_nulls()
            # In one order, so that the bootstrap draws the same.
            found.append(table.sort("seed").drop("seed").to_numpy().T.astype(np.float64))
        return found

    @cached_property
    def ranks(self) -> dict[str, list[Interval]]:
        """The mean rank of each method by "late" and by "area"."""
        return {column: stratified(self.values(column), mean_ranks) for column in ("late", "area")}

    def gains(self, reference: str) -> list[Interval] | None:
        """By how much each method ends above another, over problems; None where that is not there."""
        if reference not in self.methods:
            return None
        other = self.methods.index(reference)
        gains = [values - values[other] for values in self.values("late")]
        return [mean_over([one[place] for one in gains]) for place in range(len(self.methods))]

    @cached_property
    def order(self) -> list[int]:
        """Places of the methods from the best rank on."""
        return sorted(range(len(self.methods)), key=lambda place: self.ranks["late"][place].mean)


def board(problems: Mapping[str, Sequence[Results]]) -> Board:
    """The leaderboard of some problems, each of one folder or of several that have different methods.

    Where two of them have the same method, that of the later one counts. ValueError where a folder is not finished,
    folders of one problem differ in more than methods and seeds, or there is nothing to compare.
    """
    runs: dict[str, pl.DataFrame] = {}
    settings: dict[str, dict[str, Mapping[str, Any]]] = {}
    kinds: dict[str, str] = {}
    for title, folders in problems.items():
        frames: dict[str, pl.DataFrame] = {}
        for results in folders:
            check_same(title, folders[0], results.study, results.images.digest, str(results.folder))
            measured = measure(results)
            if not measured.complete:
                raise ValueError(
                    f"{results.folder} is not finished: {measured.tasks} of {results.study.run.tasks} tasks of "
                    f"{len(measured.runs)} of {len(results.runs)} runs; let it go on, or leave {title} out"
                )
            for (method, kind), frame in measured.runs.group_by("method", "kind", maintain_order=True):
                frames[method], kinds[method] = frame.select("method", "seed", "late", "area"), kind
            settings.setdefault(title, {}).update(results.study.methods)
        runs[title] = pl.concat(frames.values())
    found = Board(runs, settings, kinds)
    if len(found.methods) < 2:
        raise ValueError(f"a leaderboard compares two methods or more; those of all problems: {listed(found.methods)}")
    for title, values in zip(runs, found.values("late"), strict=True):
        if not values.shape[1]:
            raise ValueError(f"{title}: there is no seed that all methods have")
    return found


def check_same(title: str, there: Results, study: Study, digest: str, place: str) -> None:
    """ValueError unless a study, at a place, can be compared with results: of the same data, which a digest tells."""
    theirs, ours = _terms(there.study, there.images.digest), _terms(study, digest)
    for name, value in ours.items():
        if value != theirs.get(name):
            raise ValueError(
                f"{title}: {name} is {theirs.get(name)!r} in {there.folder} and {value!r} in {place}; a leaderboard "
                f"compares runs that differ in methods only, so leave {title} out or take the same"
            )


def _terms(study: Study, digest: str) -> dict[str, Any]:
    content, parts = study.model_dump(mode="json"), ("problem", "network", "optimizer")
    sections = {f"{part}.{name}": value for part in parts for name, value in content[part].items()}
    return {**sections, "run.tasks": study.run.tasks, "the digest of its data": digest}


def tables(found: Board) -> list[Table]:
    """The tables of a leaderboard: ranks, final outcomes, outcomes over all tasks, and the settings chosen."""
    return [_ranking(found), *(_outcomes(found, column) for column in ("late", "area")), _settings(found)]


def _ranking(found: Board) -> Table:
    base, scratch = found.gains("base"), found.gains("scratch")
    header = ["method", "mean rank, final", "mean rank, all tasks"]
    header += [f"final − {name}, points" for name, gains in (("base", base), ("scratch", scratch)) if gains]
    rows, numbers, lines = [], [], []
    for place in found.order:
        name = found.methods[place]
        cells: list[str] = [found.styles[name].label]
        row: dict[str, Any] = {"method": name}
        for column in ("late", "area"):
            rank = found.ranks[column][place]
            cells.append(_rank_text(rank))
            row |= ends_of(f"rank_{column}", rank)
        for reference, gains in (("base", base), ("scratch", scratch)):
            if gains:
                cells.append("–" if name == reference else interval_text(gains[place]))
                row |= ends_of(f"over_{reference}", gains[place])
        cells.append("–" if name in ("base", "scratch") else _cost(found.kinds[name]))
        rows.append(cells)
        numbers.append(row)
        lines.append(name)
    seeds = sorted({values.shape[1] for values in found.values("late")})
    left_out = [found.styles[name].label for name in found.kinds if name not in found.methods]
    note = (
        f"Ranks among {len(found.methods)}, 1 being best, averaged over {counted(len(found.runs), 'problem')} of "
        f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds; in parentheses 95% intervals over seeds "
        "within each problem, of ranks by a bootstrap, of differences Welch's. They "
        "leave out that other settings might have been chosen. Costs are of a step of a ResNet-18 and of a transformer."
        + (f" Not on all problems, and left out: {listed(left_out)}." if left_out else "")
    )
    return Table("ranking", "The leaderboard", [*header, "cost"], rows, numbers, note, lines)


def _cost(kind: str) -> str:
    try:
        return registry.find(kind).about.cost_text
    except ValueError:  # a method of one's own whose module is not here
        return "–"


def _rank_text(rank: Interval) -> str:
    ends = f" ({rank.low:.1f} to {rank.high:.1f})" if rank.known else ""
    return f"{rank.mean:.1f}{ends}"


def _outcomes(found: Board, column: str) -> Table:
    titles, values = list(found.runs), found.values(column)
    rows, numbers = [], []
    for place in found.order:
        name = found.methods[place]
        means = [mean_interval(one[place]) for one in values]
        rows.append([found.styles[name].label, *map(percent, means)])
        numbers.append({"method": name, **{title: one.mean for title, one in zip(titles, means, strict=True)}})
    said = "the last 10% of the tasks" if column == "late" else "all tasks"
    return Table(
        f"accuracy-{column}", f"Accuracy on {said}", ["method", *titles], rows, numbers,
        "Per cent, mean over seeds with half of Student's 95% interval.", [found.methods[k] for k in found.order],
    )  # fmt: skip


def _settings(found: Board) -> Table:
    rows, numbers = [], []
    for place in found.order:
        name = found.methods[place]
        texts = [_settings_text(found.settings[title].get(name, {})) for title in found.runs]
        rows.append([found.styles[name].label, *texts])
        numbers.append({"method": name, **dict(zip(found.runs, texts, strict=True))})
    return Table(
        "settings", "Settings chosen", ["method", *found.runs], rows, numbers,
        "Those with the best mean of the last 10% of the tasks.", [found.methods[k] for k in found.order],
    )  # fmt: skip


def _settings_text(entry: Mapping[str, Any]) -> str:
    """Such as "0.1, frequency 256": the step size first."""
    optimizer = entry.get("optimizer", {})
    given = {key: value for key, value in entry.items() if key not in ("kind", "optimizer", "network")}
    if entry.get("layers") == 0:
        given = {}
    steps = [number(value) for value in optimizer.values()]
    return ", ".join([*steps, *(f"{key} {number(value)}" for key, value in given.items())])


def figure(found: Board) -> Figure:
    """The mean ranks with their intervals, the best first."""
    names = [found.methods[place] for place in found.order]
    styles = {name: found.styles[name] for name in names}
    panels = [
        _Ranks(title, pl.DataFrame(), found=[found.ranks[column][place] for place in found.order], names=names)
        for title, column in (("mean rank, last 10% of the tasks", "late"), ("mean rank, all tasks", "area"))
    ]
    reading = [f"Point: rank, 1 being best, averaged over {counted(len(found.runs), 'problem')}", "bar: 95% interval"]

    def artists(canvas: Canvas) -> Any:
        return dots(canvas, panels, styles, "The leaderboard", reading)

    return Figure("leaderboard", f"Ranks of {listed(names[:3])} and others.", list(styles.values()), artists)


@dataclass(frozen=True, eq=False)
class _Ranks(Panel):
    """A panel whose intervals are known."""

    found: Sequence[Interval] = ()
    names: Sequence[str] = ()

    @cached_property
    def intervals(self) -> pl.DataFrame:
        """The ranks."""
        mean, low, high = (list(some) for some in zip(*self.found, strict=True))
        return pl.DataFrame({"line": self.names, "mean": mean, "low": low, "high": high})
