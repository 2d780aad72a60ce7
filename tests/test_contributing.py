"""The method that CONTRIBUTING.md adds is complete: a file in some folder is all it takes, everywhere."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from cli_runs import run
from torch import nn

import supple
from supple.lab.data import mnist10k
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study import load
from supple.methods import registry
from supple.optim import SGDW

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"

STUDY = """
title = "A method of one's own"
problem = { data = "mnist10k", batch_size = 500 }
network = { hidden = 6, depth = 2 }
run = { tasks = 3, seeds = 2 }
measure = { examples = 100 }

[methods.base]

[methods.random]
kind = "random_reset:RandomReset"
rate = [1e-3, 1e-1]
"""


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "random_reset.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("random_reset").RandomReset
    sys.modules.pop("random_reset")


def test_in_a_plain_loop(method: Any) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 3))

    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    random_reset = method(model, optimizer, rate=0.1, optimizer_state="fresh", exclude="*bias")
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
        random_reset.step()
    expected = 0.1 * 20 * sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert int(random_reset.reinitialized.total) == pytest.approx(expected, rel=0.1)
    again = method(build(), rate=0.1, exclude="*bias")
    again.load_state_dict(random_reset.state_dict())
    assert again.steps == 20


def test_with_settings_a_replica(method: Any) -> None:
    network = StackedMLP([0, 1], inputs=200, hidden=20)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    random_reset = method(network, rate=[0.0, 0.1])
    random_reset.step()
    weights = [(old, new) for old, new in zip(before, network.parameters(), strict=True) if new.ndim == 3]
    assert all(torch.equal(old[0], new[0]) for old, new in weights)
    changed = sum(int((old[1] != new[1]).sum()) for old, new in weights)
    entries = sum(old[1].numel() for old, _ in weights)
    assert 0.07 < changed / entries < 0.13
    assert random_reset.reinitialized.last[0] == 0
    assert random_reset.reinitialized.last[1] >= changed


def test_in_a_population(method: Any) -> None:
    images = mnist10k()
    networks = StackedMLP([0, 0], inputs=784, hidden=6, depth=2)
    optimizer = SGDW(networks.parameters(), lr=0.05)
    population = Population(
        networks,
        optimizer,
        PermutedStream(images, [0], batch_size=500),
        supple.chain(method(networks, optimizer, rate=[0.0, 0.05]), supple.L2(networks, l2=[1e-4, 0])),
        measured_on=100,
    )
    learned = population.train_task(0)
    assert learned.reinitialized[0] == 0
    assert learned.reinitialized[1] > 0
    assert learned.accuracy[0] > learned.accuracy[1] > 0.05


@pytest.mark.slow
def test_in_a_study_and_its_report(method: Any, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(STUDY)
    done = run("run", "own.toml", "--out", "results", "--processes", "1")
    assert done.exit_code == 0, done.output
    results = load(tmp_path / "results")
    counts = results.tasks.join(results.runs, on="run").group_by("rate").agg(pl.col("reinitialized").sum())
    found = dict(counts.select("rate", "reinitialized").iter_rows())
    assert found[None] == 0
    assert found[0.1] > 50 * found[1e-3] > 0
    done = run("report", "results", "--out", "report")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "report.html").read_text()
    assert method.about.title in page


def test_as_a_package_that_is_installed(method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    points = tomllib.loads(project)["project"]["entry-points"]["supple.methods"]
    installed = tmp_path / "supple_random_reset-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: supple-random-reset\nVersion: 0.1.0\n")
    lines = [
        f"{name} = {value}" for name, value in (points | {"gone": "nowhere:Mine", "no_method": "torch:nn"}).items()
    ]
    (installed / "entry_points.txt").write_text("\n".join(["[supple.methods]", *lines]))
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    with pytest.warns(UserWarning, match="of another package is left out") as said:
        registry._add_those_of_other_packages()
    assert registry.find("random_reset") is method
    assert ["nowhere:Mine" in str(one.message) for one in said] == [True, False]
    assert "'torch:nn' is no supple.Method" in str(said[1].message)
