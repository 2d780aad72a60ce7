"""What is published: built, looked into, and installed in environments that have nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import supple

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
EXTRAS = re.findall(r"^([a-z]+) = \[", TABLE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and nothing but what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install(folder / "bin", str(wheel))
    return folder / "bin"


def install(programs: Path, *what: str) -> str:
    done = subprocess.run(
        [
            programs / "pip",
            "install",
            "--quiet",
            "--only-binary",
            ":all:",
            "--constraint",
            ROOT / "constraints.txt",
            *what,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.stat().st_size < 3_000_000
    assert supple.__version__ in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"supple", f"supple-{supple.__version__}.dist-info"}
    source = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "supple").rglob("*") if path.is_file()
    }
    assert {name for name in source if "__pycache__" not in name} <= set(names)


def test_the_sdist_has_what_a_clone_has(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    for name in ("Makefile", "constraints.txt", "CHANGELOG.md", "tests/conftest.py", "docs/guide.md", "mkdocs.yml"):
        assert name in names


def test_the_library_needs_torch_and_numpy(environment: Path) -> None:
    program = """
import importlib.util, torch, supple
assert not any(importlib.util.find_spec(name) for name in ("polars", "typer", "scipy", "matplotlib"))
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
optimizer = torch.optim.Adam(model.parameters())
with supple.SWR(model, optimizer, frequency=1, factor=0.5) as method:
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    method.step()
    assert method.reinitialized.total > 0
print(supple.units(model))
"""
    done = subprocess.run([environment / "python", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([environment / "supple", "--help"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "which is not installed: run pip install" in done.stderr


def test_with_the_laboratory_it_has_the_command_line(wheel: Path, environment: Path, tmp_path: Path) -> None:
    install(environment, f"{wheel}[lab]")
    subprocess.run(
        [environment / "supple", "demo", "--tasks", "2", "--seeds", "1", "--methods", "swr", "--out", tmp_path],
        check=True,
    )
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_resolves(extra: str, wheel: Path, environment: Path) -> None:
    install(environment, "--dry-run", f"{wheel}[{extra}]")
