"""Problems of one's own: a call and a file give what a plain loop gives; mistakes are named before."""

from __future__ import annotations

import copy
import functools
import random as python_random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from small_studies import killed_and_whole
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import supple
from supple.lab import Curve, Metric, Problem, Task, compare, load
from supple.lab.report.measures import measure
from supple.lab.study import files, running
from supple.lab.study.checkpoint import dump
from supple.lab.study.errors import StudyError
from supple.lab.study.estimate import estimate
from supple.lab.study.problems import noise_problem, open_problem
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import parse
from supple.methods.registry import METHODS

METHODS_OF = {
    "base": {},
    "swr": {"frequency": [2, 3], "factor": 0.2},
    "cbp": {"replacement_rate": 0.1, "maturity": 3},
}
STEPS, TASKS, BATCH = 6, 3, 5


def make_network(seed: int, hidden: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def precise(seed: int) -> nn.Module:
    """One with which rounding does not decide."""
    return make_network(seed).double()


def sgd(parameters: Any, lr: float = 0.3) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.5)


def of_classes(seed: int) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator}
    return [
        [(torch.randn(BATCH, 4, **draw), torch.randint(3, (BATCH,), **draw)) for _ in range(STEPS)]
        for _ in range(TASKS)
    ]


def of_precise_classes(seed: int) -> Any:
    return [[(x.double(), y) for x, y in task] for task in of_classes(seed)]


PRECISE = Problem(precise, sgd, of_precise_classes, nn.functional.cross_entropy)
CLASSES = Problem(make_network, sgd, of_classes, nn.functional.cross_entropy)


def plain_loop(problem: Problem, kind: str, settings: dict[str, Any], seed: int, tasks: int = TASKS) -> list[Any]:
    """(accuracy, loss) of each task, as anybody would write it."""
    torch.manual_seed(seed)
    network = problem.network(seed)
    optimizer = problem.optimizer(network.parameters())
    # In studies a method leaves what the optimizer remembers as it is, where nothing else is said.
    keep = {"seed": seed, "optimizer_state": "keep"}
    method = METHODS[kind](network, optimizer, **keep, **settings) if kind != "base" else None
    found = []
    for task in list(problem.stream(seed))[:tasks]:
        hits, losses = [], []
        for x, y in task:
            optimizer.zero_grad()
            output = network(x)
            loss = problem.loss(output, y)
            loss.backward()
            optimizer.step()
            if method is not None:
                method.step()
            hits.append((output.argmax(-1) == y).float().mean().item())
            losses.append(loss.item())
        found.append((sum(hits) / len(hits), sum(losses) / len(losses)))
    return found


def test_a_run_is_what_a_plain_loop_gives(tmp_path: Path) -> None:
    results = compare(PRECISE, METHODS_OF, tasks=TASKS, seeds=[4, 9], out=tmp_path, examples=8)
    assert len(results.runs) == 8
    assert results.runs["part"].n_unique() == 1
    for run in results.runs.iter_rows(named=True):
        own = {name: run[name] for name in METHODS_OF[run["method"]]}
        rows = results.tasks.filter(run=run["run"]).select("accuracy", "loss").rows()
        for row, expected in zip(rows, plain_loop(PRECISE, run["kind"], own, run["seed"]), strict=True):
            assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)
    acted = results.tasks.join(results.runs, on="run").filter(results.tasks["reinitialized"] > 0)
    assert set(acted["method"]) == {"swr", "cbp"}
    assert results.tasks["dead"].is_between(0, 1).all()
    assert results.outcome.name == "accuracy"


class Clipped(torch.optim.SGD):
    """An optimizer that looks at all parameters together."""

    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.01)
        return super().step(closure)


def test_an_optimizer_that_looks_at_whole_networks_steps_each_alone(tmp_path: Path) -> None:
    problem = replace(PRECISE, optimizer=lambda parameters: Clipped(parameters, lr=0.5))
    results = compare(problem, {"cbp": METHODS_OF["cbp"]}, tasks=2, seeds=2, out=tmp_path, examples=0)
    assert results.runs["part"].to_list() == [0, 1]
    for run, seed in enumerate((0, 1)):
        rows = results.tasks.filter(run=run).select("accuracy", "loss").rows()
        for row, expected in zip(rows, plain_loop(problem, "cbp", METHODS_OF["cbp"], seed, 2), strict=True):
            assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert results.tasks["dead"].null_count() == 4


def decayed_where_matrices(parameters: Any) -> torch.optim.Optimizer:
    """As everybody writes it: what has two dimensions decays."""
    held = list(parameters)
    groups = [([p for p in held if p.ndim >= 2], 3.0), ([p for p in held if p.ndim < 2], 0.0)]
    return torch.optim.AdamW([{"params": some, "weight_decay": decay} for some, decay in groups], lr=0.05)


def clipped_by_a_hook(parameters: Any) -> torch.optim.Optimizer:
    held = list(parameters)
    optimizer = torch.optim.SGD(held, lr=0.5)

    def clip(*unused: Any) -> None:
        nn.utils.clip_grad_norm_(held, 0.05)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def clipped_in_a_step_of_its_own(parameters: Any) -> torch.optim.Optimizer:
    held = list(parameters)
    optimizer, step = torch.optim.SGD(held, lr=0.5), torch.optim.SGD.step

    def clipped() -> None:
        nn.utils.clip_grad_norm_(held, 0.05)
        step(optimizer)

    optimizer.step = clipped  # type: ignore[method-assign, assignment]
    return optimizer


def clipped_by_value(seed: int) -> nn.Module:
    network = precise(seed)
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return network


def after_accumulation(seed: int) -> nn.Module:
    network = precise(seed)

    def clip(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.clamp_(-0.01, 0.01)

    for parameter in network.parameters():
        parameter.register_post_accumulate_grad_hook(clip)
    return network


def slowed_below(seed: int) -> nn.Module:
    network = precise(seed)
    network[2].register_full_backward_pre_hook(lambda module, gradients: (0.1 * gradients[0],))  # type: ignore[index]
    return network


class Branching(nn.Module):
    """A network of which a part is left out, as the data say."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.double()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = torch.relu(self.first(x))
        return self.last(hidden + torch.relu(self.part(hidden)) if x.mean() > 0 else hidden / self.calls)


class Shuffling(nn.Module):
    """A network that keeps in a list how it orders its inputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.order, self.layers = torch.randperm(4).tolist(), precise(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x[:, self.order])


class Closing(nn.Module):
    """A network whose layer is in a function that it made of it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.double()
        self.hidden = lambda x: torch.relu(self.first(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.hidden(x))


class Reversing(nn.Module):
    """A network that turns the gradient of its features around, as for domains that are not to be told apart."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = precise(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.layers[:2](x)  # type: ignore[index]
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: -gradient)
        return self.layers[2:](hidden)  # type: ignore[index]


class ReversingDeep(nn.Module):
    """The same, where gradients of the first layer are much smaller than others."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        layers = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.Sigmoid())]
        self.first, self.rest = nn.Linear(4, 6).double(), nn.Sequential(*layers, nn.Linear(6, 3)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.sigmoid(self.first(x))
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: -gradient)
        return self.rest(hidden)


MASK = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)


class Masked(nn.Module):
    """A network with a constant that all networks share."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = precise(seed)
        self.register_buffer("mask", MASK)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x * self.mask)


class Averaging(nn.Module):
    """A network with a slow copy of a layer, which follows it in each pass of training."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fast, self.slow, self.last = nn.Linear(4, 6), nn.Linear(4, 6).requires_grad_(False), nn.Linear(6, 3)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with torch.no_grad():
                self.slow.weight.lerp_(self.fast.weight, 0.3)
        return self.last(torch.relu(self.fast(x) + self.slow(x)))


class Showing(nn.Module):
    """A network that leaves its features where others can look at them."""

    def __init__(self, seed: int, in_list: bool) -> None:
        super().__init__()
        self.layers, self.in_list = precise(seed), in_list

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.layers[:2](x)  # type: ignore[index]
        self.features = [features] if self.in_list else features
        return self.layers[2:](features)  # type: ignore[index]


class Halving(nn.Module):
    """A network that changes its input in place."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = precise(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.mul_(0.5))


def checkpointed(seed: int, reentrant: bool) -> nn.Module:
    network = precise(seed)
    first, rest = network[:2], network[2:]  # type: ignore[index]

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rest = first, rest

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rest(checkpoint(self.first, x.requires_grad_(reentrant), use_reentrant=reentrant))

    return Checkpointed()


class ClippedW(supple.optim.SGDW):
    """An optimizer of this package with a step of its own."""

    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.01)
        return super().step(closure)


def by_their_norms(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [p], "lr": 0.1 * float(p.detach().norm())} for p in parameters])


def freezing(parameters: Any) -> torch.optim.Optimizer:
    held = list(parameters)
    held[0].requires_grad_(False)
    return sgd(held[1:])


def scaling(parameters: Any) -> torch.optim.Optimizer:
    held = list(parameters)
    with torch.no_grad():
        held[0].mul_(0.5)
    return sgd(held)


def with_momentum(parameters: Any) -> torch.optim.Optimizer:
    optimizer = sgd(list(parameters))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 0.1)
    return optimizer


def half_frozen(seed: int) -> nn.Module:
    network = precise(seed)
    network[0].requires_grad_(False)  # type: ignore[index]
    return network


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"optimizer": decayed_where_matrices}, 1),
        ({"optimizer": lambda ps: torch.optim.Adagrad(ps, lr=0.1, initial_accumulator_value=0.5)}, 1),
        ({"optimizer": lambda ps: torch.optim.NAdam(ps, lr=0.01, decoupled_weight_decay=True, weight_decay=0.5)}, 1),
        ({"optimizer": clipped_by_a_hook}, 2),
        ({"optimizer": freezing}, 2),
        ({"optimizer": scaling}, 2),
        ({"optimizer": with_momentum}, 2),
        ({"network": clipped_by_value}, 2),
        ({"network": after_accumulation}, 2),
        ({"network": slowed_below}, 2),
        ({"network": Branching, "optimizer": lambda ps: torch.optim.Adam(ps, lr=0.02, weight_decay=0.1)}, 2),
        ({"optimizer": clipped_in_a_step_of_its_own}, 2),
        ({"network": half_frozen, "optimizer": lambda ps: sgd([p for p in ps if p.requires_grad])}, 1),
        ({"network": Shuffling}, 2),
        ({"network": Closing}, 2),
        ({"network": Reversing}, 2),
        ({"network": Averaging}, 1),
        ({"network": lambda seed: Showing(seed, in_list=False)}, 1),
        ({"network": lambda seed: Showing(seed, in_list=True)}, 2),
        ({"network": Halving}, 1),
        ({"network": lambda seed: checkpointed(seed, reentrant=False)}, 2),
        ({"network": lambda seed: checkpointed(seed, reentrant=True)}, 2),
        ({"network": ReversingDeep}, 2),
        ({"network": Masked}, 1),
        ({"network": lambda seed: nn.Sequential(*precise(seed)[:2], nn.Dropout(0.0), nn.Linear(6, 3).double())}, 1),
        ({"optimizer": lambda ps: ClippedW(ps, lr=0.5)}, 2),
        ({"optimizer": by_their_norms}, 2),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:2 networks",
    "ignore:network. calls of",
    "ignore:The model looks trained",
    "ignore:network. it cannot be trained",
    "ignore:There is a performance drop",
)
def test_networks_and_optimizers_as_people_make_them(change: Any, parts: int, tmp_path: Path) -> None:
    problem = replace(PRECISE, **change)
    results = compare(problem, {"swr": {"frequency": 4, "factor": 0.2}}, tasks=2, seeds=2, out=tmp_path, examples=0)
    assert results.runs["part"].n_unique() == parts
    for run, seed in enumerate((0, 1)):
        rows = results.tasks.filter(run=run).select("accuracy", "loss").rows()
        expected = plain_loop(problem, "swr", {"frequency": 4, "factor": 0.2}, seed, 2)
        for row, other in zip(rows, expected, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


class Answer:
    """What a network gives out that nobody can look into."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class Answering(nn.Module):
    """A network that gives out its answer in a form of its own; it counts in its state how often."""

    def __init__(self, seed: int, form: Any) -> None:
        super().__init__()
        self.layers, self.form, self.count = precise(seed), form, 0

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        return self.form(self.layers(x))

    def get_extra_state(self) -> dict[str, int]:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


@pytest.mark.filterwarnings("ignore:2 networks", "ignore:network. it cannot be trained")
@pytest.mark.parametrize(
    ("form", "logits", "parts"),
    [
        (lambda z: {"logits": z, "loss": None, "n": 3}, lambda out: out["logits"], 1),
        (lambda z: (None, (z, "words")), lambda out: out[1][0], 1),
        (Answer, lambda out: out.logits, 2),
    ],
)
def test_outputs_of_every_form(form: Any, logits: Any, parts: int, tmp_path: Path) -> None:
    def network(seed: int) -> nn.Module:
        return nn.Sequential(Answering(seed, form))

    def loss(output: Any, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits(output), targets)

    problem = replace(PRECISE, network=network, loss=loss)
    results = compare(problem, ["base"], tasks=2, seeds=[4, 9], out=tmp_path, examples=0)
    assert results.runs["part"].n_unique() == parts
    for run, seed in enumerate((4, 9)):
        rows = results.tasks.filter(run=run)["loss"].to_list()
        assert rows == pytest.approx([loss for _, loss in plain_loop(PRECISE, "base", {}, seed, 2)], rel=1e-5)


def test_a_network_with_a_state_of_its_own_is_trained_alone(tmp_path: Path) -> None:
    network = lambda seed: Answering(seed, lambda logits: logits)  # noqa: E731
    results = compare(replace(PRECISE, network=network), ["base"], tasks=1, seeds=2, out=tmp_path)
    assert results.runs["part"].n_unique() == 2


def with_frozen_statistics(seed: int) -> nn.Module:
    """The batch normalization of a part that is not to change is in evaluation mode, as people do for fine-tuning."""
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    network[1].eval()
    return network


@pytest.mark.parametrize("alone", [False, True])
def test_a_test_leaves_the_modes_of_modules_as_they_are(alone: bool, tmp_path: Path) -> None:
    stream = lambda seed: [Task(task, test=task) for task in of_precise_classes(seed)]  # noqa: E731
    optimizer = (lambda ps: Clipped(ps, lr=0.5)) if alone else sgd
    problem = replace(PRECISE, network=with_frozen_statistics, stream=stream, optimizer=optimizer)
    results = compare(problem, ["base"], tasks=TASKS, seeds=2, out=tmp_path, examples=0)
    assert results.runs["part"].n_unique() == 1 + alone
    for run, seed in enumerate((0, 1)):
        expected = [loss for _, loss in plain_loop(replace(problem, stream=of_precise_classes), "base", {}, seed)]
        assert results.tasks.filter(run=run)["loss"].to_list() == pytest.approx(expected, rel=1e-6)


def test_a_network_that_shares_what_it_learns_with_others_is_refused(tmp_path: Path) -> None:
    shared = nn.Linear(4, 6)
    network = lambda seed: nn.Sequential(shared, nn.ReLU(), nn.Linear(6, 3))  # noqa: E731
    optimizer = lambda parameters: Clipped(parameters, lr=0.5)  # noqa: E731
    problem = replace(CLASSES, network=network, optimizer=optimizer)
    with pytest.raises(StudyError, match=r"network: 0.weight is the same tensor each time"):
        compare(problem, ["base"], tasks=1, seeds=2, out=tmp_path)
    shared.requires_grad_(False)
    assert len(compare(problem, ["base"], tasks=1, seeds=2, out=tmp_path).runs) == 2


def test_sparse_gradients_are_learned_alone(tmp_path: Path) -> None:
    network = lambda seed: nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3))  # noqa: E731
    stream = lambda seed: [[((3 * x[:, 0]).abs().long().clamp(max=8), y) for x, y in task] for task in of_classes(seed)]  # noqa: E731
    problem = Problem(network, lambda p: torch.optim.SGD(p, 0.1), stream, nn.functional.cross_entropy)
    results = compare(problem, ["base"], tasks=2, seeds=2, out=tmp_path)
    assert results.runs["part"].n_unique() == 2
    for run, seed in enumerate((0, 1)):
        rows = results.tasks.filter(run=run).select("accuracy", "loss").rows()
        for row, expected in zip(rows, plain_loop(problem, "base", {}, seed, 2), strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


class Remembering(nn.Module):
    """A network with a buffer that its state leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = make_network(0)
        self.register_buffer("level", torch.zeros(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.level = 0.9 * self.level + 0.1 * x.detach().mean(0)
        return self.layers(x - self.level)


class PowerCut(BaseException):
    pass


def one_from_another(seed: int) -> Iterator[Any]:
    """Tasks and batches that follow from those before."""
    level = torch.zeros(4)
    for _ in range(5):
        found = []
        for _ in range(4):
            level = level + 0.1 * torch.randn(4)
            found.append((level + torch.randn(BATCH, 4), torch.randint(3, (BATCH,))))
        yield iter(found)


def test_what_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    calls, cut = 0, 10**9

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls >= cut:
            raise PowerCut
        return nn.functional.cross_entropy(output, targets)

    def network(seed: int) -> nn.Module:
        return nn.Sequential(Remembering(), nn.Linear(3, 9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 3))

    problem = Problem(network, lambda p: torch.optim.Adam(p, 0.01), one_from_another, loss)
    options: dict[str, Any] = {"tasks": 5, "seeds": 2, "examples": 6}
    methods = {"base": {}, "swr": {"frequency": 3, "factor": 0.2}}
    compare(problem, methods, out=tmp_path / "whole", **options)
    taken, calls = calls, 0
    cut = taken - 3
    with pytest.raises(PowerCut):
        compare(problem, methods, out=tmp_path / "cut", **options)
    assert 0 < len(load(tmp_path / "cut").tasks) < 20
    cut = 10**9
    compare(problem, methods, out=tmp_path / "cut", **options)
    files = [tmp_path / name / "parts/0000/tasks.parquet" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    # More of it only adds what is missing.
    more = compare(problem, {**methods, "l2": {}}, out=tmp_path / "cut", **{**options, "seeds": 3})
    assert len(more.tasks) == 9 * 5
    assert files[0].read_bytes() == files[1].read_bytes()


MODULE = """
import test_own_problems as here
from supple.lab import Curve, Problem

def make(hidden=6):
    return Problem(
        lambda seed: here.make_network(seed, hidden), here.sgd, here.of_classes, here.nn.functional.cross_entropy
    )

def other():
    return {"network": here.make_network}
"""

STUDY = """
title = "mine"
problem = "my_problem:make"

[run]
tasks = 3
seeds = [4, 9]

[measure]
examples = 8

[methods.base]
[methods.swr]
frequency = [2, 3]
factor = 0.2
[methods.cbp]
replacement_rate = 0.1
maturity = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_problem.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    yield
    sys.modules.pop("my_problem", None)


def test_a_file_gives_what_a_call_gives(tmp_path: Path, module: None, thread_workers: None) -> None:
    called = compare(CLASSES, METHODS_OF, tasks=TASKS, seeds=[4, 9], out=tmp_path / "called", examples=8)
    study = parse(STUDY, "mine.toml")
    assert running.run(RunConfig(study, "mine", tmp_path / "run", processes=1)).complete
    named = compare("my_problem:make", METHODS_OF, tasks=3, seeds=[4, 9], out=tmp_path / "named", examples=8)
    for other in (load(tmp_path / "run"), named):
        assert other.tasks.equals(called.tasks)
        assert other.runs.equals(called.runs)
    # As shares, which is how clusters train it.
    for which in range(2):
        share = RunConfig(study, "mine", tmp_path / "shares", processes=1, part_size=4)
        assert running.join(share, (which, 2)).complete
    assert len(load(tmp_path / "shares").tasks) == 24


SCRIPT = """
import sys
from supple.lab import compare

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    print(len(compare("my_curve:make", ["base"], tasks=2, seeds=2, out="out").tasks))
"""


def test_workers_find_modules_where_the_script_does(tmp_path: Path) -> None:
    """The module lies beside the script, and imports one from a place that the script adds; it is started elsewhere."""
    for folder in ("script", "added", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "script/compare_it.py").write_text(SCRIPT)
    (tmp_path / "script/my_curve.py").write_text(
        "import added_numbers\nmake = lambda: lambda seed, make: added_numbers.ALL\n"
    )
    (tmp_path / "added/added_numbers.py").write_text("ALL = [1.0, 2.0]\n")
    for name in ("my_curve", "statistics"):  # of the same names, which nobody should find
        (tmp_path / f"elsewhere/{name}.py").write_text("raise SystemExit(3)\n")
    words = [sys.executable, "../script/compare_it.py", str(tmp_path / "added")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path / "elsewhere", check=False)
    assert done.stdout == "4\n", done.stdout + done.stderr


def test_arguments_stand_in_the_file(tmp_path: Path, module: None) -> None:
    study = parse(
        STUDY.replace('problem = "my_problem:make"', '[problem]\nkind = "my_problem:make"\nhidden = 9'), "mine"
    )
    (found,) = estimate(RunConfig(study, "mine", tmp_path, processes=1), noise_problem(study), 0.01)
    # Of 4, 9, 9 and 3 units: forward, gradients of weights, and gradients of inputs but for the first layer.
    assert found.flops == 2 * BATCH * (3 * (4 * 9 + 9 * 9 + 9 * 3) - 4 * 9) * 8 * 3 * STEPS
    assert found.rate > 0
    wrong = study.model_copy(update={"problem": study.problem.model_copy(update={"width": 3})})
    with pytest.raises(StudyError, match=r"my_problem:make' cannot be made: .*width"):
        noise_problem(wrong)
    for kind, said in (
        ("my_problem:gone", "cannot be imported"),
        ("my_problem:other", "is dict; it has to be"),
    ):
        with pytest.raises(ValueError, match=said):
            compare(kind, ["base"], tasks=1, seeds=1, out=tmp_path / "no")


def regression(seed: int) -> list[TensorDataset]:
    x = torch.randn(TASKS, 40, 4)
    return [TensorDataset(some, some.sum(1, keepdim=True)) for some in x]


def line(seed: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))


def test_regression_is_compared_by_its_loss_or_a_metric_of_its_own(tmp_path: Path) -> None:
    problem = Problem(line, sgd, regression, nn.functional.mse_loss, batch_size=8)
    results = compare(problem, ["base"], tasks=TASKS, seeds=2, out=tmp_path / "loss")
    assert (results.outcome.column, results.outcome.lower, results.outcome.share) == ("loss", True, False)
    assert results.tasks["accuracy"].null_count() == results.tasks["metric"].null_count() == 2 * TASKS
    error = Metric("mean |error|", lambda output, targets: (output - targets).abs().mean(), lower=True)
    results = compare(replace(problem, metric=error), "base", tasks=TASKS, seeds=2, out=tmp_path / "metric")
    assert results.outcome.column == "metric"
    # A mean is at most the root of the mean of squares.
    assert (results.tasks["metric"] <= results.tasks["loss"].sqrt() + 1e-6).all()


def test_regression_is_compared_by_the_loss_of_its_test(tmp_path: Path) -> None:
    """All examples of the test count, in whatever batches."""
    inputs, targets = torch.randn(11, 4), torch.randn(11, 1)
    problem = Problem(
        line,
        lambda parameters: torch.optim.SGD(parameters, lr=0.0),
        lambda seed: [Task(some, TensorDataset(inputs, targets)) for some in regression(seed)],
        nn.functional.mse_loss,
        batch_size=8,
    )
    results = compare(problem, ["base"], tasks=1, seeds=1, out=tmp_path)
    assert (results.outcome.name, results.outcome.column, results.outcome.lower) == ("test loss", "metric", True)
    torch.manual_seed(0)
    expected = nn.functional.mse_loss(line(0)(inputs), targets).item()
    assert results.tasks["metric"].to_list() == pytest.approx([expected], rel=1e-5)


def test_what_is_learned_later_is_a_task_that_is_not_measured(tmp_path: Path) -> None:
    """As many tasks one after the other, of which every other one is looked at; methods act before both kinds."""

    def in_turns(seed: int) -> list[Any]:
        return [*of_precise_classes(seed), *of_precise_classes(seed + 100)[:1]]

    def in_pairs(seed: int) -> list[Task]:
        tasks = in_turns(seed)
        return [Task(tasks[0], later=tasks[1]), Task(tasks[2], later=tasks[3])]

    methods = {"base": {}, "cbp": METHODS_OF["cbp"], "shrink_and_redraw": {"toward": "start", "shrink": 0.5}}
    shared = {"seeds": [4, 9], "examples": 8}
    each = compare(replace(PRECISE, stream=in_turns), methods, tasks=4, out=tmp_path / "each", **shared)
    pairs = compare(replace(PRECISE, stream=in_pairs), methods, tasks=2, out=tmp_path / "pairs", **shared)
    measured = ["accuracy", "loss", "dead", "weight_magnitude", "gradient_magnitude"]
    for run in range(6):
        found, expected = (one.tasks.filter(run=run) for one in (pairs, each))
        for name in measured:
            assert found[name].to_list() == pytest.approx(expected[name].to_list()[::2], rel=1e-6), name
        of_each = expected["reinitialized"].to_list()
        assert found["reinitialized"].to_list() == [sum(of_each[:2]), sum(of_each[2:])]
    assert each.runs["method"].to_list() == pairs.runs["method"].to_list()


def test_a_task_is_tested_before_anything_is_learned_later(tmp_path: Path) -> None:
    first, second, third = of_precise_classes(1)
    found = [
        compare(
            replace(PRECISE, stream=[Task(first, second, later=later)]), "base", tasks=1, seeds=1, out=tmp_path / out
        )
        for out, later in (("without", None), ("with", third))
    ]
    assert found[0].tasks.select("accuracy", "loss").rows() == found[1].tasks.select("accuracy", "loss").rows()


def test_steps_of_what_is_learned_later_count() -> None:
    problem = replace(CLASSES, stream=lambda seed: [Task(batches(2), later=iter(batches(3))), batches(4)])
    assert open_problem(parse(STUDY, "mine.toml"), given=problem).steps(2, [4]) == [5, 4]


def test_language_models_and_tests_of_tasks(tmp_path: Path) -> None:
    def stream(seed: int) -> list[Task]:
        tokens = torch.randint(7, (3, 32, 6))
        pairs = [TensorDataset(some[:, :-1], some[:, 1:]) for some in tokens]
        return [Task(some, test=DataLoader(some, batch_size=16)) for some in pairs]

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.flatten(0, -2), targets.flatten())

    network = lambda seed: nn.Sequential(nn.Embedding(7, 8), nn.LayerNorm(8), nn.Linear(8, 7))  # noqa: E731
    problem = Problem(network, lambda p: torch.optim.AdamW(p, 0.05), stream, loss, batch_size=8)
    results = compare(problem, ["base", "l2_init"], tasks=2, seeds=2, out=tmp_path)
    assert results.outcome.name == "accuracy"
    # On the examples that were learned it does better than on each batch before, and than by chance.
    assert (results.tasks["accuracy"] > 1 / 7).all()
    assert results.tasks["scale_magnitude"].null_count() == 0


def learn(seed: int, make: Any) -> Iterator[float]:
    torch.manual_seed(seed)
    network = make_network(seed)
    acting = make(network, sgd_of := sgd(network.parameters(), **make.optimizer))
    for batches in of_classes(seed):
        for x, y in batches:
            sgd_of.zero_grad()
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            sgd_of.step()
        yield -loss.item()
        acting.boundary()


def test_a_function_that_trains_by_itself(tmp_path: Path) -> None:
    methods = {"base": {}, "swr": {"frequency": 2, "factor": 0.2}, "fire": {}}
    before = torch.get_rng_state()
    results = compare(learn, methods, tasks=2, seeds=[3, 5], out=tmp_path, optimizer={"lr": 0.2})
    assert torch.equal(torch.get_rng_state(), before)
    assert results.outcome.name == "return"
    # One more task takes each run up again.
    results = compare(Curve(learn), methods, tasks=3, seeds=[3, 5], out=tmp_path, optimizer={"lr": 0.2})
    assert results.runs["part"].n_unique() == 6
    for run in results.runs.iter_rows(named=True):

        def make(network: Any, optimizer: Any, run: Any = run) -> Any:
            if run["kind"] == "base":
                return supple.lab.study.curve.Acting(None)
            settings = {} if run["kind"] == "fire" else {"frequency": 2, "factor": 0.2}
            method = METHODS[run["kind"]](network, optimizer, seed=run["seed"], **settings).attach()
            return supple.lab.study.curve.Acting(method)

        make.optimizer = {"lr": 0.2}  # type: ignore[attr-defined]
        expected = torch.tensor(list(learn(run["seed"], make)))
        assert torch.equal(results.tasks.filter(run=run["run"])["metric"].to_torch(), expected)
    with pytest.raises(RuntimeError, match="seed 3: the curve ends after 3 numbers"):
        compare(learn, methods, tasks=4, seeds=[3, 5], out=tmp_path, optimizer={"lr": 0.2})


def failing(seed: int, make: Any) -> Iterator[float]:
    yield 1.0
    raise KeyError("observation")


def misspelt(seed: int, make: Any) -> list[float]:
    make.optimizer.get("lr", 0.1)
    return [1.0, 2.0]


WRONG_CURVES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "too short": (lambda seed, make: [1.0], {}, "the curve ends after 1 numbers; run.tasks is more"),
    "something else than numbers": (lambda seed, make: [1.0, None], {}, "number 1 of the curve is None, no number"),
    "one number": (lambda seed, make: 1.0, {}, "the curve is 1.0; it has to be numbers, one a task"),
    "nothing": (lambda seed, make: None, {}, "the curve is None; it has to be numbers, one a task"),
    "an error": (failing, {}, r"KeyError: 'observation' \(.*test_own_problems.py, line \d+\)"),
    "no method": (
        lambda seed, make: [1.0, 2.0],
        {"methods": ["cbp"]},
        r"it was trained without its method, cbp; .*make\(model, optimizer\)",
    ),
    "a grid of nothing": (
        lambda seed, make: [1.0, 2.0],
        {"methods": {"base": {"optimizer": {"lr": [0.1, 0.001]}}}},
        r"nothing has read its setting optimizer.lr; .*make.optimizer\['lr'\]",
    ),
    "a misspelt setting": (
        misspelt,
        {"optimizer": {"learning_rate": 0.1}},
        "nothing has read its setting optimizer.learning_rate",
    ),
    "a network's setting": (misspelt, {"network": {"hidden": 3}}, "nothing has read its setting network.hidden"),
}


@pytest.mark.parametrize("name", WRONG_CURVES)
def test_what_is_wrong_with_a_curve_is_named_with_method_and_seed(name: str, tmp_path: Path) -> None:
    function, options, said = WRONG_CURVES[name]
    usual: dict[str, Any] = {"methods": ["base"], "tasks": 2, "seeds": [3], "out": tmp_path}
    with pytest.raises(RuntimeError, match=rf"methods\.(base|cbp), seed 3: {said}"):
        compare(function, **{**usual, **options})


@pytest.mark.parametrize(
    "read",
    [
        lambda given: given["lr"],
        lambda given: given.get("lr"),
        lambda given: given.pop("lr"),
        lambda given: dict(**given)["lr"],
        lambda given: {**given}["lr"],
        lambda given: next(iter(given.values())),
        lambda given: given.copy()["lr"],
        lambda given: ({"lr": 1.0} | given)["lr"],
        lambda given: (given | {"momentum": 0.9})["lr"],
    ],
)
def test_settings_are_read_as_those_of_a_dict(read: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tasks": 1, "seeds": 1, "optimizer": {"lr": 0.25}}
    results = compare(lambda seed, make: [read(make.optimizer)], ["base"], out=tmp_path, **options)
    assert results.tasks["metric"].to_list() == [0.25]


def drawing(seed: int, make: Any) -> Iterator[float]:
    while True:
        yield python_random.random() + numpy.random.random() + torch.rand(()).item()  # noqa: NPY002


def test_a_curve_that_is_taken_up_again_is_the_same_one(tmp_path: Path) -> None:
    """What is drawn from the generators of torch, numpy and Python comes again; other numbers are refused."""
    before = python_random.getstate(), numpy.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    whole = compare(drawing, ["base"], tasks=4, seeds=[3], out=tmp_path / "whole")
    for tasks in (2, 4):
        parts = compare(drawing, ["base"], tasks=tasks, seeds=[3], out=tmp_path / "parts")
    assert parts.tasks.equals(whole.tasks)
    after = python_random.getstate(), numpy.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    assert after == before

    level = 1.0

    def leaping(seed: int, make: Any) -> list[float]:
        return [0.5, float("nan"), level, level]

    compare(leaping, ["base"], tasks=3, seeds=[3], out=tmp_path / "leaping")
    level = 2.0
    said = r"methods.base, seed 3: number 2 of the curve is 2.0, but was 1.0 before; .*give another folder"
    with pytest.raises(RuntimeError, match=said):
        compare(leaping, ["base"], tasks=4, seeds=[3], out=tmp_path / "leaping")
    # Folders of earlier versions hold no numbers to compare with.
    part = tmp_path / "leaping/parts/0000"
    state = {"checkpoint.safetensors": dump({"tasks": 3})}
    files.write(part, {"tasks.parquet": (part / "tasks.parquet").read_bytes(), **state})
    assert len(compare(leaping, ["base"], tasks=4, seeds=[3], out=tmp_path / "leaping").tasks) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        compare(CLASSES, ["base"], tasks=1, seeds=1, out=tmp_path, device="cuda")


def batches(count: int = 2, high: int = 3, features: int = 4) -> Any:
    return [(torch.randn(BATCH, features), torch.randint(high, (BATCH,))) for _ in range(count)]


made = 0


def growing(seed: int) -> nn.Module:
    global made
    made += 1
    return nn.Sequential(nn.Linear(4, 2 + made), nn.ReLU(), nn.Linear(2 + made, 3))


def of_python(seed: int) -> Iterator[Any]:
    """Batches that are drawn, when they are asked for, from Python's own generator, seeded."""
    python_random.seed(seed)
    for _ in range(2):
        yield [(torch.full((BATCH, 4), python_random.random()), torch.randint(3, (BATCH,))) for _ in range(2)]


class Drawing:
    """Tasks of which each takes from one generator of the seed what it needs."""

    def __init__(self, seed: int) -> None:
        self.generator = numpy.random.default_rng(seed)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, task: int) -> Any:
        return [(torch.tensor(self.generator.normal(size=(BATCH, 4))).float(), torch.zeros(BATCH).long())]


def with_a_schedule(parameters: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    optimizer.register_step_post_hook(lambda *unused: schedule.step())
    return optimizer


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "Python's generator, which seeds share": (
        {"stream": of_python},
        r"task 1, batch 0 of seed 0 is another .*after other tasks and seeds; .*numpy.random.default_rng\(\[seed, task",
    ),
    "a generator that tasks share": ({"stream": Drawing}, "task 0, batch 0 of seed 0 is another .*after other tasks"),
    "labels out of range with another seed": (
        {"stream": lambda seed: [batches(high=3 + seed, count=9), batches()]},
        r"task 0, batch \d of seed 1: the loss of outputs float32 \[5, 3\] and targets int64 \[5\] from \d to 3",
    ),
    "an optimizer with a closure": ({"optimizer": torch.optim.LBFGS}, "optimizer: LBFGS computes the loss several"),
    "an optimizer of something else": (
        {"optimizer": lambda ps: sgd([*ps, nn.Parameter(torch.zeros(2))])},
        r"optimizer: it holds a parameter of shape \(2,\) that is not the network's",
    ),
    "a compiled network": ({"network": lambda seed: torch.jit.script(make_network(seed))}, "torch.jit compiled it"),
    "no optimizer": ({"optimizer": lambda ps: None}, "optimizer: it is NoneType; it has to be a torch.optim.Optimizer"),
    "an optimizer and its schedule": (
        {"optimizer": lambda ps: (optimizer := sgd(ps), torch.optim.lr_scheduler.StepLR(optimizer, 1))},
        "optimizer: it is tuple; it has to be a torch.optim.Optimizer, without a schedule",
    ),
    "an optimizer with a schedule": ({"optimizer": with_a_schedule}, "optimizer: it has a schedule of the step size"),
    "a metric that is a number": (
        {"metric": Metric("mine", lambda output, targets: 0.5)},
        "the metric mine is 0.5; it has to be a tensor without dimensions",
    ),
    "a metric of something else": (
        {"metric": Metric("mine", lambda output, targets: output[BATCH])},
        "task 0, batch 0 of seed 0: the metric mine cannot be computed: index 5 is out of bounds",
    ),
    "inputs of numpy": (
        {"stream": lambda seed: [[(numpy.zeros((5, 4)), torch.zeros(5).long())]] * 2},
        "task 0, batch 0 of seed 0: the network does not take inputs",
    ),
    "classes in either dimension": (
        {
            "network": lambda seed: nn.Conv1d(2, 3, 1),
            "stream": lambda seed: [[(torch.randn(BATCH, 2, 3), torch.randint(3, (BATCH, 3)))]] * 2,
        },
        r"metric: classes may be dimension 1 or the last of outputs of shape \(5, 3, 3\)",
    ),
    "other shapes for each seed": (
        {"network": lambda seed: make_network(seed, 2 + seed)},
        r"network: networks of one stack differ in values only, but 0.weight is .* in make\(1\)",
    ),
    "other shapes each time": ({"network": growing}, "network: 0.weight of seed 0 has shape .* when it is made again"),
    "other values each time": (
        {"network": lambda seed: nn.Sequential(nn.Linear(4, 3)).requires_grad_().apply(scramble)},
        "network: 0.weight of seed 0 has other values when it is made again",
    ),
    "no module": ({"network": lambda seed: 3}, "network: it is int; it has to be a torch.nn.Module"),
    "unequal length": (
        {"stream": lambda seed: [batches(2 + seed), batches()]},
        "task 0 has 2 batches with seed 0 and 3 with seed 1",
    ),
    "unequal length later": (
        {"stream": lambda seed: [batches(2), batches(2 + seed)]},
        "task 1 has 2 batches with seed 0 and 3 with seed 1",
    ),
    "too few tasks": ({"stream": lambda seed: [batches()]}, "run.tasks is 2, but the stream of seed 0 has 1 tasks"),
    "too few tasks of an iterator": (
        {"stream": lambda seed: iter([batches()])},
        "stream of seed 0: the stream of seed 0 ends after 1 tasks",
    ),
    "no batches": ({"stream": lambda seed: [[], []]}, "task 0 of seed 0 has no batches"),
    "other batches each time": (
        {"stream": lambda seed: [[(torch.full((2, 4), python_random.random()), torch.zeros(2).long())]] * 2},
        "task 0, batch 0 of seed 0 is another when the stream is asked for it again",
    ),
    "labels out of range": (
        {"stream": lambda seed: [batches(high=4, count=9), batches()]},
        r"task 0, batch \d of seed 0: the loss of outputs float32 \[5, 3\] and targets int64 \[5\] from \d to 3",
    ),
    "labels out of range in a test": (
        {"stream": lambda seed: [Task(batches(), batches(9, high=4))] * 2},
        r"task 0, test batch \d of seed 0: the loss of outputs float32 \[5, 3\] and targets int64 \[5\] from \d to 3",
    ),
    "labels out of range in what is learned later": (
        {"stream": lambda seed: [Task(batches(), later=batches(9, high=4))] * 2},
        r"task 0, later batch \d of seed 0: the loss of outputs float32 \[5, 3\] and targets int64 \[5\] from \d to 3",
    ),
    "nothing to learn later": (
        {"stream": lambda seed: [Task(batches(), later=[])] * 2},
        "task 0 of seed 0 has no later batches",
    ),
    "later batches of unequal length": (
        {"stream": lambda seed: [Task(batches(2), later=batches(2 + seed))] * 2},
        "task 0 has 4 batches with seed 0 and 5 with seed 1",
    ),
    "an empty test": ({"stream": lambda seed: [Task(batches(), [])] * 2}, "task 0 of seed 0 has no test batches"),
    "a test for one task only": (
        {"stream": lambda seed: [Task(batches(), batches()), batches()]},
        r"task \d of seed 0 has a test, but another has none; give one to each task, or to none",
    ),
    "a test for all tasks but one": (
        {"stream": lambda seed: iter([batches(), Task(batches(), batches())])},
        "task 1 of seed 0 has a test, but another has none",
    ),
    "a test with one seed only": (
        {"stream": lambda seed: [Task(batches(), batches()) if seed else batches()] * 2},
        "task 0 has a test with seed 1 and none with seed 0",
    ),
    "another test each time": (
        {
            "stream": lambda seed: (
                [Task(batches(), [(torch.full((2, 4), python_random.random()), torch.zeros(2).long())])] * 2
            )
        },
        "task 0, test batch 0 of seed 0 is another when the stream is asked for it again",
    ),
    "a batch of three, later": (
        {"stream": lambda seed: [batches(), [(*one, 0) for one in batches()]]},
        r"stream of seed 0, task 1: .*pair \(inputs, targets\)",
    ),
    "a stream without some key": ({"stream": lambda seed: {}["digits"]}, "stream of seed 0: KeyError: 'digits'"),
    "inputs of another size": (
        {"stream": lambda seed: [batches(features=5), batches()]},
        r"network does not take inputs float32 \[5, 5\]",
    ),
    "a loss that is no scalar": (
        {"loss": lambda output, targets: nn.functional.cross_entropy(output, targets, reduction="none")},
        r"the loss of .* is float32 \[5\]; it has to be a tensor without dimensions",
    ),
    "a loss of nothing": ({"loss": lambda output, targets: output.detach().mean()}, "does not depend on the network"),
    "a metric that is no scalar": (
        {"metric": Metric("mine", lambda output, targets: output)},
        r"the metric mine is float32 \[5, 3\]; it has to be a tensor without dimensions",
    ),
    "no units": ({"network": lambda seed: nn.Sequential(nn.Linear(4, 3))}, "methods.cbp: .*no hidden units"),
    "single examples": (
        {"stream": lambda seed: [[(torch.ones(4), torch.tensor(1))]] * 2},
        "the targets of a batch have no dimensions; they have to have one that counts examples",
    ),
    "a lazy network": ({"network": lambda seed: nn.LazyLinear(3)}, "network: weight is lazy and has no shape yet"),
    "a network that does not load": (
        {"network": lambda seed: nn.Linear(4, 3).load_state_dict(nn.Linear(5, 3).state_dict())},
        "network: Error.* in loading state_dict for Linear",
    ),
    "labels that are left out, above 0": (
        {
            "stream": lambda seed: [[(torch.ones(2, 4), torch.tensor([1, 255]))]] * 2,
            "loss": lambda output, targets: nn.functional.cross_entropy(output, targets, ignore_index=255),
        },
        "the metric accuracy cannot be computed; only targets below 0 are left out, so give a metric of your own",
    ),
    "an optimizer of nothing": ({"optimizer": lambda p, rate: sgd(p, rate)}, "optimizer: .*rate"),
}


def scramble(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight.data.mul_(1 + python_random.random())


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_trained(name: str, tmp_path: Path) -> None:
    changes, said = MISTAKES[name]
    usual = replace(CLASSES, stream=lambda seed: [batches(), batches()])
    with pytest.raises(StudyError, match=said):
        compare(replace(usual, **changes), ["base", "cbp"], tasks=2, seeds=2, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": make_network(0)}, "network is Sequential; it has to be a function that makes one from a seed"),
        ({"optimizer": None}, "optimizer is NoneType; it has to be a function that makes one from parameters"),
        ({"loss": nn.CrossEntropyLoss}, "loss is .*CrossEntropyLoss.*; it has to be a function of outputs and targets"),
        ({"metric": "accuracy"}, r"metric is 'accuracy'; it has to be supple.lab.Metric\("),
        ({"metric": Metric("error", None, lower=True)}, "metric 'error' has no function; give it one"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it has to be a whole number"),
        ({"batch_size": 0}, "batch_size is 0; it has to be 1 or more"),
    ],
)
def test_what_a_problem_cannot_be_made_of(changes: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        replace(CLASSES, **changes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Metric(3, None), "the name of the metric is 3; it has to be a word"),  # type: ignore[arg-type]
        (lambda: Metric("mine", None, lower="yes"), "lower of the metric mine is 'yes'"),  # type: ignore[arg-type]
        (lambda: Curve(3), "learn is 3; it has to be a function of a seed and a maker of methods"),  # type: ignore[arg-type]
        (lambda: Curve(lambda seed: [1.0]), "learn is .*; it has to be a function of a seed and .*: too many pos"),  # type: ignore[arg-type, misc]
        (lambda: Curve(learn, "return"), r"metric is 'return'; it has to be supple.lab.Metric\("),  # type: ignore[arg-type]
    ],
)
def test_what_a_metric_and_a_curve_cannot_be_made_of(make: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        make()


def test_a_factory_is_no_curve(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="if it makes a problem, give what it makes"):
        compare(lambda: CLASSES, ["base"], tasks=1, seeds=1, out=tmp_path)


def test_arguments_as_people_give_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": torch.device("cpu"), "seeds": numpy.int64(2), "methods": {"base": None}}
    assert len(compare(CLASSES, tasks=1, out=tmp_path, **options).runs) == 2
    function = functools.partial(lambda level, seed, make: [level], 1.0)
    options = {"seeds": 1, "part_size": numpy.int64(1), "methods": {"base": {}}.keys()}
    assert len(compare(function, tasks=1, out=tmp_path / "partial", **options).runs) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"seeds": seeds}, "seeds") for seeds in ([0.5, 1.5], "3", 2.7, None, True, [True])),
        *(({"part_size": size}, f"part_size is {size!r}; it has to be a whole number, 1 or more") for size in (-1, 0)),
        ({"part_size": "2"}, "part_size is '2'; it has to be a whole number, 1 or more"),
        ({"processes": 0}, "processes is 0; it has to be a whole number, 1 or more"),
        *(
            ({"methods": some}, "methods is .*; it has to be names of methods, or a dict")
            for some in (None, 3, [supple], {supple.SWR: {}})
        ),
        *(
            ({"methods": {"swr": entry}}, r"methods.swr is .*; it has to be a dict of settings by name")
            for entry in (supple.SWR, [2, 4])
        ),
        ({"methods": ["swr", "swr"]}, "methods: 'swr' is there twice"),
        ({"network": 3}, "network is 3; it has to be a dict of settings by name"),
        ({"arguments": {"x": 1}}, "arguments are those of a factory that is named, but the problem itself is given"),
        *(({"device": device}, f"device is '{device}'; it has to be 'cpu' or 'cuda'") for device in ("tpu", "meta")),
    ],
)
def test_what_a_call_cannot_be_given(options: Any, said: str, tmp_path: Path) -> None:
    usual: dict[str, Any] = {"methods": ["base"], "tasks": 1, "seeds": 1, "out": tmp_path / "out"}
    with pytest.raises(StudyError, match=said):
        compare(CLASSES, **{**usual, **options})
    assert not (tmp_path / "out").exists()


class LeavingOut(nn.Module):
    """A network that leaves layers out by Python's generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        return self.last(hidden + self.part(hidden) if python_random.random() > 0.5 else hidden)


def mixed_up(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    share = numpy.random.beta(1, 1)  # noqa: NPY002
    first, second = (nn.functional.cross_entropy(output, some) for some in (targets, targets.flip(0)))
    return share * first + (1 - share) * second


@pytest.mark.parametrize("change", [{"network": LeavingOut}, {"loss": mixed_up}])
def test_what_draws_from_other_generators_goes_on(change: Any, tmp_path: Path) -> None:
    problem = replace(CLASSES, **change)
    for tasks in (1, 2):
        results = compare(problem, ["base"], tasks=tasks, seeds=2, out=tmp_path, examples=0)
        assert results.runs["done"].to_list() == [tasks, tasks]


def test_a_part_that_was_to_be_trained_together_is_not_trained_as_one(module: None) -> None:
    problem = open_problem(parse(STUDY, "mine.toml"))
    problem.networks.together = lambda column: False  # type: ignore[attr-defined]
    with pytest.raises(StudyError, match="cannot be trained together with others, but these runs were meant to be"):
        problem.trainer(problem.study.columns[:1], [4, 9], [0, 1])


@pytest.mark.filterwarnings("error:network")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_no_difference(dtype: torch.dtype, tmp_path: Path) -> None:
    class Mixed(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.layers = make_network(seed, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                return self.layers(x).float()

    results = compare(replace(CLASSES, network=Mixed), ["base"], tasks=1, seeds=2, out=tmp_path, examples=0)
    assert results.runs["part"].n_unique() == 1


def test_batches_that_do_not_fit_together_are_learned_alone(tmp_path: Path) -> None:
    """Each seed has batches of another size."""
    stream = lambda seed: [[(x[seed:], y[seed:]) for x, y in task] for task in of_precise_classes(seed)]  # noqa: E731
    with pytest.warns(UserWarning, match="it cannot be trained together with others .*each run is trained alone"):
        results = compare(replace(PRECISE, stream=stream), ["base"], tasks=1, seeds=2, out=tmp_path)
    assert results.runs["part"].n_unique() == 2


class Physical(nn.Module):
    """A network that takes a gradient itself."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = precise(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        with torch.enable_grad():
            found = self.layers(x)
            (slope,) = torch.autograd.grad(found.sum(), x, create_graph=self.training)
        return found + slope.sum(1, keepdim=True)


@pytest.mark.filterwarnings("ignore:2 networks", "ignore:network. it cannot be trained")
def test_a_network_that_takes_gradients_itself(tmp_path: Path) -> None:
    results = compare(replace(PRECISE, network=Physical), ["base"], tasks=1, seeds=2, out=tmp_path, examples=0)
    for run, seed in enumerate((0, 1)):
        expected = plain_loop(replace(PRECISE, network=Physical), "base", {}, seed, 1)
        assert results.tasks.filter(run=run).select("accuracy", "loss").row(0) == pytest.approx(expected[0], rel=1e-6)


def test_labels_out_of_range_in_the_last_task_are_found_before(tmp_path: Path) -> None:
    problem = replace(CLASSES, stream=lambda seed: [batches(), batches(), batches(), batches(9, high=4)])
    with pytest.raises(StudyError, match=r"task 3, batch \d of seed 0: the loss of"):
        compare(problem, ["base"], tasks=4, seeds=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def relu_to_tanh(network: nn.Module) -> nn.Module:
    return nn.Sequential(*(nn.Tanh() if isinstance(module, nn.ReLU) else module for module in network.children()))


def test_a_method_is_tried_on_each_network_of_a_grid(tmp_path: Path) -> None:
    def network(seed: int, hidden: bool) -> nn.Module:
        return make_network(seed) if hidden else nn.Sequential(nn.Linear(4, 3))

    methods = {"cbp": {"network": {"hidden": [True, False]}}}
    with pytest.raises(StudyError, match=r"methods.cbp: .*no hidden units"):
        compare(
            replace(CLASSES, network=network), methods, tasks=1, seeds=1, out=tmp_path / "out", network={"hidden": True}
        )
    assert not (tmp_path / "out").exists()


def test_a_stream_that_has_some_seeds_only(tmp_path: Path) -> None:
    there = {seed: (of_classes(seed), make_network(seed)) for seed in (3, 8, 9)}
    problem = replace(CLASSES, stream=lambda s: there[s][0], network=lambda s: copy.deepcopy(there[s][1]))
    compare(problem, ["base"], tasks=1, seeds=[3, 8], out=tmp_path)
    assert len(compare(problem, ["base"], tasks=1, seeds=[3, 8, 9], out=tmp_path).runs) == 3


def test_what_comes_wrong_later_stops_with_its_place(tmp_path: Path) -> None:
    stream = lambda seed: [batches(), batches(3), [*batches(), *batches(1, features=7)]]  # noqa: E731
    with pytest.raises(RuntimeError, match=r"task 2, batch 2 of seed 0: .*4"):
        compare(replace(CLASSES, stream=stream), ["base"], tasks=3, seeds=1, out=tmp_path, examples=5)
    assert load(tmp_path).runs["done"].item() in (1, 2)


@pytest.mark.parametrize(
    ("seeds", "third", "said"),
    [
        ([0, 1, 2], lambda: batches(4, features=7), "task 2, the first batches of seed 0: .*7"),
        ([1], lambda: [*batches(3), *batches(1, high=9)], "task 2, batch 3 of seed 1: .*Target [3-8] is out of bounds"),
        ([1], lambda: Task(batches(4), batches(2, high=9)), r"task 2, test batch \d of seed 1: .*out of bounds"),
    ],
)
def test_what_comes_wrong_later_is_named_with_its_seed(seeds: list[int], third: Any, said: str, tmp_path: Path) -> None:
    right = Task(batches(4), batches(2)) if isinstance(third(), Task) else batches(4)

    def stream(seed: int) -> Any:
        torch.manual_seed(4)
        return [right, right, third() if seed in seeds else right, right]

    with pytest.raises(RuntimeError, match=said):
        compare(replace(CLASSES, stream=stream), ["base"], tasks=4, seeds=3, out=tmp_path, examples=5)


@pytest.mark.parametrize("tested", [False, True])
def test_batches_without_a_metric_do_not_count(tested: bool, tmp_path: Path) -> None:
    """Of the first task the targets of a batch are left out, of the second those of all."""

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, targets, reduction="sum") / (targets >= 0).sum().clamp(min=1)

    def stream(seed: int) -> Any:
        left_out = [(x, torch.full_like(y, -100)) for x, y in batches(2)]
        tasks = [[left_out[0], *batches(3)], left_out, batches(3)]
        return [Task(batches(2), some) if tested else some for some in tasks]

    masked = compare(replace(CLASSES, stream=stream, loss=loss), ["base"], tasks=3, seeds=2, out=tmp_path / "masked")

    def without(seed: int) -> Any:
        return [Task(task.batches, task.test[1:]) if tested else task[1:] for task in stream(seed)]

    expected = compare(replace(CLASSES, stream=without), ["base"], tasks=1, seeds=2, out=tmp_path / "plain")
    first, second, third = (masked.tasks.filter(task=task)["accuracy"] for task in range(3))
    assert first.to_list() == pytest.approx(expected.tasks.filter(task=0)["accuracy"].to_list())
    assert second.is_nan().all()
    assert masked.tasks["loss"].is_finite().all()
    assert measure(masked).runs["area"].to_list() == pytest.approx(((first + third) / 2).to_list())
    assert not measure(masked).runs["diverged"].any()
    nothing = compare(
        replace(CLASSES, metric=Metric("mine", lambda z, y: z.mean() / 0 * 0)),
        ["base"],
        tasks=1,
        seeds=1,
        out=tmp_path / "nothing",
    )
    with pytest.raises(ValueError, match="mine of base with seed 0 is no number in any of tasks 0 to 0"):
        measure(nothing)


def test_a_network_of_another_shape_with_some_later_seed(tmp_path: Path) -> None:
    problem = replace(CLASSES, network=lambda seed: make_network(seed, 7 if seed == 2 else 6))
    with pytest.raises(StudyError, match=r"network: .* 0.weight is .* in make\(2\) and .* in make\(0\)"):
        compare(problem, ["base"], tasks=1, seeds=3, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": nn.functional.multi_margin_loss}, "the network, optimizer, loss or stream are not the same"),
        ({"stream": lambda seed: of_classes(seed + 1)}, "the network, optimizer, loss or stream are not the same"),
        ({"network": lambda seed: relu_to_tanh(make_network(seed))}, "the network, optimizer, loss or stream are not"),
        ({"loss": lambda z, y: nn.functional.cross_entropy(z, y, label_smoothing=0.5)}, "loss or stream are not"),
        ({"optimizer": lambda ps, lr=0.3: torch.optim.SGD([{"params": ps, "lr": 0.2}], lr)}, "loss or stream are not"),
        ({"metric": Metric("mine", lambda z, y: z.mean() + 1)}, "loss or stream are not"),
        ({"stream": lambda seed: [Task(task, task) for task in of_classes(seed)]}, "loss or stream are not"),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_another_problem_does_not_go_into_the_same_folder(
    change: Any, said: str, required: bool, tmp_path: Path
) -> None:
    """Also where nothing can be made without settings, and with other seeds beside."""
    options: dict[str, Any] = {"methods": ["base"], "tasks": 1, "out": tmp_path}
    usual = replace(
        CLASSES, loss=lambda z, y: nn.functional.cross_entropy(z, y), metric=Metric("mine", lambda z, y: z.mean())
    )
    changed = replace(usual, **change)
    if required:
        make, step = usual.network, usual.optimizer
        make_changed, step_changed = changed.network, changed.optimizer
        usual = replace(usual, network=lambda seed, width: make(seed), optimizer=lambda ps, rate: step(ps))
        changed = replace(
            changed, network=lambda seed, width: make_changed(seed), optimizer=lambda ps, rate: step_changed(ps)
        )
        options |= {"network": {"width": 4}, "optimizer": {"rate": 0.1}}
    compare(usual, seeds=[5], **options)
    assert len(compare(usual, seeds=[5, 6], **options).runs) == 2
    with pytest.raises(StudyError, match=said):
        compare(changed, seeds=[6, 5], **options)


def of_zeros(seed: int, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """One whose first outputs are 0, whatever it computes."""
    network = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3))
    nn.init.zeros_(network[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(network[2].bias)  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize(
    ("usual", "change"),
    [
        ({"network": of_zeros}, {"network": lambda seed: of_zeros(seed, nn.Tanh)}),
        (
            {"network": of_zeros, "loss": functools.partial(nn.functional.cross_entropy, label_smoothing=0.0)},
            {"loss": functools.partial(nn.functional.cross_entropy, label_smoothing=0.5)},
        ),
        (
            {"metric": Metric("hits", lambda z, y: (z.argmax(1) == y).sum())},
            {"metric": Metric("hits", lambda z, y: (z.argmax(1) != y).sum())},
        ),
    ],
)
def test_another_problem_that_begins_alike_does_not_go_into_the_same_folder(
    usual: Any, change: Any, tmp_path: Path
) -> None:
    problem = replace(CLASSES, **usual)
    compare(problem, ["base"], tasks=1, seeds=1, out=tmp_path)
    compare(problem, ["base"], tasks=2, seeds=2, out=tmp_path)
    with pytest.raises(StudyError, match="loss or stream are not the same"):
        compare(replace(problem, **change), ["base"], tasks=2, seeds=2, out=tmp_path)


GRAPH = object()
"""What is no tensor, and prints as its place in memory."""


class Wandering:
    """A loss that draws from a generator of its own."""

    def __init__(self) -> None:
        self.generator = numpy.random.default_rng(0)

    def __call__(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, targets) * self.generator.uniform(0.9, 1.1)


class Taking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = make_network(0)

    def forward(self, x: torch.Tensor, graph: Any) -> Any:
        return self.layers(x)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": Wandering()},
        {
            "network": lambda seed: Taking(),
            "stream": lambda seed: [[((x, GRAPH), y) for x, y in task] for task in of_classes(seed)],
        },
    ],
)
@pytest.mark.filterwarnings("ignore:network")
def test_the_same_problem_goes_on(change: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": {"lr": numpy.float32(0.1)}, "out": tmp_path, "examples": 0}
    methods = {"base": {}, "l2": {"l2": list(numpy.logspace(-3, -2, 2))}}
    for tasks, seeds in ((1, [7]), (2, [7, 8]), (2, [8, 7])):
        results = compare(replace(CLASSES, **change), methods, tasks=tasks, seeds=seeds, part_size=1, **options)
    assert results.runs["done"].to_list() == [2] * 6


def test_what_networks_start_from_does_not_depend_on_how_a_folder_grew(tmp_path: Path) -> None:
    """Weights that no well-known initializer explains start in each run from what its own network tells."""

    def network(seed: int) -> nn.Module:
        made = precise(seed)
        for layer in (made[0], made[2]):  # type: ignore[index]
            nn.init.trunc_normal_(layer.weight, std=0.3 + seed / 10, a=-0.6, b=0.6)
        return made

    problem = replace(PRECISE, network=network)
    methods: Any = {"base": {}, "swr": {"frequency": 2, "factor": 0.5}, "scratch": {"kind": "layer_reset", "layers": 0}}
    options: dict[str, Any] = {"methods": methods, "examples": 0}
    compare(problem, tasks=2, seeds=[7], out=tmp_path / "grown", **options)
    grown = compare(problem, tasks=3, seeds=[7, 4, 9], out=tmp_path / "grown", **options)
    at_once = compare(problem, tasks=3, seeds=[4, 7, 9], out=tmp_path / "whole", **options)
    assert at_once.runs["part"].n_unique() < 4
    order = ["method", "seed", "task"]
    found, expected = (one.tasks.join(one.runs, on="run").sort(order) for one in (grown, at_once))
    assert found["loss"].to_list() == pytest.approx(expected["loss"].to_list(), rel=1e-6)
    assert found["reinitialized"].to_list() == expected["reinitialized"].to_list()


def test_data_of_every_kind(tmp_path: Path) -> None:
    """Targets that are a column of a table, and a network of bfloat16."""

    def stream(seed: int) -> Any:
        table = torch.randn(2 * BATCH, 5)
        classes = (table > 0).long()
        return [[(table[::2, :4].bfloat16(), classes[::2, 4])] * 3] * 2

    problem = replace(CLASSES, network=lambda seed: make_network(seed).bfloat16(), stream=stream)
    for tasks in (1, 2):
        assert compare(problem, ["base"], tasks=tasks, seeds=2, out=tmp_path).tasks["loss"].is_finite().all()


@pytest.mark.parametrize(
    ("third", "said"),
    [
        (lambda: Task(batches(), []), "task 2 of seed 0 has no test batches"),
        (lambda: Task([*batches(), 3], batches()), "task 2, batch 2 of seed 0: a batch is int"),
        (
            lambda: Task([(torch.ones(BATCH, 4), torch.full((BATCH,), 8))], batches()),
            "task 2, batch 0 .*Assertion.*: 8",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:network")
def test_later_mistakes_of_other_kinds(third: Any, said: str, tmp_path: Path) -> None:
    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        assert targets.max() < 3, "8 is no class"
        return nn.functional.cross_entropy(output, targets)

    tasks = [Task(batches(), batches()) for _ in range(5)]
    problem = replace(CLASSES, stream=lambda seed: [*tasks[:2], third(), *tasks[3:]], loss=loss)
    with pytest.raises(RuntimeError, match=said):
        compare(problem, ["base"], tasks=5, seeds=1, out=tmp_path, examples=5)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_a_run_that_diverges_within_a_task_counts_as_the_worst(lower: bool, share: bool, tmp_path: Path) -> None:
    def missed(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found = output.softmax(1).gather(1, targets[:, None]).mean()
        return 1 - found if lower else found

    problem = replace(CLASSES, metric=Metric("mine", missed, lower=lower, share=share))
    methods: Any = {"base": {}, "diverging": {"kind": "base", "optimizer": {"lr": 1e30}}}
    runs = measure(compare(problem, methods, tasks=2, seeds=2, out=tmp_path)).runs
    diverged, right = (runs.filter(diverged=value)["late"].to_list() for value in (True, False))
    assert len(diverged) == len(right) == 2
    everything = measure(load(tmp_path)).results.tasks
    tasks = everything.filter(everything["metric"].is_finite())["metric"]
    worst = float(lower) if share else (tasks.max() if lower else tasks.min())
    assert diverged == pytest.approx([worst] * 2)


def test_whether_lower_is_better_can_be_put_right(tmp_path: Path) -> None:
    for problem in (
        replace(CLASSES, metric=Metric("mine", lambda z, y: z.mean())),
        Curve(lambda seed, make: [1.0, 2.0], Metric("regret", None)),
    ):
        out = tmp_path / type(problem).__name__
        assert not compare(problem, ["base"], tasks=1, seeds=1, out=out).outcome.lower
        right = replace(problem, metric=replace(problem.metric, lower=True))
        assert compare(right, ["base"], tasks=1, seeds=1, out=out).outcome.lower
        assert load(out).outcome.lower


def test_a_call_is_gone_on_with_by_a_call_only(tmp_path: Path) -> None:
    compare(CLASSES, ["base"], tasks=1, seeds=1, out=tmp_path)
    study = load(tmp_path).study
    with pytest.raises(StudyError, match="was given in a call of supple"):
        running.run(RunConfig(study, "mine", tmp_path))


@pytest.mark.filterwarnings("ignore:2 networks")
def test_inputs_of_every_kind(tmp_path: Path) -> None:
    """Sequences of unequal length, a mask without examples, a number, nothing, half precision and counts as targets."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.activation, self.down = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)

        def forward(self, x: torch.Tensor, mask: torch.Tensor, scale: float, nothing: None) -> torch.Tensor:
            assert nothing is None
            hidden = self.activation(self.up(x.float()))
            return self.down(scale * (mask @ hidden).mean(1))

    def stream(seed: int) -> Any:
        return [
            [
                (
                    {"x": torch.randn(BATCH, t, 4).bfloat16(), "mask": torch.ones(t, t), "scale": 2.0, "nothing": None},
                    torch.randint(9, (BATCH,)),
                )
                for t in (3, 5, 4)
            ]
        ] * 2

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.poisson_nll_loss(output[:, 0], targets.float())

    results = compare(
        Problem(lambda seed: Reader(), sgd, stream, loss), ["base", "cbp"], tasks=2, seeds=2, out=tmp_path
    )
    assert results.outcome.name == "loss"
    assert results.tasks["dead"].is_between(0, 1).all()
    # As if the units were read in a loop over the batches.
    torch.manual_seed(0)
    reader = Reader()
    features = [torch.relu(reader.up(batch["x"].float())) for batch, _ in stream_of(stream, 0)]
    dead = (torch.cat([one.flatten(0, 1) for one in features]) <= 0).all(0).float().mean().item()
    first = results.tasks.join(results.runs, on="run").filter(seed=0, method="base", task=0)
    assert first["dead"].item() == pytest.approx(dead)


def stream_of(stream: Any, seed: int) -> Any:
    """The first task as a study gives it."""
    return supple.lab.streams.tasks.SeedStream(stream, seed).task(0)


def test_what_a_module_keeps_beside_its_tensors_is_told(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x)

    problem = replace(CLASSES, network=lambda seed: nn.Sequential(Counting(4, 3)))
    with pytest.warns(UserWarning, match=r"network: calls of 0 changes while it computes.*register_buffer"):
        compare(problem, ["base"], tasks=1, seeds=1, out=tmp_path)


@pytest.mark.slow
def test_killed_on_the_command_line_it_ends_with_the_same_files(tmp_path: Path) -> None:
    file = tmp_path / "killed.toml"
    file.write_text(
        'title = "killed"\n[problem]\nkind = "supple.lab.studies.random_labels:make"\nimages = 64\npasses = 40\n'
        "[network]\nhidden = 16\n[run]\ntasks = 6\nseeds = 2\n"
        "[methods.base]\n[methods.cbp]\n[methods.swr]\nfrequency = 20\nfactor = [0.1, 0.2]\n"
    )
    one, other = killed_and_whole(file, tmp_path, "--part-size", "4")
    assert one == other
    assert len(load(tmp_path / "killed").tasks) == 8 * 6
