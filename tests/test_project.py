"""What a project has besides its code fits the code: versions, changelog, workflows, the site's navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import supple

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {target for command in commands if command.startswith("make ") for target in command.split()[1:]}
    assert called
    assert called <= TARGETS


def test_what_lands_is_what_contributors_run() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    contributors = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert set(re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)) <= contributors


def test_versions_are_one() -> None:
    assert f"version: {supple.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    releases = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0] == "Unreleased"
    assert releases[1] == supple.__version__


def test_every_page_has_its_place_in_the_navigation() -> None:
    navigation = re.findall(r": (\S+\.(?:md|py))$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*") if path.suffix in (".md", ".py")}
    assert pages <= set(navigation)
    made = {page for page in navigation if not (docs / page).exists()}
    assert all(f'"{page}"' in (ROOT / "mkdocs_hooks.py").read_text() for page in made)
