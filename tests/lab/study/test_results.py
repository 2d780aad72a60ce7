"""Reading results, small copies of them, and the results of real runs that are kept in the repository."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from cli_runs import run as command
from cli_runs import words
from small_studies import study

import supple.lab
from supple.lab.study import files, running
from supple.lab.study.results import (
    ADDITIONS_SCHEMA,
    DISTURBANCES_SCHEMA,
    EPOCHS_SCHEMA,
    TASKS,
    TASKS_SCHEMA,
    export,
    scan,
)
from supple.lab.study.run_config import RunConfig
from supple.lab.study.spec import from_dict

KEPT = Path(__file__).parents[3] / "results"
TABLES = ("runs", "tasks", "disturbances", "epochs")


def config(folder: Path) -> RunConfig:
    # Networks of another size are trained in a part of their own.
    methods = {"base": {"network": {"hidden": 6}}, "swr": {"frequency": 5, "factor": 0.05}}
    problem = {"data": "mnist10k", "batch_size": 500}
    tiny = study(methods, problem=problem, run={"tasks": 2, "seeds": [4, 7]})
    original = from_dict({**tiny.model_dump(mode="json"), "run": {"tasks": 9, "seeds": [4, 7]}}, "tiny.toml")
    return RunConfig(tiny, "tiny", folder, original, processes=1, command="supple run tiny.toml --tasks 2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, thread_workers: None) -> Path:
    folder = tmp_path_factory.mktemp("run") / "tiny"
    assert running.run(config(folder)).complete
    return folder


def same(one: supple.lab.Results, other: supple.lab.Results) -> bool:
    return all(
        getattr(one, name).equals(getattr(other, name)) and getattr(one, name).schema == getattr(other, name).schema
        for name in TABLES
    ) and all(
        value == getattr(other, name) for name, value in vars(one).items() if name not in ("runs", "tables", "folder")
    )


def test_what_a_folder_says(folder: Path) -> None:
    results = supple.lab.load(folder)
    assert results.name == "tiny"
    assert results.study == config(folder).study
    assert results.study.run.seeds == (4, 7)
    assert results.steps == (20, 20)
    assert results.images.count == 10_000
    assert results.scaled == {"tasks": (9, 2)}
    (session,) = results.sessions
    assert session.command == "supple run tiny.toml --tasks 2"
    assert session.processes == 1
    assert session.machine.device == "CPU"
    assert session.versions["supple"] == supple.__version__


def test_the_rows_of_all_parts_are_one_table(folder: Path) -> None:
    results = supple.lab.load(folder)
    assert set(results.runs["part"]) == {0, 1}
    assert results.tasks.select("run", "task").rows() == [(run, task) for run in range(4) for task in range(2)]
    assert results.tasks.schema == pl.Schema(TASKS_SCHEMA)
    parts = [pl.read_parquet(folder / "parts" / part / "tasks.parquet") for part in ("0000", "0001")]
    assert results.tasks.equals(pl.concat(parts).sort("run", "task"))
    assert len(results.disturbances)
    assert results.disturbances.schema == pl.Schema(DISTURBANCES_SCHEMA)
    assert results.epochs.is_empty()
    assert results.epochs.schema == pl.Schema(EPOCHS_SCHEMA)


def test_tables_can_be_left_in_their_files(folder: Path) -> None:
    assert same(scan(folder), supple.lab.load(folder))
    late = scan(folder).tables[TASKS].filter(pl.col("task") == 1).group_by("run").agg(pl.mean("accuracy")).collect()
    assert len(late) == 4


def test_a_copy_holds_the_same(folder: Path, tmp_path: Path) -> None:
    results = export(folder, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "manifest.json", "runs.parquet", "tasks.parquet", "disturbances.parquet", "digests.json"
    }  # fmt: skip
    assert same(supple.lab.load(folder), results)
    assert same(supple.lab.load(tmp_path), results)


def test_a_copy_of_an_unfinished_run(folder: Path, tmp_path: Path) -> None:
    begun = shutil.copytree(folder, tmp_path / "begun")
    shutil.rmtree(begun / "parts" / "0001")
    export(begun, tmp_path / "copy")
    results = supple.lab.load(tmp_path / "copy")
    assert same(results, supple.lab.load(begun))
    assert dict(results.runs.select("part", "done").unique().iter_rows()) == {0: 2, 1: 0}


def test_an_earlier_copy_is_replaced_and_a_run_is_not(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    export(KEPT / "sweep_small", tmp_path / "copy")
    assert same(supple.lab.load(tmp_path / "copy"), supple.lab.load(KEPT / "sweep_small"))
    with pytest.raises(ValueError, match="holds results that supple run goes on from; give another folder"):
        export(tmp_path / "copy", folder)
    assert supple.lab.load(folder).name == "tiny"


def test_a_copy_for_other_programs(folder: Path, tmp_path: Path) -> None:
    result = command("export", folder, tmp_path, "--csv")
    assert result.exit_code == 0, result.output
    results = supple.lab.load(tmp_path)
    assert same(results, supple.lab.load(folder))
    with open(tmp_path / "tasks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(results.tasks["accuracy"].to_list())
    with open(tmp_path / "disturbances.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    changes = [[float(number) for number in row["mean_change"].split()] for row in rows]
    for found, expected in zip(changes, results.disturbances["mean_change"], strict=True):
        assert found == pytest.approx(expected.to_list(), rel=1e-5)
    export(folder, tmp_path)
    assert not list(tmp_path.glob("*.csv"))


def test_pandas(folder: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    results = supple.lab.load(folder)
    frame = results.tasks.to_pandas().merge(results.runs.to_pandas(), on="run")
    expected = results.tasks.join(results.runs, on="run").group_by("method").agg(pl.mean("accuracy"))
    assert frame.groupby("method")["accuracy"].mean().to_dict() == pytest.approx(dict(expected.iter_rows()))


def test_what_is_printed_and_shown_in_a_notebook(folder: Path, tmp_path: Path) -> None:
    results = supple.lab.load(folder)
    late = results.tasks.filter(pl.col("task") == 1).join(results.runs, on="run")
    page = ElementTree.fromstring(f"<page>{results._repr_html_()}</page>")
    cells = [cell.text or "" for cell in page.iter() if cell.tag in ("th", "td")]
    assert cells[:4] == ["method", "runs", "tasks", "accuracy in the last tenth"]
    for method in ("base", "swr"):
        accuracy = late.filter(pl.col("method") == method)["accuracy"].mean()
        assert [method, "2", "2 of 2", f"{accuracy:.1%}"] in [cells[k : k + 4] for k in range(0, len(cells), 4)]
    assert all(cell in repr(results) for cell in cells)
    begun = shutil.copytree(folder, tmp_path / "begun")
    shutil.rmtree(begun / "parts" / "0001")
    assert re.search(r"2 +0 of 2 +-$", repr(supple.lab.load(begun)), flags=re.MULTILINE)


def test_a_run_does_not_go_on_in_a_copy(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(ValueError, match=r"is a copy that supple export made, without the checkpoints .* --out"):
        running.run(config(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_a_manifest_without_a_study_is_damaged(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    for wrong in ({"study": {}}, {"study": {**manifest["study"], "networks": {}}}, {"sessions": [3]}):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **wrong}))
        with pytest.raises(ValueError, match=r"manifest.json is damaged"):
            supple.lab.load(copy)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    result = command("export", folder, tmp_path / "copy")
    assert result.exit_code == 0, result.output
    assert f"4 runs with 8 tasks in {tmp_path / 'copy'}, 0.0 MB" in words(result)
    assert same(supple.lab.load(tmp_path / "copy"), supple.lab.load(folder))
    result = command("export", tmp_path / "nothing", tmp_path / "other")
    assert result.exit_code == 1
    assert "holds no results" in words(result)


def test_the_laboratory_loads_what_it_needs_when_it_is_asked_for_it() -> None:
    code = "import sys, supple.lab; early = 'polars' in sys.modules; supple.lab.load; print(early)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(AttributeError, match="has no attribute 'unload'"):
        supple.lab.unload  # noqa: B018


@pytest.mark.parametrize(
    ("name", "runs", "tasks"),
    [
        ("small", 60, 1000),
        ("small_layer_norm", 60, 1000),
        ("large", 30, 100),
        ("large_layer_norm", 30, 100),
        ("sweep_small", 108, 100),
        ("incremental_regular", 35, 5),
        ("incremental_reparameterized", 35, 5),
    ],
)
def test_the_results_that_are_kept(name: str, runs: int, tasks: int) -> None:
    results = supple.lab.load(KEPT / name)
    assert results.runs["done"].to_list() == [tasks] * runs
    assert results.study.run.tasks == tasks
    added = results.study.problem.kind == "class_incremental"
    assert results.tasks.schema == pl.Schema(ADDITIONS_SCHEMA if added else TASKS_SCHEMA)
    assert results.epochs.is_empty() != added
    assert results.tasks["accuracy"].is_between(0, 1).all()
    assert set(files.digests(KEPT / name) or {}) == {path.name for path in (KEPT / name).iterdir()} - {files.DIGESTS}


def test_what_is_kept_is_small() -> None:
    assert sum(path.stat().st_size for path in KEPT.rglob("*") if path.is_file()) < 12e6


def test_the_code_beside_them_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(KEPT.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (KEPT / "README.md").read_text(), flags=re.DOTALL)
    exec(code, {})
    assert "swr" in capsys.readouterr().out
