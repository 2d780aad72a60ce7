"""The code of the README and of pages in docs runs as it stands, and studies in docs/studies.md can be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import supple
from supple.lab.commands.methods import documented
from supple.methods.registry import METHODS

ROOT = Path(__file__).parents[1]


NAMES = [
    *("index", "guide", "choosing", "checkpoints", "usage", "watching", "probing", "incremental"),
    *("tutorials/reinforcement", "tutorials/fine_tuning"),
]
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]
OPTIONAL = ["lightning", "transformers", "accelerate", "stable_baselines3"]


def blocks(page: str, package: str | None = None) -> list[str]:
    """The code on a page that needs a package (None: that needs none of the optional ones, nor a download)."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    found = [block for block in found if "cifar100" not in block]
    return [block for block in found if package == next((name for name in OPTIONAL if f"import {name}" in block), None)]


def run(code: list[str], folder: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    names = {
        "torch": torch,
        "supple": supple,
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "loss_fn": torch.nn.functional.cross_entropy,
        "stream": [(torch.randn(3, 4), torch.tensor([0, 1, 1]))] * 3,
        "path": folder / "checkpoint.pt",
    }
    for block in code:
        if "method = " in block and "TwoHeads" not in block and "ViT" not in block:
            # Each section of a page begins with a model that was just made.
            names["model"] = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            names["optimizer"] = torch.optim.Adam(names["model"].parameters())
        exec(block, names)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_code_runs(page: str, tmp_path: Path) -> None:
    run(blocks(page), tmp_path)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("package", OPTIONAL)
def test_code_for_a_trainer_runs(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package)
    if package == "transformers":
        pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    found = [block for page in PAGES for block in blocks(page, package)]
    assert found
    run(found, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.py")), ids=lambda page: page.stem)
def test_notebooks_run_in_two_minutes(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    resource = pytest.importorskip("resource")  # seconds at work, which other programs on the machine do not lengthen

    def seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return float(used.ru_utime + used.ru_stime)

    before = seconds()
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, page], check=True, cwd=tmp_path, env=environment)
    assert seconds() - before < 120


@pytest.mark.slow
def test_every_method_has_a_drawing_in_the_colour_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from mkdocs_drawings import drawings

    found = drawings()
    assert set(found) == {method.__name__ for method in METHODS.values()}
    for drawing in found.values():
        svg = ElementTree.fromstring(drawing.svg())
        assert svg.get("aria-label") == drawing.caption
        paints = {part.get(key) for part in svg.iter() for key in ("fill", "stroke")}
        assert paints <= {"currentColor", "none", None}


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to it."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["guide", "choosing", "checkpoints", "several-gpus", "usage", "watching"])
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / "docs" / f"{page}.md"
    links = re.findall(r"\]\((?!https?:)([^)]*)\)", here.read_text())
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_study_files_can_be_read() -> None:
    pytest.importorskip("pydantic")
    from supple.lab.study.spec import parse

    texts = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(), flags=re.DOTALL)
    methods = [list(parse(text, "docs/studies.md").methods) for text in texts]
    assert methods == [["base", "swr", "swr_mean", "tanh"], ["base", "reset", "reset_head", "swr"]]
    # What is a comment can be taken out of it.
    for text, options in zip(texts, [("skip", "momentum"), ("train_", "restore", "flip", "dropout")], strict=True):
        for commented in options:
            assert f"# {commented}" in text
            parse(text.replace(f"# {commented}", commented, 1).replace("; ", " # "), "docs/studies.md")


def test_numbers_of_runs() -> None:
    pytest.importorskip("pydantic")
    from supple.lab.study import shipped
    from supple.lab.study.spec import read

    def runs(name: str) -> int:
        study = read(shipped.find(name)[0])
        return len(study.columns) * len(study.run.seeds)

    page = (ROOT / "docs" / "studies.md").read_text()
    for folder, count in (("permuted_mnist", 8), ("incremental_cifar100", 4)):
        text = page[page.index(f"In [`studies/{folder}`]") :].partition("\nIn [")[0]
        rows = re.findall(r"^\| (`.*`) \| .* \| ([0-9, ]+)(?: each)? \|$", text, flags=re.MULTILINE)
        assert len(rows) == count
        for names, counts in rows:
            listed = [f"{folder}/{name}" for name in re.findall(r"`(.*?)`", names)]
            given = [int(number.replace(",", "")) for number in counts.split(", ")]
            if listed[0].endswith("..."):
                # That of all methods is counted in the text.
                sweeps = [
                    one for one in shipped.names() if one.startswith(f"{folder}/sweeps/") and "methods" not in one
                ]
                assert given == [sum(map(runs, sweeps))]
            else:
                assert [runs(name) for name in listed] == given * (len(listed) // len(given))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_is_in_the_readme(method) -> None:
    assert f"`supple.{method.__name__}`" in (ROOT / "README.md").read_text()


def test_the_page_of_methods_is_that_of_the_registry() -> None:
    assert (ROOT / "docs" / "methods.md").read_text() == documented() + "\n"
