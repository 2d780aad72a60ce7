"""The course of a run: all contenders in turns, on the same cores, several times over."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from supple.lab.bench.crew import Crew
from supple.lab.bench.flops import step_flops
from supple.lab.bench.memory import Footprint
from supple.lab.bench.plan import Plan, part
from supple.lab.bench.results import ContenderResult, EngineResult, FootprintResult, Results, Spread, machine
from supple.lab.bench.settings import action_share, method_settings
from supple.lab.bench.timing import Sample
from supple.lab.study.run_config import cores

Progress = Callable[[int, int, str], object]
"""Called with (work done, all work, what comes next)."""


class _Width:
    """All contenders at one width."""

    def __init__(self, plan: Plan, hidden: int) -> None:
        self.plan, self.hidden = plan, hidden
        self.configurations = list(itertools.product(plan.optimizers, plan.methods))
        self.samples: dict[tuple[str, str], list[list[Sample]]] = {key: [] for key in self.configurations}
        self.rates: dict[str, list[float]] = {name: [] for name in plan.contenders}
        self.peaks: list[float] = []

    def run(self, crews: Mapping[str, Crew], tick: Callable[[str], object]) -> None:
        """Measures everything ``repeats`` times, in turns."""
        tick("")
        self.seeds, self.settings = part(self.plan, self.hidden)
        for name in ("engine", *self.plan.contenders):
            self._make(name, crews[name])
        for _ in range(self.plan.repeats):
            for name in self.plan.contenders:
                tick(name)
                samples = self._measure(crews[name])
                self.rates[name].append(sum(1 / sample.step(0, self.steps) for sample in samples))
            tick("peak")
            self.peaks.append(crews["peak"].ask("peak")[0])
            # The methods follow base, with which they are compared.
            for optimizer, method in self.configurations:
                tick(f"engine {optimizer} {method}")
                crews["engine"].ask("use", optimizer=optimizer, method=method)
                self.samples[optimizer, method].append(self._measure(crews["engine"]))

    def _make(self, name: str, crew: Crew) -> None:
        count, seeds = len(crew), self.seeds
        common = {
            "name": name,
            "hidden": self.hidden,
            "seeds": seeds,
            "settings": self.settings,
            "count": self.plan.images,
            "configurations": (self.plan.optimizers, self.plan.methods),
            "precision": self.plan.precision,
            "graphs": self.plan.graphs,
        }
        made = crew.ask_each("make", [{**common, "first_seed": n * seeds} for n in range(count)])
        self.steps = made[0]["steps"]

    def _measure(self, crew: Crew) -> list[Sample]:
        return [Sample(**answer) for answer in crew.ask("measure", seconds=self.plan.seconds)]

    def _engine_rates(self, optimizer: str, method: str) -> list[float]:
        """Replica steps a second of all populations, one a repeat."""
        share = action_share(method, method_settings(method, self.hidden, optimizer), self.hidden)
        replicas = self.seeds * self.settings
        return [
            sum(replicas / sample.step(share, self.steps) for sample in samples)
            for samples in self.samples[optimizer, method]
        ]

    def engine_results(self) -> list[EngineResult]:
        """The engine's results, one an optimizer and method."""
        return [self._engine_result(*configuration) for configuration in self.configurations]

    def _engine_result(self, optimizer: str, method: str) -> EngineResult:
        settings = method_settings(method, self.hidden, optimizer)
        rates, base = self._engine_rates(optimizer, method), self._engine_rates(optimizer, "base")
        gflops = self._gflops(rates)
        samples = self.samples[optimizer, method]

        def mean(name: str) -> Spread:
            return Spread.of([sum(getattr(sample, name) for sample in turn) / len(turn) for turn in samples])

        return EngineResult(
            self.hidden,
            optimizer,
            method,
            settings,
            workers=len(samples[0]),
            replicas=self.seeds * self.settings,
            steps_per_second=Spread.of(rates),
            gflops=Spread.of(gflops),
            of_peak=Spread.ratio(gflops, self.peaks_gflops),
            overhead=Spread.of([b / r - 1 for b, r in zip(base, rates, strict=True)]),
            action_share=action_share(method, settings, self.hidden),
            quiet_seconds=mean("quiet"),
            acting_seconds=mean("acting"),
            start_seconds=mean("start"),
        )

    def contender_results(self) -> list[ContenderResult]:
        """The other contenders' results."""
        base = self._engine_rates("sgd", "base")
        return [
            ContenderResult(
                self.hidden,
                name,
                workers=len(self.samples[self.configurations[0]][0]),
                steps_per_second=Spread.of(rates),
                gflops=Spread.of(self._gflops(rates)),
                of_peak=Spread.ratio(self._gflops(rates), self.peaks_gflops),
                engine_over=Spread.ratio(base, rates),
            )
            for name, rates in self.rates.items()
        ]

    def _gflops(self, rates: list[float]) -> list[float]:
        return [rate * step_flops(self.hidden) / 1e9 for rate in rates]

    @property
    def peaks_gflops(self) -> list[float]:
        """The machine's peak in 1e9 operations a second, one a repeat."""
        return [peak / 1e9 for peak in self.peaks]


def run(plan: Plan, progress: Progress = lambda done, total, text: None) -> Results:
    """Runs the benchmark.

    Every contender has one process a core, each kept on its core and with one thread (on a GPU: one process). In every
    repeat each contender trains for the planned time while the others wait, so that a busy moment of the machine falls
    on all of them; ratios are formed within a repeat.

    Args:
        plan: what to measure.
        progress: told how far the run is.

    Returns:
        What was found.

    Raises:
        RuntimeError: if a process fails.
    """
    here = cores()
    methods = [method for method in ("base", "swr") if method in plan.methods] if plan.footprint else []
    turns = plan.repeats * (len(plan.optimizers) * len(plan.methods) + len(plan.contenders) + 1)
    total = len(plan.widths) * (turns + 1) + len(methods) + len(plan.scaling)
    done = 0

    def tick(text: str, hidden: int | None = None) -> None:
        nonlocal done
        progress(done, total, f"width {hidden}: {text or 'making networks'}" if hidden else text)
        done += 1

    widths = [_Width(plan, hidden) for hidden in plan.widths]
    groups = {"peak": [here]} | {name: _groups(plan.device) for name in ("engine", *plan.contenders)}
    with ExitStack() as stack:
        crews = {name: stack.enter_context(Crew(name, plan.device, group)) for name, group in groups.items()}
        for width in widths:
            width.run(crews, lambda text, width=width: tick(text, width.hidden))  # type: ignore[misc]
    footprints, scaling = [], []
    seeds, settings = part(plan, plan.footprint or 1)
    replicas = max(seeds * settings, plan.settings)
    for method in methods:
        tick(f"memory with {method}")
        footprints.append(_footprint(plan, plan.footprint or 0, replicas, method, count=plan.images, steps=20))
    for count in plan.scaling:
        tick(f"scaling, {count} replicas")
        scaling.append(_footprint(plan, 100, count, "base", count=3000, tasks=2))
    progress(total, total, "")
    return Results(
        plan,
        machine(plan.device, len(here)),
        Spread.of([value for width in widths for value in width.peaks_gflops]),
        [result for width in widths for result in width.engine_results()],
        [result for width in widths for result in width.contender_results()],
        footprints,
        scaling,
        _notes(plan, widths),
    )


def _groups(device: str) -> list[list[int]]:
    """Cores of each process."""
    return [[core] for core in cores()] if device == "cpu" else [cores()]


def _footprint(plan: Plan, hidden: int, replicas: int, method: str, **what: int) -> FootprintResult:
    arguments: dict[str, Any] = {"hidden": hidden, "optimizer": "sgd", "method": method}
    seeds = replicas // plan.settings
    with Crew("memory", plan.device, _groups(plan.device)[:1]) as crew:
        answer = crew.ask("footprint", **arguments, seeds=seeds, settings=plan.settings, **what)[0]
    found = Footprint(**answer)
    return FootprintResult(
        **arguments,
        replicas=found.replicas,
        parameters=found.parameters,
        data=found.data,
        extra=found.extra,
        times_the_parameters=found.times_the_parameters,
        seconds=tuple(found.seconds),
    )


def _notes(plan: Plan, widths: list[_Width]) -> list[str]:
    notes = []
    if plan.device == "cpu" and "jax" not in plan.contenders:
        notes.append("JAX is not installed, so its loop was left out: pip install jax.")
    for width in widths:
        if width.seeds * width.settings < plan.replicas:
            notes.append(
                f"Width {width.hidden}: {plan.replicas} networks in parts of {width.seeds * width.settings} "
                f"({width.seeds} seeds x {width.settings} settings), whose weights stay in the cache; one was measured."
            )
        if width.hidden >= 500 and len(plan.methods) > 1:
            notes.append(
                f"Width {width.hidden}: the study sweeps the methods at this size and names no best settings; used are "
                "points of the middle of each sweep."
            )
    return notes
