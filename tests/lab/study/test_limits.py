"""Sizes that no machine holds are refused at once, with the number and the limit, before anything is made of them."""

from __future__ import annotations

import re
import shutil
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_runs import run as command
from cli_runs import words

from supple.lab import limits
from supple.lab.nn import StackedMLP
from supple.lab.nn.architecture import Architecture
from supple.lab.study.manifest import Manifest
from supple.lab.study.results import MANIFEST
from supple.lab.study.schema import ClassIncremental, Transformer
from supple.lab.study.spec import from_dict

STUDY = """
title = "large"
[problem]
data = "mnist10k"
[network]
hidden = 10
[run]
tasks = 2
seeds = 2
[methods.base]
[methods.swr]
frequency = 16
"""
CLASSES = """
title = "large"
[problem]
kind = "class_incremental"
data = "fashion_mnist"
[network]
patch_size = 7
[run]
tasks = 2
seeds = 2
[methods.base]
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (STUDY, "seeds = 2", "seeds = 1000000000000", "1,000,000,000,000 runs are more than"),
        (STUDY, "seeds = 2", f"seeds = 1{'0' * 40}", "runs are more than"),
        (STUDY, "tasks = 2", "tasks = 99999999999", "tasks is 99999999999: the results of at most"),
        (STUDY, "hidden = 10", "hidden = 10000000000", "hidden is 10,000,000,000; no machine holds more than"),
        (STUDY, "hidden = 10", "hidden = 1000000000", "one network with its results takes .* more than the"),
        (STUDY, "hidden = 10", "depth = 900000000\nhidden = 1", "one network with its results takes .* more than the"),
        (STUDY, "frequency = 16", "".join(f"{name} = {list(range(1, 101))}\n" for name in ("frequency", "a", "b", "c")),
         "200,000,002 runs are more than"),
        (STUDY, '[network]', "batch_size = 1000000000000\n[network]", "batch_size is 1,000,000,000,000; no machine"),
        (CLASSES, "patch_size = 7", "patch_size = 7\ndepth = 900000000", "one network with its results takes .* MB"),
        (CLASSES, "patch_size = 7", "patch_size = 7\nwidth = 900000000", "network: it is larger than any memory|takes"),
        (CLASSES, "patch_size = 7", "patch_size = 7\nheads = 100000000000", "heads is 100,000,000,000; no machine"),
        (CLASSES, "[network]", "epochs = 1000000000\n[network]", "one network with its results takes .* MB"),
    ],
)  # fmt: skip
def test_sizes_that_no_machine_holds(tmp_path: Path, text: str, old: str, new: str, said: str) -> None:
    study = tmp_path / "large.toml"
    assert old in text
    study.write_text(text.replace(old, new))
    began = time.perf_counter()
    result = command("plan", study)
    assert result.exit_code == 1
    assert re.search(said, words(result)), words(result)
    if text == STUDY:  # of the other there are no images here
        result = command("run", study, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert re.search(said, words(result))
        assert not (tmp_path / "out" / MANIFEST).exists()
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize("options", [("--seeds", 10**12), ("--tasks", 10**12), ("--seeds", 100_000, "--tasks", 2)])
def test_a_demo_that_no_machine_holds(tmp_path: Path, options: tuple[object, ...]) -> None:
    result = command("demo", "--out", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert re.search(r"runs are more than|the results of at most|more than the [\d,]+ MB", words(result))


def test_results_that_no_disk_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "large.toml"
    study.write_text(STUDY)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    result = command("run", study, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "the results of 8 tasks of all runs together take about 0.0 GB, more than the 0.0 GB" in words(result)


@pytest.mark.parametrize("options", [{}, {"layer_norm": "before"}, {"layer_norm": "after", "activation": "crelu"}])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_parameters_are_counted_without_making_them(depth: int, options: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"inputs": 7, "hidden": 6, "outputs": 3, "depth": depth, **options}
    made = sum(parameter.numel() for parameter in StackedMLP([0], **sizes).parameters())
    assert Architecture(**sizes).parameter_count == made
    problem = ClassIncremental(kind="class_incremental", data="fashion_mnist")
    transformer = Transformer(patch_size=7, depth=depth, heads=2, width=8, hidden=12)
    network = transformer.network(problem, 0)
    assert transformer.parameter_count(problem) == sum(parameter.numel() for parameter in network.parameters())


def test_what_is_known_of_a_run_takes_no_more_than_said() -> None:
    """Of runs that have settings of their own, as in a grid, and of those that share them."""
    for points, seeds in ((100, 1), (1, 100)):
        grid = {"swr": {"factor": [1e-6 * (k + 1) for k in range(points)]}}
        content = {"title": "grid", "run": {"tasks": 1, "seeds": seeds}, "methods": grid}
        tracemalloc.start()
        study = from_dict(content, "grid")
        manifest = Manifest(Path(), "grid", study, [1], {}, {})
        manifest.add_missing(study.columns, study.run.seeds, lambda column, seeds, columns: 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * limits.RUN_RECORDS
