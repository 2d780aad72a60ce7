"""The population of the demo against each method alone, stopping, and what is seen meanwhile."""

import io
import os
import re
import signal
import threading

import numpy as np
import pytest
import torch
from cli_runs import write_images
from rich.console import Console

import supple
from supple.lab import data, demo
from supple.lab.commands.options import interruptible
from supple.lab.demo import Curves, TaskLines, sparkline
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.report.facts import attribution
from supple.lab.streams import PermutedStream
from supple.lab.study import shipped
from supple.lab.study.problems import open_problem
from supple.lab.study.progress import Watcher
from supple.lab.study.results import TASKS_SCHEMA
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import from_dict, read
from supple.optim import SGDW

SEEDS, TASKS = (3, 8), 4

# So strong that each method acts often in the 32 steps of the test.
METHODS = {
    "base": {},
    "l2": {"l2": 0.01},
    "shrink_and_perturb": {"l2": 1e-3, "variance": 1e-5},
    "cbp": {"maturity": 2, "replacement_rate": 0.05},
    "redo": {"frequency": 4, "threshold": 0.3},
    "swr": {"frequency": 8, "factor": 0.05},
}

ALONE = {
    "base": lambda network, optimizer: None,
    "l2": lambda network, optimizer: supple.L2(network, **METHODS["l2"]),
    "shrink_and_perturb": lambda network, optimizer: supple.ShrinkAndPerturb(network, **METHODS["shrink_and_perturb"]),
    "cbp": lambda network, optimizer: supple.CBP(network, optimizer, **METHODS["cbp"]),
    "redo": lambda network, optimizer: supple.ReDo(network, optimizer, **METHODS["redo"]),
    "swr": lambda network, optimizer: supple.SWR(network, optimizer, **METHODS["swr"]),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def train(images, folder, watcher=None, stop=None, **changes):
    content = {
        "title": "Strong",
        "network": {"hidden": 10},
        "run": {"tasks": TASKS, "seeds": SEEDS},
        "methods": METHODS,
    }
    config = RunConfig(from_dict({**content, **changes}, "strong.toml"), "demo", folder)
    problem = open_problem(config.study, images, verify=False)
    return demo.train(config, problem, watcher or Watcher(), stop or threading.Event())


@pytest.fixture(scope="module")
def together(images, tmp_path_factory):
    return train(images, tmp_path_factory.mktemp("results"))


def rows_of(results, method):
    runs = results.runs.filter(method=method)
    return results.tasks.join(runs.select("run", "seed"), on="run").sort("task", "seed")


@pytest.mark.parametrize("method", METHODS)
def test_one_population_with_settings_of_zero_equals_each_method_alone(images, together, method):
    """The population of the demo against one of the seeds alone, through autograd, with nothing but that method."""
    network = StackedMLP(SEEDS, 64, hidden=10)
    optimizer = SGDW(network.parameters(), lr=0.05)
    stream = PermutedStream(data.load("mnist", images, verify=False), SEEDS)
    population = Population(network, optimizer, stream, ALONE[method](network, optimizer), general=True)
    counts = []
    for task in range(TASKS):
        metrics = population.train_task(task)
        rows = rows_of(together, method).filter(task=task)
        counts.append(metrics.reinitialized.sum().item())
        assert rows["reinitialized"].to_list() == metrics.reinitialized.tolist()
        np.testing.assert_allclose(rows["accuracy"], metrics.accuracy, atol=1 / 240)
        np.testing.assert_allclose(rows["loss"], metrics.loss, rtol=1e-3)
        np.testing.assert_allclose(rows["dead"], metrics.dead, atol=1e-6)
    assert bool(sum(counts)) == (method in ("cbp", "redo", "swr"))


def test_the_runs_are_one_part_and_differ(together):
    """Or else the test above would not see replicas that are mixed up."""
    assert together.tasks.schema == TASKS_SCHEMA
    assert together.runs["part"].unique().to_list() == [0]
    assert together.runs["done"].unique().to_list() == [TASKS]
    last = together.tasks.filter(task=TASKS - 1)["loss"]
    assert last.n_unique() == len(SEEDS) * len(METHODS)


def test_settings_are_those_of_the_small_network():
    own, small = (read(shipped.find(name)[0]) for name in ("demo", "permuted_mnist/small"))
    assert (own.network, own.optimizer, own.methods) == (small.network, small.optimizer, small.methods)
    assert [column.key() for column in own.columns] == [column.key() for column in small.columns]


def test_attributions():
    """Authors and licence of every data set that can be loaded."""
    for name in data.NAMES:
        title, _, rest = attribution(name).partition(" (")
        known = data.DATA_SETS["mnist" if name == "mnist10k" else name]
        assert title.endswith(known.title)
        assert rest.endswith(f"; {known.licence})")
        assert re.search(r"(19|20)\d\d", rest)
    assert attribution("another") == attribution("another", own=True) == ""


def test_only_base(images, tmp_path):
    results = train(images, tmp_path, methods={"base": {}}, run={"tasks": 1, "seeds": 2})
    assert results.tasks.shape == (2, len(TASKS_SCHEMA))


class StopsIn(Watcher):
    """Asks for a stop when a task has been learned."""

    def __init__(self, task, stop):
        self.task, self.asked = task, stop
        if task == 0:
            stop.set()

    def stage(self, part, done, accuracy):
        if done == self.task:
            self.asked.set()


@pytest.mark.parametrize("tasks", [2, 0])
def test_a_stopped_run_has_the_complete_tasks(images, together, tmp_path, tasks):
    stop = threading.Event()
    results = train(images, tmp_path, StopsIn(tasks, stop), stop)
    assert results.runs["done"].unique().to_list() == [tasks]
    assert results.tasks.equals(together.tasks.filter(together.tasks["task"] < tasks))


def test_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_are_given_back(images, tmp_path):
    before, seen = torch.get_num_threads(), []

    class Asks(Watcher):
        def stage(self, part, done, accuracy):
            seen.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        train(images, tmp_path, Asks(), run={"tasks": 1, "seeds": 1})
        assert seen == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_sparkline():
    assert sparkline([0.0, 0.5, 1.0], 0, 1) == "▁▅█"
    assert sparkline(np.linspace(0, 1, 8), 0, 1) == "▁▂▃▄▅▆▇█"
    assert sparkline([-5.0, 5.0], 0, 1) == "▁█"
    assert len(set(sparkline([1, 1, 1], 1, 1))) == 1


def follow(watcher, tasks, steps=4):
    """Base falls from 80% by a point a task, SWR stays at 90%."""
    watcher.start({0: (4, 0)}, [steps] * tasks)
    with watcher:
        for task in range(tasks):
            for step in range(1, steps + 1):
                watcher.step(0, task, step)
            watcher.stage(0, task + 1, [("base", 0.8 - 0.01 * task), ("swr", 0.9)])


def test_lines_now_and_then():
    out = io.StringIO()
    follow(TaskLines(Console(file=out, width=60)), 25)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [f"{k}/25" for k in (*range(2, 25, 2), 25)]
    # Tasks 1 and 2 have 80% and 79%.
    assert "base 79.5%  SWR 90.0%" in lines[0]
    assert all("network steps/s" in line and "s left" in line for line in lines)


def test_curves_grow():
    out = io.StringIO()
    follow(Curves(Console(file=out, width=100, force_terminal=True, color_system=None)), 10)
    last = out.getvalue()[out.getvalue().rindex("first tasks") :]
    # The first task has 80%, the last 71%.
    assert "80.0%" in last
    assert "71.0%" in last
    assert "100.0%" in last
    assert "network steps/s" in last
    base, swr = (line for line in last.splitlines() if line.strip().startswith(("base", "SWR")))
    assert swr.count("█") == 10
    heights = [mark for mark in base if mark in "▁▂▃▄▅▆▇█"]
    assert len(heights) == 10
    assert heights == sorted(heights, reverse=True)
