from __future__ import annotations

import pytest
import torch

from supple.metrics import mean_magnitude


def test_against_a_loop() -> None:
    tensors = [torch.randn(2, 3, 4), torch.randn(2, 5), torch.randn(2)]
    for r in range(2):
        entries = [abs(value) for tensor in tensors for value in tensor[r].flatten().tolist()]
        assert float(mean_magnitude(tensors)[r]) == pytest.approx(sum(entries) / len(entries), rel=1e-6)
