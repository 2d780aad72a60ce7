from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from supple.metrics.loggers import History, writer

ROWS = [({"plasticity/dead": 0.5}, 10), ({"plasticity/dead": 0.25, "plasticity/rank": 3.0}, 20)]


class Recorder:
    """Keeps the arguments that it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []


class Board(Recorder):
    """As a SummaryWriter of TensorBoard."""

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, walltime: Any = None) -> None:
        self.calls.append((tag, scalar_value, global_step))


class Run(Recorder):
    """As a run of Weights & Biases."""

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.calls.append((data, step, commit))

    def define_metric(self, name: str, step_metric: str | None = None, **others: Any) -> None:
        self.calls.append((name, step_metric))


class Metrics(Recorder):
    """As the module mlflow, or a logger of Lightning."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.calls.append((metrics, step))


class Trainer(Recorder):
    """As a Trainer of transformers, which has a log_metrics of another kind."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.calls.append((logs, start_time))

    def log_metrics(self, split: str, metrics: dict[str, float]) -> None:
        raise AssertionError


class Several(Recorder):
    """As a Trainer of Lightning."""

    def __init__(self) -> None:
        self.loggers = [Metrics(), Board()]


def test_loggers_are_recognized_by_what_they_have() -> None:
    values, step = ROWS[1]
    names = list(values.items())
    calls = {
        Board: [(*one, step) for one in names],
        Run: [("plasticity/*", "plasticity/step"), ({**values, "plasticity/step": step}, None, None)],
        Metrics: [(values, step)],
        Trainer: [(values, None)],
    }
    for kind, expected in calls.items():
        log = kind()
        writer(log)(values, step)
        assert log.calls == expected
    several = Several()
    writer(several)(values, step)
    assert several.loggers[0].calls == calls[Metrics]
    assert several.loggers[1].calls == calls[Board]


def test_functions_are_told_the_step_if_they_take_it() -> None:
    found: list[Any] = []
    writer(found.append)({"a": 1.0}, 5)
    writer(lambda values, step: found.append((values, step)))({"a": 1.0}, 5)
    assert found == [{"a": 1.0}, ({"a": 1.0}, 5)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_grow_take_new_columns_and_keep_what_was_there(suffix: str, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path = tmp_path / "new" / f"watched{suffix}"
    for _ in range(2):  # the second time it goes on with the same file
        write = writer(path)
        for values, step in (*ROWS, ({"plasticity/dead": float("nan")}, 30)):
            write(values, step)
    table = polars.read_parquet(path) if suffix == ".parquet" else polars.read_csv(path)
    assert table["step"].to_list() == [10, 20, 30] * 2
    assert table["plasticity/rank"].to_list() == [None, 3.0, None] * 2
    dead = table["plasticity/dead"].cast(polars.Float64)
    assert dead.to_list()[:2] == [0.5, 0.25]
    assert dead.is_nan().to_list() == [False, False, True] * 2
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_no_row_is_lost_when_a_write_fails(suffix: str, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    path, away = tmp_path / "there" / f"watched{suffix}", tmp_path / "away"
    write = writer(path)
    write({"a": 1.0}, 1)
    path.parent.rename(away)
    with pytest.raises(OSError, match="there"):
        write({"a": 2.0}, 2)
    away.rename(path.parent)
    write({"a": 3.0}, 3)
    write({"a": 4.0}, 4)
    table = polars.read_parquet(path) if suffix == ".parquet" else polars.read_csv(path)
    assert table["step"].to_list() == [1, 2, 3, 4]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="has no column step"):
        writer(path)
    assert list(csv.reader(path.open())) == [["a", "b"], ["1", "2"]]
    with pytest.raises(ValueError, match=r"name it \.csv or \.parquet"):
        writer(tmp_path / "results.txt")


def test_a_history_is_a_list_and_a_frame() -> None:
    polars = pytest.importorskip("polars")
    history = History({"step": step, **values} for values, step in ROWS)
    frame = history.to_polars()
    assert frame.columns == ["step", "plasticity/dead", "plasticity/rank"]
    assert frame.schema["step"] == polars.Int64
    assert frame["plasticity/rank"].to_list() == [None, 3.0]


@pytest.mark.slow
def test_the_loggers_of_lightning(tmp_path: Path) -> None:
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    log = loggers.CSVLogger(tmp_path)
    write = writer(log)
    for values, step in ROWS:
        write(values, step)
    log.save()
    rows = list(csv.DictReader((Path(log.log_dir) / "metrics.csv").open()))
    assert [(row["step"], row["plasticity/dead"]) for row in rows] == [("10", "0.5"), ("20", "0.25")]


@pytest.mark.slow
def test_the_trainer_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    import torch

    import supple

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    class Watched(transformers.TrainerCallback):
        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any, optimizer: Any, **kwargs: Any
        ) -> None:
            self.watch = supple.watch(model.net, torch.randn(20, 4), optimizer=optimizer, every=2, log=trainer)

    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=2, report_to=[], use_cpu=True
    )
    data = [{"x": torch.randn(4), "labels": torch.tensor(1)}] * 8
    trainer = transformers.Trainer(Model(), arguments, train_dataset=data, callbacks=[Watched()])
    trainer.train()
    logged = [row["step"] for row in trainer.state.log_history if "plasticity/dead" in row]
    assert len(logged) == 2
