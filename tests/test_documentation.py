"""The code of the README and of pages in docs runs as it stands, and studies in docs/studies.md can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import supple

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/usage.md", "docs/incremental.md"])
def test_code_runs(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    blocks = [block for block in blocks if "cifar100" not in block]
    assert blocks
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    names = {
        "torch": torch,
        "supple": supple,
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "loss_fn": torch.nn.functional.cross_entropy,
        "stream": [(torch.randn(3, 4), torch.tensor([0, 1, 1]))] * 3,
        "path": tmp_path / "checkpoint.pt",
    }
    for block in blocks:
        if "method = " in block and "TwoHeads" not in block and "ViT" not in block:
            # Each section of a page begins with a model that was just made.
            names["model"] = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            names["optimizer"] = torch.optim.Adam(names["model"].parameters())
        exec(block, names)


def test_the_study_file_can_be_read() -> None:
    pytest.importorskip("pydantic")
    from supple.study.spec import parse

    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(), flags=re.DOTALL)
    study = parse(text, "docs/studies.md")
    assert list(study.methods) == ["base", "swr", "swr_mean", "tanh"]
    # What is a comment can be taken out of it.
    for commented in ("skip", "momentum"):
        parse(text.replace(f"# {commented}", commented, 1).replace("; ", " # "), "docs/studies.md")


def test_numbers_of_runs() -> None:
    pytest.importorskip("pydantic")
    from supple.study import shipped
    from supple.study.spec import read

    def runs(name: str) -> int:
        study = read(shipped.find(f"permuted_mnist/{name}")[0])
        return len(study.columns) * len(study.run.seeds)

    page = (ROOT / "docs" / "studies.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| .* \| ([0-9, ]+)(?: each)? \|$", page, flags=re.MULTILINE)
    assert len(rows) == 7
    for names, counts in rows:
        listed = re.findall(r"`(.*?)`", names)
        given = [int(count.replace(",", "")) for count in counts.split(", ")]
        if listed == ["sweeps/..."]:
            sweeps = [name.removeprefix("permuted_mnist/") for name in shipped.names() if "/sweeps/" in name]
            assert given == [sum(map(runs, sweeps))]
        else:
            assert [runs(name) for name in listed] == given * (len(listed) // len(given))
