"""supple report on class-incremental folders end to end: what it prints and writes, and that the page opens."""

import csv

import pytest
from cli_runs import run, words
from compared import view_of
from fake_results import Row, ahead, write, write_additions
from pages import CHROMIUM, Page, opened

ROWS = [
    ahead("base", -0.10, dead=0.4),
    ahead("reset", 0.0),
    ahead("cbp", -0.03),
    ahead("redo", -0.03, diverged=(1,)),
    ahead("swr", 0.02, grid=[({"factor": 1e-4}, 0.0), ({"factor": 1e-3}, -0.05)]),
]
OPTIONS = {"additions": 6, "seeds": 4, "problem": {"epochs": 3}, "scaled": {"epochs": [100, 3], "tasks": [20, 6]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_additions(tmp_path_factory.mktemp("results") / "regular", ROWS, **OPTIONS)


@pytest.fixture(scope="module")
def finished(folder):
    result = run("report", folder)
    assert result.exit_code == 0, result.output
    return result, folder / "report"


def test_it_writes_a_page_figures_and_tables(finished):
    result, out = finished
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    names = ("accuracy", "additions", "classes", "dormant", "magnitudes", "sweep-swr")
    figures = {f"figures/regular-{name}.svg" for name in names}
    tables = {
        f"tables/{name}.{kind}"
        for name in ("claims", "regular-methods", "regular-sweeps")
        for kind in ("md", "tex", "csv")
    }
    assert written == {"report.html", *figures, *tables}
    said = words(result)
    assert "below the network trained from scratch on the same classes" in said
    assert "1 of 24 runs diverged (ReDo 1)." in said
    assert "C7 " in said
    with (out / "tables" / "regular-methods.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["base", "reset", "cbp", "redo", "swr"]


def test_the_page_says_what_was_run(finished):
    page = Page((finished[1] / "report.html").read_text(encoding="utf-8"))
    assert all(value.startswith("data:") for value in page.loads)
    assert len(set(page.ids)) == len(page.ids)
    for said in (
        "With 30 classes, plain training ended at a test accuracy of",
        "5 classes at first, 5 more at each addition, 3 epochs with each number of classes",
        "the network kept at the end of an addition is that of the best validation accuracy",
        "all for training, all for test, 50 of those for training kept for validation",
        "flip with probability 0.5, crop after padding by 4 pixels, rotation by up to 15 degrees",
        "60,000 images: CIFAR-100 (Krizhevsky",
        "vision transformer, 8 layers of width 384 with 12 heads, 1536 hidden units a layer, patches of 4 x 4, "
        "dropout 0.1, layer norm",
        "SGD, step size 0.01, weight decay 6e-6, momentum 0.9, one-cycle schedule at each addition, batches of 90",
        "6 numbers of classes, 5 to 30: 18 epochs, 315 steps a network",
        "tasks: 6 instead of 20; epochs: 3 instead of 100",
        "24, 4 seeds a method",
        "6 of the paper's 20 additions, 30 instead of 100 classes, 3 instead of 100 epochs an addition",
        "More classes are harder, so accuracy falls in any case.",
        "the best of 2 settings",
    ):
        assert said in page.said
    for word in ("nan", "None of", "online", "random order of the pixels", "last task"):
        assert word not in page.said.replace("None of 24 runs", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"network": {"precision": "bfloat16", "compiled": True, "reparameterized": True, "dropout": 0.0}},
            "no dropout, reparameterized layer norm, products in bfloat16, compiled",
        ),
        ({"optimizer": {"cycle_momentum": True}}, "weight decay 6e-6, momentum 0.9, momentum cycled from 0.95"),
        ({"problem": {"epochs": 1, "restore": False}}, "end of an addition is the last one"),
        ({"problem": {"epochs": 1, "flip": 0.0, "padding": 0, "rotation": 0.0}}, "Augmentation none"),
        ({"problem": {"epochs": 1, "train_images": 100, "test_images": 40}}, "100 for training, 40 for test, 50 of"),
        ({"additions": 1}, "1 number of classes, 5: 3 epochs, 15 steps a network"),
    ],
)
def test_other_settings(tmp_path, options, said):
    folder = write_additions(tmp_path / "results", ROWS[:1], **{**OPTIONS, "additions": 2, "seeds": 1, **options})
    # The page above shows such facts.
    assert said in " ".join(word for pair in view_of(folder).facts for word in pair)


@pytest.mark.slow
def test_both_kinds_of_problem_share_a_page(folder, tmp_path):
    rows = [Row("base", 0.9, 0.8), Row("swr", 0.9, 0.91)]
    small = write(tmp_path / "small", rows, tasks=20, seeds=3)
    begun = write_additions(tmp_path / "begun", ROWS[:2], **OPTIONS, done=2)
    result = run("report", folder, small, begun, "--formats", "html", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert {"regular", "small", "regular-2", "regular-classes", "small-correlates"} <= set(page.ids)
    for said in (
        "Each task shows the same images with the pixels in a new random order",
        "At each addition more classes of images come",
        "This is about the 8 runs that have learned their first 10 of 30 classes.",
        "The accuracy of plain training fell from",
    ):
        assert said in page.said


def test_nothing_is_learned_yet(tmp_path):
    result = run("report", write_additions(tmp_path / "results", ROWS[:1], **OPTIONS, done=0))
    assert result.exit_code == 1
    assert "let it go on with: supple run incremental_cifar100/regular" in words(result)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize(("width", "wide"), [(1000, 6), (375, 0)])
def test_the_page_opens(finished, tmp_path, width, wide):
    """All six figures show, the wide ones only where there is room, and nothing is wider than the window."""
    html = (finished[1] / "report.html").read_text(encoding="utf-8")
    title = opened(html, tmp_path, width)
    assert title == f"supple report: The study incremental_cifar100/regular {width} true 6 6 {wide}"
