"""A part against the same population trained without files, and against itself interrupted at any step."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_studies import STRONG, images, study

import supple
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study import files
from supple.lab.study.assembly import assemble
from supple.lab.study.part import Part, Stopped
from supple.lab.study.permuted import PermutedProblem
from supple.lab.study.results import CHECKPOINT, DISTURBANCES, DISTURBANCES_SCHEMA, TASKS, TASKS_SCHEMA
from supple.optim import SGDW

STUDY = study({name: STRONG[name] for name in ("base", "shrink_and_perturb", "cbp", "redo", "swr")})
TASKS_TOTAL, STEPS = 4, 12
FILES = (TASKS, DISTURBANCES, CHECKPOINT)


def part(folder: Path, **changes: object) -> Part:
    one = study(STUDY.methods, **changes)
    return Part(folder, 0, 10, one.columns, one.run.seeds)


def problem() -> PermutedProblem:
    return PermutedProblem(STUDY, images())


def contents(one: Part) -> list[bytes]:
    return [(one.folder / name).read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Part:
    one = part(tmp_path_factory.mktemp("whole"))
    one.train(problem(), TASKS_TOTAL)
    assert one.done == TASKS_TOTAL
    return one


def test_files_hold_what_a_population_measures(whole: Part) -> None:
    population = assemble(images(), STUDY.columns, STUDY.run.seeds, STUDY.problem, STUDY.measure)
    tasks, disturbances = (pl.read_parquet(whole.folder / name) for name in (TASKS, DISTURBANCES))
    assert dict(tasks.schema) == dict(TASKS_SCHEMA)
    assert dict(disturbances.schema) == dict(DISTURBANCES_SCHEMA)
    assert tasks["run"].to_list() == list(range(10, 20)) * TASKS_TOTAL
    assert tasks["scale_magnitude"].null_count() == len(tasks)
    seen = 0
    for task in range(TASKS_TOTAL):
        metrics = population.train_task(task)
        rows = tasks.filter(pl.col("task") == task)
        for name in ("accuracy", "loss", "dead", "rank", "weight_magnitude", "gradient_magnitude", "reinitialized"):
            expected = getattr(metrics, name).to(torch.float32).tolist()
            assert rows[name].cast(pl.Float32).to_list() == expected, name
        for measured in metrics.disturbances:
            found = disturbances.filter((pl.col("task") == task) & (pl.col("step") == measured.step))
            runs = torch.where(measured.reinitialized > 0)[0]
            assert found["run"].to_list() == (runs + 10).tolist()
            assert found["loss_after"].to_list() == measured.loss_after[runs].float().tolist()
            assert found["std_change"].to_list() == measured.std_change[runs].tolist()
            seen += len(found)
    assert seen == len(disturbances) > 0


@settings(max_examples=6)
@given(st.lists(st.integers(1, TASKS_TOTAL * STEPS - 1), min_size=1, max_size=3))
def test_interrupted_at_any_step_it_ends_with_the_same_files(
    whole: Part, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("interrupted")
    for stop in stops:
        count = itertools.count(1)

        def interrupt(task: int, step: int, count: itertools.count = count, stop: int = stop) -> None:  # type: ignore[type-arg]
            if next(count) == stop:
                raise Stopped

        one = part(folder)
        try:
            one.train(problem(), TASKS_TOTAL, on_step=interrupt)
        except Stopped:
            assert one.done < TASKS_TOTAL
    one = part(folder)
    one.train(problem(), TASKS_TOTAL)
    assert contents(one) == contents(whole)


@pytest.mark.parametrize("optimizer", [{"momentum": 0.9}, {"name": "adamw", "step_size": 1e-3}])
def test_more_tasks_later_are_as_if_at_once(tmp_path: Path, optimizer: dict[str, object]) -> None:
    network = {"hidden": 6, "layer_norm": "after"}
    first, second = (part(tmp_path / name, optimizer=optimizer, network=network) for name in ("a", "b"))
    first.train(problem(), 2)
    first.train(problem(), 2)  # nothing is left to do
    first.train(problem(), 3)
    second.train(problem(), 3)
    assert contents(first) == contents(second)
    assert pl.read_parquet(first.folder / TASKS)["scale_magnitude"].null_count() == 0


@pytest.mark.one_in(3)
@pytest.mark.parametrize("written", range(6))
@pytest.mark.parametrize("last", [False, True])
def test_a_crash_between_two_writes(
    whole: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, last: bool
) -> None:
    """At each of the writes after a task, the last of all among them; the rest of the writes do not happen.

    They are the digests, those of the files, and the digests again.
    """
    one = part(tmp_path)
    tasks = TASKS_TOTAL if last else 2
    one.train(problem(), tasks - 1)
    real, count = files.replace, itertools.count()

    def crash(path: Path, data: bytes) -> None:
        if next(count) == written:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(files, "replace", crash)
    try:
        one.train(problem(), tasks)
    except KeyboardInterrupt:
        assert written < len(FILES) + 2
        assert one.complete(tasks) == (written > len(FILES))
    monkeypatch.undo()
    one.train(problem(), TASKS_TOTAL)
    assert contents(one) == contents(whole)


def test_what_is_measured_does_not_depend_on_the_company(tmp_path: Path) -> None:
    """ReDo acts often and SWR seldom; a step measured for one is not measured for the other."""
    methods = {"redo": {"frequency": 2, "threshold": 0.9}, "swr": {"frequency": 6, "factor": 0.2}}

    def rows(chosen: dict[str, dict[str, float]], method: str) -> list[tuple[int, int, int]]:
        one = study(chosen)
        trained = Part(tmp_path / "-".join(chosen), 0, 0, one.columns, one.run.seeds)
        trained.train(problem(), 6)
        frame = pl.read_parquet(trained.folder / DISTURBANCES)
        place, columns = list(chosen).index(method), len(chosen)
        frame = frame.filter(pl.col("run") % columns == place).with_columns(pl.col("run") // columns)
        return list(frame.select("run", "task", "step").sort(pl.all()).iter_rows())

    for method in methods:
        alone = rows({method: methods[method]}, method)
        assert alone
        assert rows(methods, method) == alone
        assert len({(run, task) for run, task, _ in alone}) == len(alone)


def test_disturbances_against_passes_written_out() -> None:
    """The method's step is what it is without, and what is measured is what two passes give."""
    seeds, stream = [1, 2], PermutedStream(images(), [1, 2], 10, dtype=torch.float64)

    def make(disturbances: int) -> Population:
        network = StackedMLP(seeds, inputs=25, hidden=6, depth=2, layer_norm="after").double()
        optimizer = SGDW(network.parameters(), lr=0.1)
        method = supple.CBP(network, optimizer, maturity=2, replacement_rate=0.05)
        return Population(network, optimizer, stream, method, measured_on=20, disturbances=disturbances)

    with_, without, reference = make(2), make(0), make(0)
    for task in range(3):
        metrics = with_.train_task(task)
        assert not without.train_task(task).disturbances
        assert metrics.disturbances
        pairs = zip(with_.network.parameters(), without.network.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
        measured = {one.step: one for one in metrics.disturbances}
        for step, (x, y) in enumerate(stream.task(task), start=1):
            reference._train(x, y)
            before = passes(reference.network, x, y)
            reference._act()
            if step in measured:
                after, found = passes(reference.network, x, y), measured[step]
                assert found.reinitialized.tolist() == reference.method.reinitialized.last.tolist()
                for r in range(2):
                    for name in ("loss", "gradient"):
                        torch.testing.assert_close(float(getattr(found, f"{name}_before")[r]), before[r][name])
                        torch.testing.assert_close(float(getattr(found, f"{name}_after")[r]), after[r][name])
                    for k, ((mean, std), (new_mean, new_std)) in enumerate(
                        zip(before[r]["statistics"], after[r]["statistics"], strict=True)
                    ):
                        torch.testing.assert_close(found.mean_change[r, k], (new_mean - mean).abs().mean())
                        torch.testing.assert_close(found.std_change[r, k], (new_std - std).abs().mean())


def passes(networks: StackedMLP, x: torch.Tensor, y: torch.Tensor) -> list[dict[str, object]]:
    """Loss, mean absolute gradient and statistics of the hidden layers, one network at a time."""
    found = []
    for r in range(networks.replicas):
        network = networks.replica(r)
        hidden: list[torch.Tensor] = []
        for block in network.blocks:
            block.activation.register_forward_hook(lambda module, inputs, output, kept=hidden: kept.append(output))
        loss = torch.nn.functional.cross_entropy(network(x[r]), y[r])
        loss.backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        statistics = [(h.detach().mean(dim=1), h.detach().std(dim=1, unbiased=False)) for h in hidden]
        found.append(
            {"loss": float(loss.detach()), "gradient": float(gradients.abs().mean()), "statistics": statistics}
        )
    return found


def test_steps_measured_move_through_the_task() -> None:
    """With a method that acts at every step, the first measured one is spread evenly over many tasks."""
    network = StackedMLP([1], inputs=25, hidden=4, depth=2)
    method = supple.SWR(network, frequency=1, factor=0.1)
    from supple.lab.population.disturbance import Sampler

    firsts = []
    for index in range(200):
        sampler = Sampler(index, 100, 1, method)
        wanted = [step for step in range(1, 101) if sampler.wanted(step) is not None]
        assert len(wanted) == 1
        firsts += wanted
    counts = torch.histc(torch.tensor(firsts, dtype=torch.float32), bins=10, min=1, max=101)
    assert counts.min() >= 18
    assert counts.max() <= 22
