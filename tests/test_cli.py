"""The commands end to end."""

import csv
import gzip
import re
import shutil
import struct
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

import supple
from supple import cli, commands, data, demo
from supple.nn import StackedMLP
from supple.optim import SGDW
from supple.population import Population
from supple.streams import PermutedStream

TASKS, SEEDS = 4, 2


def run(*arguments):
    return CliRunner().invoke(commands.app, [str(argument) for argument in arguments])


def words(result):
    """What was printed, without the frames and line breaks of the terminal."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of IDX files with 240 images of 8 x 8, in the files of MNIST."""
    whole = data.mnist10k()
    pixels, labels = whole.images[:240, 4:28:3, 4:28:3].numpy(), whole.labels[:240].numpy().astype(np.uint8)
    folder = tmp_path_factory.mktemp("data")
    images = struct.pack(">HBBIII", 0, 8, 3, *pixels.shape) + pixels.tobytes()
    (folder / "train-images-idx3-ubyte").write_bytes(images)
    packed = gzip.compress(struct.pack(">HBBI", 0, 8, 1, len(labels)) + labels.tobytes())
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(packed)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A demo of all methods: its result, and the folder it wrote."""
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    options = ("--tasks", TASKS, "--seeds", SEEDS, "--data-dir", folder, "--no-verify", "--out", out)
    result = run("demo", *options)
    assert result.exit_code == 0, result.output
    return result, out


def read(out):
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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


@pytest.mark.parametrize("method", list(demo.RECIPES))
def test_csv_holds_what_each_method_gives_alone(folder, finished, method):
    rows = read(finished[1])
    assert len(rows) == TASKS * len(demo.RECIPES) * SEEDS
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
    stream = PermutedStream(data.mnist(folder, verify=False), range(SEEDS))
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


class _Page(HTMLParser):
    """Collects what a page loads, its ids and its text."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.loads += [
            (tag, value) for name, value in attributes if name in ("src", "srcset", "href", "data", "poster")
        ]

    def handle_data(self, text):
        self.text.append(text)


def test_report_stands_alone_and_says_what_was_run(finished):
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    page = _Page(html)
    assert page.loads
    assert all(tag == "a" or value.startswith("data:") for tag, value in page.loads)
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    text = " ".join(" ".join(page.text).split())
    for said in (
        "The accuracy of plain training",
        "64-10-10-10-10",
        "4 tasks of 8 steps",
        "files in the form of MNIST, not compared with it",
        "supple demo: permuted images",
        "supple demo --tasks 4 --seeds 2 --data-dir",
        "--no-verify",
        "frequency 2048, factor 1e-06",
        "method.step()",
        supple.__version__,
    ):
        assert said in text
    assert "Partial" not in text


def test_ctrl_c_reports_what_was_learned(folder, tmp_path, monkeypatch):
    train = demo.train

    def interrupted(*arguments, on_step, **options):
        steps = 0

        def stop():
            nonlocal steps
            steps += 1
            if steps == 20:
                raise demo.Stopped
            on_step()

        return train(*arguments, on_step=stop, **options)

    monkeypatch.setattr(demo, "train", interrupted)
    options = ("--data-dir", folder, "--no-verify", "--tasks", 5, "--seeds", 1, "--methods", "SWR")
    result = run("demo", *options, "--out", tmp_path)
    assert result.exit_code == 130
    assert "stopped after 2 of 5 tasks" in words(result)
    assert "One seed gives no interval" in words(result)
    rows = read(tmp_path)
    assert {(row["task"], row["method"]) for row in rows} == {(t, m) for t in "12" for m in ("base", "swr")}
    assert "stopped after 2 of 5 tasks" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "swr,redoo"), "no method 'redoo'. Did you mean redo?"),
        (("--tasks", 1), "--tasks"),
        (("--seeds", 0), "--seeds"),
        (("--data", "cifar"), "fashion_mnist"),
        (("--data", "mnist10k", "--data-dir", "somewhere"), "mnist10k is part of supple"),
    ],
)
def test_bad_options(options, said, tmp_path):
    result = run("demo", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert said in words(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data-dir", "missing"), "neither train-images-idx3-ubyte nor"),
        (("--no-verify",), "verify=False"),
    ],
)
def test_data_that_is_not_there(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = () if "--data-dir" in options else ("--data", "mnist")
    result = run("demo", *options, *name)
    assert result.exit_code == 1
    assert said in words(result)
    assert "Traceback" not in result.output


def test_files_are_verified_unless_told_otherwise(folder, tmp_path):
    result = run("demo", "--data-dir", folder, "--out", tmp_path)
    assert result.exit_code == 1
    assert "is not MNIST's train-images-idx3-ubyte" in words(result)


def test_a_folder_that_cannot_be_written_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "train", lambda *arguments, **options: pytest.fail("training began"))
    (tmp_path / "file").write_text("in the way")
    result = run("demo", "--out", tmp_path / "file" / "folder")
    assert result.exit_code == 1
    assert "cannot write into" in words(result)
    assert "--out" in words(result)


def test_data_lists_and_fetches(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SUPPLE_DATA", str(tmp_path))
    result = run("data")
    assert result.exit_code == 0
    rows = [line.split() for line in result.output.splitlines() if line.strip()]
    assert [row[:3] for row in rows if row[0] in data.NAMES] == [
        ["mnist10k", "yes", "yes"],
        ["mnist", "no", "no"],
        ["fashion_mnist", "no", "no"],
    ]
    result = run("data", "fetch", "mnist", "--data-dir", folder)
    assert result.exit_code == 1
    assert "is not MNIST's" in words(result)
    assert "Traceback" not in result.output
    result = run("data", "fetch", "minst")
    assert result.exit_code == 2
    assert "mnist" in words(result)


def test_fetch_prints_the_paths(monkeypatch, tmp_path):
    asked = []

    def fetch(name, data_dir, *, verify):
        asked.append((name, data_dir, verify))
        return {"a": tmp_path / "a"}

    monkeypatch.setattr(data, "fetch", fetch)
    result = run("data", "fetch", "mnist")
    assert result.output.strip() == str(tmp_path / "a")
    assert asked == [("mnist", None, True)]


def test_unknown_errors_are_not_hidden(monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise ZeroDivisionError("a mistake in the program")

    monkeypatch.setattr(demo, "assemble", broken)
    assert isinstance(run("demo", "--out", tmp_path).exception, ZeroDivisionError)


@pytest.mark.parametrize("command", [(), ("demo",), ("data",), ("data", "fetch")])
def test_help_has_an_example(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert re.search(r"supple (demo|data)", result.output)


def test_version():
    assert run("--version").output.strip() == f"supple {supple.__version__}"


def test_import_leaves_the_study_extra_alone():
    extra = sorted(cli.EXTRA)
    program = f"import sys, supple, supple.cli; print([name for name in {extra} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_study_extra_it_says_what_to_install(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['supple']; from supple.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "supple[study]"' in done.stderr
    assert "Traceback" not in done.stderr


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_report_fits_a_phone(finished, tmp_path):
    """At phone width nothing is wider than the screen, and the narrow figure shows: 4.4 inches, 422 pixels."""
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    probe = (
        "<script>addEventListener('load', () => { const page = document.documentElement; document.title = "
        "[innerWidth, page.scrollWidth <= page.clientWidth, document.images[0].naturalWidth].join(' ') })</script>"
    )
    # Headless Chromium's windows have a least width; a frame can be as narrow as a phone.
    (tmp_path / "page.html").write_text(html.replace("</body>", f"{probe}</body>"), encoding="utf-8")
    (tmp_path / "phone.html").write_text(
        "<iframe src='page.html' width=375 height=800></iframe><script>addEventListener('load', () => setTimeout(() =>"
        " document.body.append(frames[0].document.title), 200))</script>"
    )
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files")
    waiting = ("--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    done = subprocess.run(
        [CHROMIUM, *options, *waiting, f"file://{tmp_path}/phone.html"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "375 true 422" in done.stdout
