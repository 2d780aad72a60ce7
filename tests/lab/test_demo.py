"""The population of the demo against each method alone, and stopping."""

import os
import re
import signal

import numpy as np
import pytest
import torch

import supple
from supple.lab import data, demo
from supple.lab.demo_report import FILES, Run, attribution, write
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.report.comparison import Comparison, summarize
from supple.lab.streams import PermutedStream
from supple.lab.study.assembly import assemble
from supple.lab.study.part import Stopped
from supple.lab.study.spec import from_dict
from supple.optim import SGDW

SEEDS, TASKS = (3, 8), 4

# So strong that each method acts often in the 80 steps of the test.
STRONG_STUDY = from_dict(
    {
        "title": "strong methods",
        "network": {"hidden": 10},
        "run": {"tasks": 4, "seeds": [3, 8]},
        "methods": {
            "base": {},
            "l2": {"l2": 0.01},
            "shrink_and_perturb": {"l2": 1e-3, "variance": 1e-5},
            "cbp": {"maturity": 5, "replacement_rate": 0.02},
            "redo": {"frequency": 8, "threshold": 0.2},
            "swr": {"frequency": 16, "factor": 0.05},
        },
    },
    "strong.toml",
)
STRONG = {column.method: column for column in STRONG_STUDY.columns}

ALONE = {
    "base": lambda network, optimizer: None,
    "l2": lambda network, optimizer: supple.L2(network, l2=0.01),
    "shrink_and_perturb": lambda network, optimizer: supple.ShrinkAndPerturb(network, l2=1e-3, variance=1e-5),
    "cbp": lambda network, optimizer: supple.CBP(network, optimizer, maturity=5, replacement_rate=0.02),
    "redo": lambda network, optimizer: supple.ReDo(network, optimizer, frequency=8, threshold=0.2),
    "swr": lambda network, optimizer: supple.SWR(network, optimizer, frequency=16, factor=0.05),
}


@pytest.fixture(scope="module")
def images():
    whole = data.mnist10k()
    return data.LabelledImages(whole.images[:600, 4:24:2, 4:24:2].contiguous(), whole.labels[:600], 10, "tiny")


@pytest.fixture(scope="module")
def together(images):
    population = assemble(images, list(STRONG.values()), SEEDS)
    seen: list[int] = []
    comparison, complete = demo.train(
        population, tuple(STRONG), SEEDS, TASKS, on_task=lambda so_far: seen.append(so_far.tasks)
    )
    assert complete
    assert seen == [1, 2, 3, 4]
    return comparison


@pytest.mark.parametrize("method", list(STRONG))
def test_one_population_with_settings_of_zero_equals_each_method_alone(images, together, method):
    """The population of the demo against one of the seeds alone, through autograd, with nothing but that method."""
    network = StackedMLP(SEEDS, 100, hidden=10)
    optimizer = SGDW(network.parameters(), lr=0.05)
    alone = ALONE[method](network, optimizer)
    population = Population(network, optimizer, PermutedStream(images, SEEDS), alone, general=True)
    c = together.methods.index(method)
    counts = []
    for task in range(TASKS):
        metrics = population.train_task(task)
        counts.append(metrics.reinitialized.sum().item())
        assert together.reinitialized[task, :, c].tolist() == metrics.reinitialized.tolist()
        np.testing.assert_allclose(together.accuracy[task, :, c], metrics.accuracy, atol=1 / 600)
        np.testing.assert_allclose(together.loss[task, :, c], metrics.loss, rtol=1e-3)
        np.testing.assert_allclose(together.dead[task, :, c], metrics.dead, atol=1e-6)
    assert all(counts) == (method in ("cbp", "redo", "swr"))


def test_methods_differ(together):
    """Or else the test above would not see replicas that are mixed up."""
    runs = {together.loss[:, s, c].tobytes() for s in range(len(SEEDS)) for c in range(len(STRONG))}
    assert len(runs) == len(SEEDS) * len(STRONG)


def test_settings_are_those_of_the_study(images):
    """The small network of arXiv 2508.00212, as chained in the population."""
    population = assemble(images, list(demo.columns().values()), [0])
    found = [(type(method).__name__, method.settings) for method in population.method.methods]
    expected = [
        ("L2", {"l2": [0, 1e-4, 0, 0, 0, 0]}),
        ("ShrinkAndPerturb", {"l2": [0, 0, 1e-4, 0, 0, 0], "variance": [0, 0, 1e-9, 0, 0, 0]}),
        ("CBP", {"maturity": 5, "replacement_rate": [0, 0, 0, 1e-3, 0, 0]}),
        ("ReDo", {"frequency": 8, "threshold": [0, 0, 0, 0, 1e-2, 0]}),
        ("SWR", {"frequency": 2048, "factor": [0, 0, 0, 0, 0, 1e-6], "utility": "gradient"}),
    ]
    for (name, settings), (expected_name, wanted) in zip(found, expected, strict=True):
        assert name == expected_name
        for setting, value in wanted.items():
            given = settings[setting]
            assert (given.tolist() if isinstance(given, torch.Tensor) else given) == value
    assert population.network.architecture.hidden == 10
    assert (population.optimizer.param_groups[0]["lr"], population.stream.batch_size) == (0.05, 30)


@pytest.mark.parametrize("own", [False, True])
def test_the_report_of_a_data_set_that_is_not_known(images, together, tmp_path, own):
    """Where it is from is left out; nothing fails when all work is done."""
    run = Run("another", images, STRONG_STUDY, list(STRONG), SEEDS, TASKS, "cpu", "supple demo", own=own)
    assert [path.name for path in write(tmp_path, run, together, summarize(together))] == list(FILES)
    assert "600 images<" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_attributions():
    """Authors and licence of every data set that can be loaded."""
    for name in data.NAMES:
        title, _, rest = attribution(name).partition(" (")
        known = data.DATA_SETS["mnist" if name == "mnist10k" else name]
        assert title.endswith(known.title)
        assert rest.endswith(f"; {known.licence})")
        assert re.search(r"(19|20)\d\d", rest)
    assert attribution("another") == attribution("another", own=True) == ""


def test_only_base(images):
    population = assemble(images, [STRONG["base"]], SEEDS)
    assert population.method is None
    comparison, complete = demo.train(population, ["base"], SEEDS, 1)
    assert complete
    assert comparison.accuracy.shape == (1, 2, 1)
    with pytest.raises(ValueError, match="one or more"):
        assemble(images, [], SEEDS)


def test_a_stopped_run_has_the_complete_tasks(images, together):
    steps = 0

    def stop_in_the_third_task():
        nonlocal steps
        steps += 1
        if steps == 45:
            raise Stopped

    population = assemble(images, list(STRONG.values()), SEEDS)
    comparison, complete = demo.train(population, tuple(STRONG), SEEDS, TASKS, on_step=stop_in_the_third_task)
    assert not complete
    assert steps == 45
    assert isinstance(comparison, Comparison)
    np.testing.assert_array_equal(comparison.loss, together.loss[:2])
    population = assemble(images, list(STRONG.values()), SEEDS)
    assert demo.train(population, tuple(STRONG), SEEDS, TASKS, on_step=_stop) == (None, False)


def _stop():
    raise Stopped


def test_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with demo.stops_on_interrupt() as check:
        check()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with demo.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
