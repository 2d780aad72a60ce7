"""A method of one's own in a study: a class in a file of the working directory, named package.module:Class."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from small_studies import study

from supple.lab.study import load, running
from supple.lab.study.assembly import groups
from supple.lab.study.errors import StudyError
from supple.lab.study.methods import settings_in_full
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import parse

MODULE = '''
import supple
from supple.methods.settings import About


class Halving(supple.L2):
    """Shrinks every parameter by half of a share, at every step."""

    about = About(
        name="halving", label="Halving", title="half of weight decay", colour="#777777", dark="#999999",
        strength=("share",), source="a test",
    )

    def __init__(self, model, optimizer=None, *, share: float = 0.5, **shared):
        super().__init__(model, optimizer, l2=share / 2, **shared)


class Always(Halving):
    """One that cannot be switched off."""

    about = About(
        name="always", label="Always", title="always on", colour="#777777", dark="#999999", strength=(),
        source="a test",
    )


class NoMethod:
    """Something else."""
'''

STUDY = """
title = "own"

[problem]
data = "mnist10k"
batch_size = 500

[network]
hidden = 6
depth = 2

[run]
tasks = {tasks}
seeds = 2

[measure]
examples = 100

[methods.base]

[methods.l2]
l2 = [0.01, 0.05]

[methods.mine]
kind = "my_methods:Halving"
share = [0.02, 0.1]
"""

# Nothing but the command itself puts the working directory on the path.
COMMAND = "import sys; sys.path[:] = filter(None, sys.path); from supple.lab.cli import main; main()"
ALONE = {**os.environ, "PYTHONSAFEPATH": "1"}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_methods.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "my_methods"
    sys.modules.pop("my_methods", None)


@pytest.mark.slow
def test_it_runs_as_a_method_of_the_package_does(module: str, tmp_path: Path, thread_workers: None) -> None:
    first = parse(STUDY.format(tasks=1), "own.toml")
    assert running.run(RunConfig(first, "own", tmp_path / "out", processes=1)).complete
    # The command goes on from what was learned.
    (tmp_path / "own.toml").write_text(STUDY.format(tasks=2))
    words = [sys.executable, "-c", COMMAND, "run", "own.toml", "--out", "out", "--processes", "1"]
    done = subprocess.run(words, capture_output=True, text=True, env=ALONE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = load(tmp_path / "out")
    runs = results.runs
    assert runs["done"].to_list() == [2] * 10
    assert runs["part"].n_unique() == 1
    assert runs.filter(method="mine")["kind"].unique().to_list() == ["my_methods:Halving"]
    assert runs.filter(method="mine")["share"].to_list() == [0.02, 0.1] * 2

    def measured(column: str, value: float | None) -> pl.DataFrame:
        chosen = runs.filter(pl.col(column) == value) if value else runs.filter(method="base")
        tasks = results.tasks.filter(pl.col("run").is_in(chosen["run"].implode()))
        return tasks.sort("run", "task").select("task", "accuracy", "loss", "weight_magnitude")

    for share in (0.02, 0.1):
        assert measured("share", share).equals(measured("l2", share / 2))
        assert not measured("share", share).equals(measured("base", None))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("my_methods:", "my_method:", "method 'my_method:Halving' cannot be imported: No module named 'my_method'"),
        (":Halving", ":Halfing", "method 'my_methods:Halfing' cannot be imported"),
        (":Halving", ":NoMethod", "'my_methods:NoMethod' is no supple.Method"),
        ("share =", "shar =", r"there is no setting 'shar'. Did you mean share\?"),
        ("0.1]", "3]", "l2 is 1.5"),
    ],
)
def test_mistakes_are_explained(module: str, old: str, new: str, said: str) -> None:
    assert STUDY.count(old) == 1
    with pytest.raises(StudyError, match=f"own.toml: methods.mine: {said}"):
        parse(STUDY.format(tasks=1).replace(old, new), "own.toml")


def test_what_cannot_be_switched_off_is_trained_alone(module: str) -> None:
    methods = {
        "base": {},
        "mine": {"kind": f"{module}:Halving"},
        "always": {"kind": f"{module}:Always", "share": [0.1, 0.2]},
        "swr": {},
    }
    assert [[column.method for column in group] for group in groups(study(methods).columns)] == [
        ["base", "mine", "swr"],
        ["always", "always"],
    ]


def test_its_settings_have_defaults(module: str) -> None:
    assert settings_in_full(f"{module}:Halving", {"share": 1}) == {"share": 1.0}
    assert settings_in_full(f"{module}:Halving", {}) == {"share": 0.5}


def test_a_name_without_a_module_is_one_of_the_package() -> None:
    with pytest.raises(
        StudyError, match=r"methods.mine: there is no 'mine'.*One of your own is named package.module:C"
    ):
        study({"mine": {}})


def test_a_method_that_needs_more_than_a_study_gives_is_refused():
    with pytest.raises(StudyError, match="dash needs the data so far"):
        study({"dash": {}})
