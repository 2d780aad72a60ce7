"""A small classifier and its examples, for trainers that take mappings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

EXAMPLES, BATCH = 48, 8
"""Six batches an epoch."""


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def data() -> list[dict[str, Any]]:
    x = torch.randn(EXAMPLES, 5, generator=torch.Generator().manual_seed(1))
    return [{"x": row, "labels": int(row[0] > 0)} for row in x]
