"""The code in the README and in the pages of docs runs as it stands, where it needs no download."""

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
