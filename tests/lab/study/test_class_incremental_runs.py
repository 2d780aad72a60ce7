"""Runs of added classes against the same training written out, and against themselves interrupted at any step."""

from __future__ import annotations

import itertools
import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_studies import killed_and_whole
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import supple
from supple.lab.commands import app
from supple.lab.data import LabelledImages
from supple.lab.data import load as read_images
from supple.lab.data.augmentation import Augmentation, channel_statistics
from supple.lab.nn import ResNet, ViT
from supple.lab.population.class_incremental import ClassIncrementalTraining
from supple.lab.streams import ClassIncrementalStream
from supple.lab.study import files, load
from supple.lab.study.class_incremental import ClassIncrementalProblem
from supple.lab.study.errors import StudyError
from supple.lab.study.part import Part, Stopped
from supple.lab.study.results import ADDITIONS_SCHEMA, CHECKPOINT, EPOCHS, EPOCHS_SCHEMA, TASKS
from supple.lab.study.spec import ClassIncrementalStudy, from_dict

METHODS: dict[str, dict[str, Any]] = {
    "base": {},
    "swr": {"frequency": 3, "factor": 0.05, "optimizer": {"weight_decay": 1e-5}},
    "cbp": {"maturity": 5, "replacement_rate": 0.02},
    "redo": {"frequency": 4, "threshold": 0.5},
    "shrink_and_perturb": {"l2": 0.0, "variance": 1e-6},
    "reset": {"parts": "head+momentum"},
}
CONTENT: dict[str, Any] = {
    "title": "tiny",
    "problem": {
        "kind": "class_incremental", "data": "mnist", "first": 4, "step": 3, "epochs": 2, "batch_size": 6,
        "validation": 4, "train_images": 12, "test_images": 3, "padding": 1, "rotation": 10.0,
    },
    "network": {"patch_size": 14, "depth": 1, "heads": 2, "width": 8, "hidden": 12},
    "optimizer": {"step_size": 0.05},
    "run": {"tasks": 3, "seeds": [4, 7]},
    "measure": {"examples": 20},
    "methods": METHODS,
}  # fmt: skip
STEPS = [2 * (classes * 8 // 6) for classes in (4, 7, 10)]
FILES = (EPOCHS, TASKS, CHECKPOINT)


def study(**tables: Any) -> ClassIncrementalStudy:
    content = {**CONTENT, **tables, "problem": {**CONTENT["problem"], **tables.get("problem", {})}}
    found = from_dict(content, "tiny.toml")
    assert isinstance(found, ClassIncrementalStudy)
    return found


def images(count: int, seed: int) -> LabelledImages:
    """Each class has a bright square in its own place, in noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 120, (count, 28, 28), generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    for picture, label in zip(pixels, labels.tolist(), strict=True):
        top, left = 14 * (label // 5), 5 * (label % 5)
        picture[top : top + 12, left : left + 5] += 130
    return LabelledImages(pixels.to(torch.uint8), labels, 10, "mnist")


TRAIN, TEST = images(200, 1), images(80, 2)


def problem(**changes: Any) -> ClassIncrementalProblem:
    one = study(problem=changes)
    return ClassIncrementalProblem(one, TRAIN, TEST)


def part(folder: Path, method: str, seed: int = 7) -> Part:
    column = next(column for column in study().columns if column.method == method)
    return Part(folder, 0, 5, [column], [seed], "class_incremental")


def contents(one: Part) -> list[bytes]:
    return [(one.folder / name).read_bytes() for name in FILES]


def first_of(some: LabelledImages, count: int) -> LabelledImages:
    """The first images of each class, one by one."""
    seen, chosen = [0] * some.classes, []
    for k, label in enumerate(some.labels.tolist()):
        seen[label] += 1
        if seen[label] <= count:
            chosen.append(k)
    return LabelledImages(some.images[chosen], some.labels[chosen], some.classes, some.name)


def written_out(method: str, seed: int) -> ClassIncrementalTraining:
    """The same training without any of a study."""
    train, test = first_of(TRAIN, 12), first_of(TEST, 3)
    stream = ClassIncrementalStream(
        train, test, seed, first=4, step=3, epochs=2, validation=4, batch_size=6
    )  # fmt: skip
    statistics = channel_statistics(stream.training.images)
    stream.augmentation = Augmentation(*statistics, flip=0.5, padding=1, degrees=(0.0, 10.0))
    network = ViT(
        10, image_size=28, channels=1, patch_size=14, depth=1, heads=2, width=8, hidden=12, dropout=0.1, seed=seed
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    acting = {
        "swr": lambda: supple.SWR(network, optimizer, frequency=3, factor=0.05, seed=seed),
        "cbp": lambda: supple.CBP(
            network, optimizer, maturity=5, replacement_rate=0.02, optimizer_state="keep", seed=seed
        ),
        "redo": lambda: supple.ReDo(network, optimizer, frequency=4, threshold=0.5, optimizer_state="keep", seed=seed),
        "shrink_and_perturb": lambda: supple.ShrinkAndPerturb(network, optimizer, l2=0.0, variance=1e-6, seed=seed),
    }
    make = acting.get(method)
    return ClassIncrementalTraining(
        network,
        optimizer,
        stream,
        make() if make else None,
        weight_decay=1e-5 if method == "swr" else 2e-6,
        reset=("head", "momentum") if method == "reset" else (),
        measured_on=20,
    )


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", METHODS)
def test_files_hold_what_the_training_measures(tmp_path: Path, method: str) -> None:
    one = part(tmp_path, method)
    one.train(problem(), 3)
    assert one.done == 3
    epochs, tasks = (pl.read_parquet(one.folder / name) for name in (EPOCHS, TASKS))
    assert dict(epochs.schema) == dict(EPOCHS_SCHEMA)
    assert dict(tasks.schema) == dict(ADDITIONS_SCHEMA)
    assert set(epochs["run"]) == set(tasks["run"]) == {5}
    reference = written_out(method, 7)
    found = [reference.train_epoch(epoch) for epoch in range(6)]
    for row, metrics in zip(epochs.iter_rows(named=True), found, strict=True):
        assert (row["task"], row["epoch"]) == (metrics.epoch // 2, metrics.epoch)
        for name in ("classes", "loss", "accuracy", "validation_loss", "test_loss", "test_accuracy", "reinitialized"):
            assert row[name] == pytest.approx(getattr(metrics, name), rel=1e-6), name
    acted = 0
    for row, first, last in zip(tasks.iter_rows(named=True), found[::2], found[1::2], strict=True):
        start, end = first.start, last.end
        assert start is not None
        assert end is not None
        expected = {
            "accuracy": end.test_accuracy, "loss": end.test_loss, "classes": last.classes,
            "validation_accuracy": end.validation_accuracy, "best_epoch": end.best_epoch,
            "dead": start.dormant_new, "rank": start.rank_new,
            "weight_magnitude": start.weight_magnitude, "scale_magnitude": start.scale_magnitude,
            "reinitialized": first.reinitialized + last.reinitialized,
        }  # fmt: skip
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
        assert row["dead_before"] == (None if not row["task"] else pytest.approx(start.dormant_before))
        assert row["rank_before"] == start.rank_before
        assert row["class_accuracy"] == pytest.approx(list(end.class_accuracy))
        acted += row["reinitialized"]
    assert (acted > 0) == (method in ("swr", "cbp", "redo"))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_from_the_state_of_the_training_written_out(method: str) -> None:
    """What a checkpoint holds is the state of network, optimizer and method, with nothing of a study around it."""
    reference = written_out(method, 7)
    reference.train_epoch(0)
    training = problem().training(part(Path(), method).columns[0], 7)
    training.load_state_dict(reference.state_dict())
    assert training.train_epoch(1).loss == reference.train_epoch(1).loss


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Part:
    one = part(tmp_path_factory.mktemp("whole"), "swr")
    one.train(problem(), 3)
    return one


@pytest.mark.slow
@settings(max_examples=6)
@given(st.lists(st.integers(1, sum(STEPS) - 1), min_size=1, max_size=3))
def test_interrupted_at_any_step_it_ends_with_the_same_files(
    whole: Part, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("interrupted")
    for stop in stops:
        count = itertools.count(1)

        def interrupt(task: int, step: int, count: itertools.count = count, stop: int = stop) -> None:  # type: ignore[type-arg]
            assert 1 <= step <= STEPS[task]
            if next(count) == stop:
                raise Stopped

        one = part(folder, "swr")
        try:
            one.train(problem(), 3, on_step=interrupt)
        except Stopped:
            assert not one.complete(3)
    one = part(folder, "swr")
    one.train(problem(), 3)
    assert contents(one) == contents(whole)


def test_more_tasks_later_are_as_if_at_once(whole: Part, tmp_path: Path) -> None:
    one = part(tmp_path, "swr")
    told: list[float] = []
    for tasks in (1, 1, 2, 3):
        one.train(problem(), tasks, on_stage=lambda done, accuracy: told.append(done))
        assert one.complete(tasks)
    assert told == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert contents(one) == contents(whole)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("written", range(5))
@pytest.mark.parametrize("stage", [0, 3])
def test_a_crash_between_two_writes(
    whole: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, stage: int
) -> None:
    """At each of the writes after an epoch, within a task or at its end: digests, two tables, checkpoint, digests."""
    one = part(tmp_path, "swr")
    real, count = files.replace, itertools.count()

    def crash(path: Path, data: bytes) -> None:
        if next(count) == 5 * stage + written:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr("supple.lab.study.part._SHARE", math.inf)  # so that it writes after each epoch
    monkeypatch.setattr("supple.lab.study.files.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        one.train(problem(), 3)
    monkeypatch.undo()
    assert not one.complete(3)
    one.train(problem(), 3)
    assert contents(one) == contents(whole)


def test_a_diverged_run_is_recorded(tmp_path: Path) -> None:
    wild = study(methods={"base": {"optimizer": {"step_size": 1e18}}})
    one = Part(tmp_path, 0, 0, wild.columns, [1], "class_incremental")
    one.train(problem(), 3)
    epochs, tasks = (pl.read_parquet(one.folder / name) for name in (EPOCHS, TASKS))
    assert len(epochs) == 6
    assert epochs["loss"].is_nan().all()
    assert tasks["accuracy"].to_list() == [0.0] * 3
    assert tasks["loss"].is_nan().all()
    assert tasks["class_accuracy"].list.len().to_list() == [0] * 3
    assert tasks["dead"].is_null().to_list() == [False, True, True]
    assert tasks["classes"].to_list() == [4, 7, 10]


def test_where_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supple.lab.study.part._SHARE", math.inf)  # so that it writes after each epoch
    one = part(tmp_path, "base")
    assert one.reached(2) == 0

    def stop(task: int, step: int) -> None:
        if (task, step) == (1, STEPS[1]):
            raise Stopped

    with pytest.raises(Stopped):
        one.train(problem(), 3, on_step=stop)
    assert (one.done, one.reached(2)) == (1, 1.5)


def test_seeds_whose_first_classes_are_too_few_for_a_batch() -> None:
    """With as many images of each class as there are, seeds differ."""
    one = problem(first=1, train_images=None, test_images=None, batch_size=14)
    enough = [seed for seed in range(40) if len(one_class(seed)) - 4 >= 14]
    short = [seed for seed in range(40) if len(one_class(seed)) - 4 < 14]
    assert enough
    assert short
    one.steps(2, enough)
    with pytest.raises(StudyError, match="problem: batch_size is 14"):
        one.steps(2, [enough[0], short[0]])


def one_class(seed: int) -> list[int]:
    """The images of the class that comes first."""
    stream = ClassIncrementalStream(TRAIN, TEST, seed, first=1, step=3, epochs=1, validation=1, batch_size=1)
    return [k for k, label in enumerate(TRAIN.labels.tolist()) if label == int(stream.order[0])]


def test_joined_parts_have_one_order() -> None:
    found = [c.settings["parts"] for c in study(methods={"reset": {"parts": ["mlp+head", "momentum"]}}).columns]
    assert found == ["head+mlp", "momentum"]
    with pytest.raises(StudyError, match="is there twice"):
        study(methods={"reset": {"parts": ["mlp+head", "head+mlp"]}})


def test_steps_of_each_task() -> None:
    assert problem().steps(3, [0]) == STEPS
    # The last addition brings what is left.
    assert problem(step=4).steps(3, [0, 1]) == [2 * (classes * 8 // 6) for classes in (4, 8, 10)]
    with pytest.raises(StudyError, match="problem: batch_size is 90"):
        problem(batch_size=90).steps(3, [0])


def test_products_of_a_step_are_those_torch_counts() -> None:
    """In training mode without dropout; torch counts two operations a multiply-add."""
    column = replace(study().columns[0], network=study().network.model_copy(update={"depth": 2, "dropout": 0.0}))
    training = problem().training(column, seed=0)
    x, y = next(iter(training.stream.epoch(0)))
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(training.network(x), y).backward()
    counted = counter.get_total_flops() / 2 / len(x) * study().problem.batch_size
    # How a backward pass of attention is done, and so whether it repeats the forward, is the kernel's choice.
    assert problem().multiply_adds(column) == pytest.approx(counted, rel=0.1)


def test_a_resnet_on_files_of_cifar(tmp_path: Path) -> None:
    """From the files to the report, on the command line; the numbers are those of the training without a study."""
    generator = np.random.default_rng(2)
    labels = np.repeat(np.arange(100), 4)
    pixels = generator.integers(0, 256, (400, 3072))
    records = np.column_stack([labels // 5, labels, pixels]).astype(np.uint8)
    (tmp_path / "train.bin").write_bytes(records.tobytes())
    (tmp_path / "test.bin").write_bytes(records[::2].tobytes())
    content = {
        **CONTENT,
        "problem": {"kind": "class_incremental", "first": 5, "step": 5, "epochs": 5, "batch_size": 3, "validation": 1},
        "network": {"kind": "resnet", "width": 2, "depth": 1},
        "optimizer": {"step_size": 0.1, "weight_decay": 5e-5, "schedule": "steps"},
        "run": {"tasks": 2, "seeds": [4]},
        "methods": {"base": {}, "reset": {}, "cbp": {"maturity": 5, "replacement_rate": 0.02}},
    }
    (tmp_path / "tiny.toml").write_text(to_toml(content))
    out = tmp_path / "out"
    command = ["run", str(tmp_path / "tiny.toml"), "--data-dir", str(tmp_path), "--no-verify", "--processes", "1"]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = load(out)
    train, test = (read_images("cifar100", tmp_path, chosen, verify=False) for chosen in (True, False))
    stream = ClassIncrementalStream(train, test, 4, first=5, step=5, epochs=5, validation=1, batch_size=3)
    network = ResNet(100, width=2, depth=1, seed=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    training = ClassIncrementalTraining(network, optimizer, stream, weight_decay=5e-5, schedule="steps", measured_on=20)
    expected = [training.train_epoch(epoch) for epoch in range(10)]
    plain = found.epochs.filter(run=0)
    assert plain["loss"].to_list() == pytest.approx([one.loss for one in expected])
    assert plain["test_loss"].to_list() == pytest.approx([one.test_loss for one in expected])
    dead = [one.start.dormant_new for one in expected if one.start is not None]
    assert found.tasks.filter(run=0)["dead"].to_list() == pytest.approx(dead)
    assert found.tasks.filter(run=2)["reinitialized"].sum() > 0
    report = CliRunner().invoke(app, ["report", str(out), "--out", str(tmp_path / "report")])
    assert report.exit_code == 0, report.output
    page = (tmp_path / "report" / "report.html").read_text()
    assert "residual network, 4 stages of 1 block, from 2 channels" in page
    assert "a fifth of the step size after 30, 60 and 80% of each addition" in page
    plan = CliRunner().invoke(app, ["plan", str(tmp_path / "tiny.toml"), "--processes", "1"])
    assert "4 x 1" in plan.output


def write_mnist(folder: Path) -> Path:
    folder.mkdir()
    for part, some in (("train", TRAIN), ("t10k", TEST)):
        for kind, tensor in (("images-idx3", some.images), ("labels-idx1", some.labels.byte())):
            head = struct.pack(f">BBBB{tensor.ndim}I", 0, 0, 8, tensor.ndim, *tensor.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + tensor.numpy().tobytes())
    return folder


def to_toml(content: dict[str, Any], place: str = "") -> str:
    """A study file of nested tables."""
    values = "".join(f"{k} = {json.dumps(v)}\n" for k, v in content.items() if not isinstance(v, dict))
    tables = [(f"{place}{k}", v) for k, v in content.items() if isinstance(v, dict)]
    return values + "".join(f"[{name}]\n{to_toml(table, f'{name}.')}" for name, table in tables)


@pytest.mark.slow
def test_killed_on_the_command_line_it_ends_with_the_same_files(tmp_path: Path) -> None:
    data_dir = write_mnist(tmp_path / "images")
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml({**CONTENT, "methods": {name: METHODS[name] for name in ("base", "swr", "reset")}}))

    one, other = killed_and_whole(file, tmp_path, "--data-dir", str(data_dir), "--no-verify")
    assert one == other
    assert len(one) == 6 * (len(FILES) + 1)  # and the digests
    results = load(tmp_path / "killed")
    assert results.runs["done"].to_list() == [3] * 6
    assert results.runs.filter(method="reset")["parts"].unique().to_list() == ["head+momentum"]
    assert list(results.steps) == STEPS
    assert len(results.epochs) == 6 * 6
    assert dict(results.tasks.collect_schema()) == dict(ADDITIONS_SCHEMA)
    assert results.disturbances.is_empty()


def test_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(to_toml(CONTENT))
    result = CliRunner().invoke(app, ["plan", str(file), "--epochs", "3", "--tasks", "2", "--processes", "1"])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    steps = sum(3 * (classes * 8 // 6) for classes in (4, 7))
    assert f"12 runs of {steps} steps, {12 * steps:,} network steps in all" in words
    assert "1 x 8" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": {"tasks": 4, "seeds": 1}}, r"run.tasks is 4, but 4 classes of mnist at first and 3 more .* 3 tasks"),
        ({"problem": {"first": 11}}, "problem: first is 11, but mnist has 10 classes"),
        ({"problem": {"train_images": 4}}, "problem: train_images is 4 and validation 4, which leaves nothing"),
        ({"problem": {"padding": 28}}, "problem: padding is 28; it has to be less than the 28 pixels of a side"),
        ({"problem": {"data": "mnist10k"}}, r"problem.data: there is no 'mnist10k'. Did you mean mnist\?"),
        ({"problem": {"epoch": 3}}, r"problem.epoch: there is no 'epoch'. Did you mean epochs\?"),
        ({"problem": {"kind": "incremental"}}, r"problem.kind: there is no 'incremental'. Did you mean class_incr"),
        ({"network": {"patch_size": 5}}, "network: patch_size is 5, which does not divide image_size, 28"),
        ({"network": {"hidden": [8, 16]}}, r"a grid belongs to a method, as in \[methods.base\] network.hidden"),
        ({"methods": {"base": {"network": {"heads": 5}}}}, r"methods.base.network: heads is 5, which does not divide"),
        ({"methods": {"reset": {"parts": "heads"}}}, r"methods.reset: parts: there is no 'heads'. Did you mean head\?"),
        ({"methods": {"reset": {"part": "head"}}}, r"methods.reset: there is no setting 'part'. Did you mean parts\?"),
        ({"optimizer": {"name": "adamw"}}, "optimizer.name: there is no 'adamw'"),
        ({"measure": {"disturbances": 1}}, "measure.disturbances: there is no 'disturbances'"),
        ({"methods": {"base": {"network": {"kind": ["resnet", "vit"]}}}}, "base.network.kind: all runs"),
        ({"network": {"kind": "resnt"}}, "network.kind is 'resnt': it has to be 'resnet'; leave it out for a vision"),
        ({"network": {"kind": "resnet", "widht": 3}}, r"network.widht: there is no 'widht'. Did you mean width\?"),
        ({"network": {"kind": "resnet", "width": "3"}}, "network.width is '3': Input should be a valid integer"),
        ({"network": {"kind": "resnet", "width": 0}}, "network: width is 0; it has to be 1 or more"),
        ({"network": {"kind": "resnet"}, "methods": {"reset": {"parts": "mlp"}}},
         "methods.reset: parts: there is no 'mlp'. .*There are network, head, momentum."),
        ({"optimizer": {"schedule": "step"}}, r"optimizer.schedule: there is no 'step'. Did you mean steps\?"),
        ({"optimizer": {"schedule": "steps", "cycle_momentum": True}}, "cycle_momentum is for the schedule 'one_cyc"),
        ({"network": 3}, "network is 3"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=rf"tiny.toml: .*{said}"):
        study(**changes)


def test_what_is_only_for_added_classes() -> None:
    content: dict[str, Any] = {"title": "tiny", "run": {"tasks": 2, "seeds": 1}, "methods": {"reset": {}}}
    with pytest.raises(StudyError, match=r"methods.reset: reset is for problems of kind 'class_incremental', but this"):
        from_dict(content, "tiny.toml")
    result = CliRunner().invoke(app, ["plan", "permuted_mnist/small", "--epochs", "3"])
    assert result.exit_code == 1
    assert "a task of permuted images is one pass over them" in " ".join(result.output.split())


def test_a_grid_may_be_over_anything_of_a_run() -> None:
    found = study(
        methods={
            "reset": {"parts": ["head", "mlp"]},
            "base": {"optimizer": {"weight_decay": [0.0, 1e-6]}, "network": {"reparameterized": [False, True]}},
        }
    )
    assert [column.settings.get("parts") for column in found.columns] == ["head", "mlp"] + [None] * 4
    keys = [column.key() for column in found.columns[2:]]
    assert {key["optimizer"]["weight_decay"] for key in keys} == {0.0, 1e-6}
    assert {key["network"]["reparameterized"] for key in keys} == {False, True}
