"""The leaderboard as tables and a figure: ranks over problems, and what is behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from supple.lab.report.figures import Canvas, Figure, Panel, dots
from supple.lab.report.measures import measure
from supple.lab.report.statistics import Array, Interval, mean_interval
from supple.lab.report.style import Style, own_style, styles_of
from supple.lab.report.tables import Table, ends_of
from supple.lab.report.texts import counted, interval_text, listed, number, percent
from supple.lab.study.results import Results
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


def mean_gains(means: Sequence[Array], reference: int) -> Array:
    """By how much the mean of each method is above that of one of them, averaged over problems."""
    return np.mean([one - one[reference] for one in means], axis=0)


@dataclass(frozen=True, eq=False)
class Board:
    """What the problems gave, by their titles: a row a run with "method", "seed", "late", "area" and "sign".

    "late" is the outcome of the last 10% of the tasks, "area" that of all, and ``sign`` is -1 where lower is better.
    ``settings`` are those chosen, by problem and method.
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
        found = styles_of({name: self.kinds[name] for name in self.kinds})
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
        return stratified(self.values("late"), partial(mean_gains, reference=self.methods.index(reference)))

    @cached_property
    def order(self) -> list[int]:
        """Places of the methods from the best rank on."""
        return sorted(range(len(self.methods)), key=lambda place: self.ranks["late"][place].mean)


def board(problems: Mapping[str, Sequence[Results]]) -> Board:
    """The leaderboard of some problems, each of one folder or of several that have different methods.

    Where two of them have the same runs, those of the later one count. ValueError where folders of one problem differ
    in more than methods and seeds, or the methods that all problems have are fewer than two.
    """
    runs: dict[str, pl.DataFrame] = {}
    settings: dict[str, dict[str, Mapping[str, Any]]] = {}
    kinds: dict[str, str] = {}
    for title, folders in problems.items():
        frames, terms = [], _terms(folders[0])
        for results in folders:
            for name, value in _terms(results).items():
                if value != terms.get(name):
                    raise ValueError(
                        f"{title}: {name} is {terms.get(name)!r} in {folders[0].folder} and {value!r} in "
                        f"{results.folder}; a leaderboard compares runs that differ in methods only"
                    )
            sign = -1 if results.outcome.lower else 1
            measured = measure(results)
            frames.append(measured.runs.select("method", "seed", *(pl.col(name) * sign for name in ("late", "area"))))
            kinds.update(zip(measured.runs["method"], measured.runs["kind"], strict=True))
            settings.setdefault(title, {}).update(results.study.methods)
        runs[title] = pl.concat(frames).unique(["method", "seed"], keep="last", maintain_order=True)
    found = Board(runs, settings, kinds)
    if len(found.methods) < 2:
        raise ValueError(f"a leaderboard compares two methods or more; those of all problems: {listed(found.methods)}")
    return found


def _terms(results: Results) -> dict[str, Any]:
    """What has to be the same in all folders of a problem."""
    content = results.study.model_dump(mode="json")
    sections = {f"{name}.{key}": one for name in ("problem", "network") for key, one in content[name].items()}
    return {**sections, "run.tasks": results.study.run.tasks}


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
        plain = name in ("base", "scratch")
        cells.append("–" if plain else registry.find(found.kinds[name]).about.cost_text)
        rows.append(cells)
        numbers.append(row)
        lines.append(name)
    seeds = sorted({values.shape[1] for values in found.values("late")})
    note = (
        f"Ranks among {len(found.methods)}, 1 being best, averaged over {counted(len(found.runs), 'problem')} of "
        f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} seeds; in parentheses 95% intervals of a "
        "bootstrap over seeds within each problem. Costs are of a step of a ResNet-18 and of a transformer."
    )
    return Table("ranking", "The leaderboard", [*header, "cost"], rows, numbers, note, lines)


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
