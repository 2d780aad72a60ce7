"""The method that CONTRIBUTING.md adds is complete: it runs, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from supple.lab.nn import StackedMLP

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_the_example_method_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    names: dict[str, type] = {}
    exec(block, names)
    network = StackedMLP([0, 1], inputs=200, hidden=20)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    method = names["RandomReset"](network, rate=[0.0, 0.1])
    method.step()
    weights = [(old, new) for old, new in zip(before, network.parameters(), strict=True) if new.ndim == 3]
    assert all(torch.equal(old[0], new[0]) for old, new in weights)
    changed = sum(int((old[1] != new[1]).sum()) for old, new in weights)
    entries = sum(old[1].numel() for old, _ in weights)
    assert 0.07 < changed / entries < 0.13
    assert method.reinitialized.last[0] == 0
    assert method.reinitialized.last[1] >= changed
