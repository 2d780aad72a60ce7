"""The demo end to end: what it prints and writes."""

import os
import re
import subprocess
import sys

import pytest
from cli_runs import read, run, words, write_images
from pages import CHROMIUM, Page, opened

import supple
from supple.lab import data, demo
from supple.lab.commands.demo import FILES
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.optim import SGDW

TASKS, SEEDS = 4, 2
METHODS = ("base", "l2", "shrink_and_perturb", "cbp", "redo", "swr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A demo of all methods: its result, and the folder it wrote."""
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    options = ("--tasks", TASKS, "--seeds", SEEDS, "--data-dir", folder, "--no-verify", "--out", out)
    result = run("demo", *options)
    assert result.exit_code == 0, result.output
    return result, out


def test_demo_writes_everything(finished):
    result, out = finished
    assert {path.name for path in out.iterdir()} == {"report.html", "accuracy.png", "accuracy.svg", "results.csv"}
    assert all(path.stat().st_size > 500 for path in out.iterdir())
    assert (out / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    for path in out.iterdir():
        assert str(path) in result.output.replace("\n", "")
    assert "The accuracy of plain training" in words(result)
    assert "network steps/s" in words(result)
    assert "\x1b" not in result.output
    assert "Replaced" not in result.output
    assert "12 networks, 2 for each of base, l2" in words(result)
    assert "4 tasks of 8 steps." in words(result)


@pytest.mark.parametrize("method", METHODS)
def test_csv_holds_what_each_method_gives_alone(folder, finished, method):
    rows = read(finished[1])
    assert len(rows) == TASKS * len(METHODS) * SEEDS
    network = StackedMLP(range(SEEDS), 64, hidden=10)
    optimizer = SGDW(network.parameters(), lr=0.05)
    alone = {
        "base": lambda: None,
        "l2": lambda: supple.L2(network, l2=1e-4),
        "shrink_and_perturb": lambda: supple.ShrinkAndPerturb(network, l2=1e-4, variance=1e-9),
        "cbp": lambda: supple.CBP(network, optimizer, maturity=5, replacement_rate=1e-3),
        "redo": lambda: supple.ReDo(network, optimizer, frequency=8, threshold=1e-2),
        "swr": lambda: supple.SWR(network, optimizer, frequency=2048, factor=1e-6),
    }[method]()
    stream = PermutedStream(data.load("mnist", folder, verify=False), range(SEEDS))
    population = Population(network, optimizer, stream, alone)
    for task in range(TASKS):
        metrics = population.train_task(task)
        for seed in range(SEEDS):
            wanted = {"task": str(task + 1), "method": method, "seed": str(seed)}
            (row,) = (row for row in rows if wanted.items() <= row.items())
            assert float(row["accuracy"]) == pytest.approx(metrics.accuracy[seed].item(), abs=1 / 240)
            assert float(row["loss"]) == pytest.approx(metrics.loss[seed].item(), rel=1e-3)
            assert float(row["dead_share"]) == pytest.approx(metrics.dead[seed].item())
            assert int(row["reinitialized"]) == metrics.reinitialized[seed].item()


def test_report_stands_alone_and_says_what_was_run(finished):
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.loads
    assert all(value.startswith("data:") for value in page.loads)
    assert len(set(page.ids)) == len(page.ids)
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    for said in (
        "The accuracy of plain training",
        "3 hidden layers of 10, ReLU",
        "4 tasks of 8 steps",
        "files in the form of MNIST, not compared with it",
        "supple demo: permuted images",
        "supple demo --tasks 4 --seeds 2 --data-dir",
        "--no-verify",
        "frequency 2048, factor 1e-6",
        "method.step()",
        supple.__version__,
    ):
        assert said in page.said
    assert "Partial" not in page.said
    assert "What the paper claims" not in page.said


@pytest.mark.slow
def test_ctrl_c_reports_what_was_learned(folder, tmp_path, monkeypatch):
    train = demo.train

    def interrupted(config, problem, watcher, stop):
        stage = watcher.stage

        def stopping(part, done, accuracy):
            stage(part, done, accuracy)
            if done == 2:
                stop.set()

        monkeypatch.setattr(watcher, "stage", stopping)
        return train(config, problem, watcher, stop)

    monkeypatch.setattr(demo, "train", interrupted)
    options = ("--data-dir", folder, "--no-verify", "--tasks", 5, "--seeds", 1, "--methods", "SWR")
    result = run("demo", *options, "--out", tmp_path)
    assert result.exit_code == 130
    assert "stopped after 2 of 5 tasks" in words(result)
    assert "The demo does not resume" in words(result)
    assert "One seed gives no interval" in words(result)
    rows = read(tmp_path)
    assert {(row["task"], row["method"]) for row in rows} == {(t, m) for t in "12" for m in ("base", "swr")}
    said = Page((tmp_path / "report.html").read_text(encoding="utf-8")).said
    assert "Partial. The run was stopped after 2 of 5 tasks, and this report is about those only." in said
    assert "The demo does not resume: the same command starts again from the first task." in said
    assert "To go on supple demo --tasks 5" in said


def test_stopping_before_there_is_anything_to_report_leaves_an_earlier_report_alone(folder, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("earlier")
    train = demo.train

    def interrupted(config, problem, watcher, stop):
        stop.set()
        return train(config, problem, watcher, stop)

    monkeypatch.setattr(demo, "train", interrupted)
    result = run("demo", "--data-dir", folder, "--no-verify", "--out", tmp_path)
    assert result.exit_code == 130
    assert "nothing was written. The demo does not resume" in words(result)
    assert (tmp_path / "report.html").read_text() == "earlier"


def test_an_earlier_report_is_replaced_and_nothing_else(folder, tmp_path):
    (tmp_path / "results.csv").write_text("earlier")
    (tmp_path / "notes.txt").write_text("mine")
    options = ("--data-dir", folder, "--no-verify", "--tasks", 2, "--seeds", 1, "--methods", "l2")
    result = run("demo", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"Replaced the earlier report in {tmp_path}:" in result.output
    assert len(read(tmp_path)) == 4
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "notes.txt"}


@pytest.mark.slow
def test_demo_with_a_standard_output_of_ascii(folder, tmp_path):
    program = "import sys; from supple.lab.cli import main; main()"
    options = ("--data-dir", folder, "--no-verify", "--tasks", "2", "--seeds", "2", "--methods", "l2")
    done = subprocess.run(
        [sys.executable, "-c", program, "demo", *options, "--out", tmp_path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    said = done.stdout.decode("ascii")
    assert re.search(r"[0-9] \+- [0-9]", said)
    assert "?" not in said


@pytest.mark.cuda
def test_demo_on_a_gpu_agrees_with_the_cpu(folder, finished, tmp_path):
    """The first task, before rounding has grown: its loss is that of the run on the CPU."""
    options = ("--tasks", TASKS, "--seeds", SEEDS, "--data-dir", folder, "--no-verify", "--device", "cuda")
    result = run("demo", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    rows, wanted = read(tmp_path), read(finished[1])
    assert len(rows) == len(wanted)
    for row, other in zip(rows, wanted, strict=True):
        assert (row["task"], row["method"], row["seed"]) == (other["task"], other["method"], other["seed"])
        if row["task"] == "1":
            assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_report_fits_a_phone(finished, tmp_path):
    """At phone width nothing is wider than the screen, and the narrow figures show."""
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    assert opened(html, tmp_path, 375) == "supple demo: permuted images 375 true 2 2 0"
