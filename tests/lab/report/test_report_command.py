"""supple report end to end: what it prints and writes, what it says when it cannot, and that the page opens."""

import csv
import errno
import json
import re
from pathlib import Path

import pytest
from cli_runs import run, words, write_images
from fake_results import Row, write
from pages import CHROMIUM, Page, opened

from supple.lab.report.page import FORMATS, USUAL
from supple.lab.study import results as form

ROWS = [
    Row("base", 0.9, 0.8),
    Row("cbp", 0.9, 0.88, disturbance=0.2),
    Row("redo", 0.9, 0.87, disturbance=0.1, diverged=(1,)),
    Row("swr", 0.9, 0.92, disturbance=0.01, grid=[({"factor": 10.0**-k}, -0.01 * abs(k - 5)) for k in (4, 5, 6)]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("results") / "small", ROWS, tasks=40, seeds=6)


@pytest.fixture(scope="module")
def finished(folder):
    """A report of one folder, in its own place."""
    result = run("report", folder)
    assert result.exit_code == 0, result.output
    return result, folder / "report"


def test_it_writes_a_page_figures_and_tables(finished):
    result, out = finished
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    figures = {f"figures/small-{name}.svg" for name in ("accuracy", "correlates", "disturbances", "sweep-swr")}
    kinds = ("md", "tex", "csv")
    tables = {f"tables/{name}.{kind}" for name in ("claims", "small-methods", "small-sweeps") for kind in kinds}
    assert written == {"report.html", *figures, *tables}
    assert str(out / "report.html") in result.output.replace("\n", "")
    said = words(result)
    assert "The accuracy of plain training fell" in said
    assert "C1 supported" in said
    assert "1 of 36 runs diverged" in said
    assert "\x1b" not in result.output
    with (out / "tables" / "small-methods.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["base", "cbp", "redo", "swr"]


def test_the_page_stands_alone_and_says_what_was_run(finished):
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.loads
    assert all(value.startswith("data:") for value in page.loads)
    assert "@import" not in html
    assert not re.search(r"url\((?!data:)", html)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    for said in (
        "The accuracy of plain training fell",
        "60,000 images a task: MNIST",
        "3 hidden layers of 10, ReLU",
        "SGD, step size 0.05, batches of 30",
        "40 tasks of 2,000 steps: 80,000 steps a network",
        "36, 6 seeds a method",
        "Linux, x86_64, 2 cores, cpu",
        "supple 0.1.0, torch 2.13.0",
        "supple run permuted_mnist/small",
        "the best of 3 settings",
        "40 of the paper's 1,000 tasks",
        "SWR: best of 3 settings, each seed at the one that other seeds chose",
        "ReDo: 1 of 6 runs diverged",
        "SWR, CBP and ReDo in the large network: supple run permuted_mnist/large",
    ):
        assert said in page.said
    assert "Partial" not in page.said
    assert "nan" not in page.said


@pytest.mark.slow
def test_several_folders_share_a_page(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    large = write(tmp_path / "large", ROWS, name="permuted_mnist/large", tasks=40, network={"hidden": 100})
    other = write(tmp_path / "again", ROWS[:2], tasks=40, part_runs=6, done={0: 40})
    result = run("report", folder, large, other, folder, "--formats", "html")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "supple-report").iterdir()] == ["report.html"]
    page = Page((tmp_path / "supple-report" / "report.html").read_text(encoding="utf-8"))
    assert {"small", "large", "small-2"} <= set(page.ids)
    assert "#small-2" in page.links
    assert "Not finished: The study permuted_mnist/small." in page.said
    assert "This is about the 6 runs that have learned all tasks; 6 others are not so far yet." in page.said
    assert "Of 7 claims of arXiv 2508.00212 these runs support" in page.said
    assert "C3 " in page.said


@pytest.mark.parametrize("done", [12, {0: 40, 1: 3}])
def test_an_unfinished_study_gives_a_partial_report(tmp_path, done):
    folder = write(tmp_path / "results", ROWS[:3], tasks=40, seeds=6, done=done)
    result = run("report", folder, "--formats", "html", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Partial: This is about the" in words(result)
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "Partial. This is about the" in page.said
    assert "To go on supple run permuted_mnist/small" in page.said


@pytest.mark.slow
@pytest.mark.parametrize("formats", ["png, PDF,md", "md"])
def test_other_formats(tmp_path, formats):
    folder = write(tmp_path / "results", ROWS[:2], tasks=20, seeds=3)
    result = run("report", folder, "--out", tmp_path / "out", "--formats", formats)
    assert result.exit_code == 0, result.output
    written = {path.suffix[1:] for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == set(formats.lower().replace(" ", "").split(","))
    assert "(Student's)" in (tmp_path / "out" / "tables" / "small-methods.md").read_text(encoding="utf-8")
    assert "tables" in words(result)


def test_one_method_with_one_seed_and_two_tasks(tmp_path):
    folder = write(tmp_path / "results", ROWS[1:2], tasks=2, seeds=1)
    result = run("report", folder, "--formats", "html")
    assert result.exit_code == 0, result.output
    assert "One seed gives no interval" in words(result)
    assert "nan" not in words(result)


def test_errors_say_what_to_do(tmp_path):
    def said(*arguments):
        result = run("report", *arguments)
        assert result.exit_code in (1, 2)
        assert "Traceback" not in result.output
        return words(result)

    assert "holds no results: there is no manifest.json in it; supple run makes such folders" in said(tmp_path)
    empty = write(tmp_path / "empty", ROWS, done=0)
    text = said(empty)
    assert "holds no task that was learned to its end yet; let it go on with: supple run permuted_mnist/small" in text
    assert not (empty / "report").exists()
    other = write(tmp_path / "other", ROWS, tasks=4, seeds=1)
    manifest = json.loads((other / form.MANIFEST).read_text())
    (other / form.MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    assert "holds results of format 99" in said(other)
    assert "there is no format 'jpg'; give some of html, svg" in said(empty, "--formats", "jpg")
    assert "names no format" in said(empty, "--formats", ",")
    fine = write(tmp_path / "fine", ROWS, tasks=4, seeds=1)
    (tmp_path / "file").write_text("in the way")
    assert "give another folder with --out" in said(fine, "--out", tmp_path / "file" / "out")


def test_a_full_disk_leaves_the_report_that_was_there(folder, tmp_path, monkeypatch):
    """The disk fills up before the last file; there is no other limit of the space that a report takes."""
    out = tmp_path / "out"
    assert run("report", folder, "--out", out, "--formats", "csv").exit_code == 0
    (out / "mine.txt").write_text("kept")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    real = Path.write_bytes

    def full(path, content):
        if path.name == "small-sweeps.csv":
            real(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run("report", folder, "--out", out, "--formats", "csv")
    assert result.exit_code == 1
    assert words(result).endswith(f"Error: cannot write into {out}: No space left on device")
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert {path.name for path in out.iterdir()} == {path.relative_to(out).parts[0] for path in before}
    assert run("report", folder, "--out", out, "--formats", "csv").exit_code == 0
    assert (out / "mine.txt").read_text() == "kept"


def test_help_has_an_example():
    result = run("report", "--help")
    assert result.exit_code == 0
    assert "supple report supple-results/permuted_mnist/small" in words(result)
    assert set(USUAL) <= set(FORMATS)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "wide"), [(1000, 4), (375, 0)])
def test_the_page_opens(finished, tmp_path, width, wide):
    """All four figures show, the wide ones only where there is room, and nothing is wider than the window."""
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    title = opened(html, tmp_path, width)
    assert title == f"supple report: The study permuted_mnist/small {width} true 4 4 {wide}"


@pytest.mark.slow
def test_what_supple_run_wrote_can_be_reported(tmp_path):
    """The results that other tests make up have the columns of real ones."""
    study = tmp_path / "tiny.toml"
    study.write_text(
        'title = "Tiny"\n[network]\nhidden = 5\nlayer_norm = "after"\n[run]\ntasks = 3\nseeds = 2\n'
        "[measure]\nexamples = 60\ndisturbances = 2\n[methods.base]\n"
        "[methods.swr]\nfrequency = [1, 2]\nfactor = 0.1\n[methods.tanh]\nkind = 'base'\nnetwork.activation = 'tanh'\n"
    )
    data = write_images(tmp_path)
    options = ("--out", tmp_path / "results", "--data-dir", data, "--no-verify", "--processes", 1)
    result = run("run", study, *options)
    assert result.exit_code == 0, result.output
    result = run("report", tmp_path / "results")
    assert result.exit_code == 0, result.output
    page = Page((tmp_path / "results" / "report" / "report.html").read_text(encoding="utf-8"))
    assert "240 images a task: " in page.said
    assert "3 hidden layers of 5, ReLU, layer norm after the activation" in page.said
    assert "the best of 2 settings" in page.said
    assert {"tiny-accuracy", "tiny-correlates", "tiny-disturbances", "tiny-sweep-swr"} <= set(page.ids)
    real = form.load(tmp_path / "results")
    made_up = form.load(write(tmp_path / "made-up", ROWS, tasks=3, seeds=2))
    assert real.tasks.collect_schema() == made_up.tasks.collect_schema()
    assert real.disturbances.collect_schema() == made_up.disturbances.collect_schema()
    assert set(dict(form.read_manifest(made_up.folder))) <= set(dict(form.read_manifest(real.folder)))
