from __future__ import annotations

import torch

from supple.metrics import hits


def test_hits_against_argmax_one_example_at_a_time() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 40, generator=generator)
    target = torch.randint(0, 5, (3, 1, 40), generator=generator)
    expected = [sum(int(logits[r, :, b].argmax()) == int(target[r, 0, b]) for b in range(40)) for r in range(3)]
    assert hits(logits, target).tolist() == expected


def test_a_tie_is_no_hit() -> None:
    assert hits(torch.zeros(1, 10, 4), torch.zeros(1, 1, 4, dtype=torch.int64)).tolist() == [0]


def test_logits_that_are_not_numbers_are_no_hit() -> None:
    assert hits(torch.full((1, 10, 4), torch.nan), torch.zeros(1, 1, 4, dtype=torch.int64)).tolist() == [0]
