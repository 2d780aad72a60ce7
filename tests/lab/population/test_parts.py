"""Parts cover every replica once, and training in parts gives what training together gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import StackedMLP
from supple.lab.population import Population, cut
from supple.lab.population.parts import out_of_memory
from supple.lab.streams import PermutedStream
from supple.optim import SGDW

SEEDS, FACTORS = [3, 5, 8, 9], [0.0, 0.05, 0.1]


def whole(part: slice, settings: int) -> bool:
    """Whether a part has whole seeds, or lies within one."""
    aligned = part.start % settings == 0 and part.stop % settings == 0
    return aligned or part.start // settings == (part.stop - 1) // settings


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 150))
def test_parts_cover_all_replicas_once(seeds: int, settings: int, size: int) -> None:
    parts = cut(seeds, settings, size)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(seeds * settings))
    for part in parts:
        assert 1 <= part.stop - part.start <= size
        assert whole(part, settings)


def make(part: slice) -> Population:
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randint(0, 256, (120, 4, 4), generator=generator, dtype=torch.uint8)
    data = LabelledImages(pictures, torch.randint(0, 10, (120,), generator=generator), 10, "images")
    chosen = range(part.start, part.stop)
    replicas = [SEEDS[i // len(FACTORS)] for i in chosen]
    network = StackedMLP(replicas, inputs=16, hidden=8).double()
    optimizer = SGDW(network.parameters(), lr=0.05)
    method = supple.SWR(network, optimizer, frequency=4, factor=[FACTORS[i % len(FACTORS)] for i in chosen])
    stream = PermutedStream(data, list(dict.fromkeys(replicas)), batch_size=6, dtype=torch.float64)
    return Population(network, optimizer, stream, method)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_parts_give_what_all_together_give(size: int) -> None:
    together = make(slice(0, 12))
    expected = [together.train_task(task) for task in range(3)]
    for part in cut(4, 3, size):
        population = make(part)
        for task in range(3):
            metrics = population.train_task(task)
            torch.testing.assert_close(metrics.loss, expected[task].loss[part], rtol=1e-8, atol=1e-10)
            assert torch.equal(metrics.reinitialized, expected[task].reinitialized[part])


def test_the_cpu_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        cut(4, 3, 0)
