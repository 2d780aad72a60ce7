"""Parts cover every replica once, and training in parts gives what training together gives."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import supple
from supple.lab.data import LabelledImages
from supple.lab.limits import out_of_memory
from supple.lab.nn import StackedMLP
from supple.lab.population import Population
from supple.lab.streams import PermutedStream
from supple.lab.study.run_config import cut
from supple.optim import SGDW

SEEDS, FACTORS = [3, 5, 8, 9], [0.0, 0.05, 0.1]


def replicas(part: tuple[slice, slice], settings: int) -> list[int]:
    """The replicas of a part, seed-first."""
    seeds, chosen = (range(some.start, some.stop) for some in part)
    return [seed * settings + setting for seed in seeds for setting in chosen]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 150))
def test_parts_cover_all_replicas_once(seeds: int, settings: int, size: int) -> None:
    parts = [replicas(part, settings) for part in cut(seeds, settings, size)]
    assert [i for part in parts for i in part] == list(range(seeds * settings))
    for part in parts:
        assert 1 <= len(part) <= size
        assert len(part) % settings == 0 or part[0] // settings == part[-1] // settings


def make(chosen: Sequence[int]) -> Population:
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randint(0, 256, (120, 4, 4), generator=generator, dtype=torch.uint8)
    data = LabelledImages(pictures, torch.randint(0, 10, (120,), generator=generator), 10, "images")
    seeds = [SEEDS[i // len(FACTORS)] for i in chosen]
    network = StackedMLP(seeds, inputs=16, hidden=8).double()
    optimizer = SGDW(network.parameters(), lr=0.05)
    method = supple.SWR(network, optimizer, frequency=4, factor=[FACTORS[i % len(FACTORS)] for i in chosen])
    stream = PermutedStream(data, list(dict.fromkeys(seeds)), batch_size=6, dtype=torch.float64)
    return Population(network, optimizer, stream, method)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_parts_give_what_all_together_give(size: int) -> None:
    together = make(range(12))
    expected = [together.train_task(task) for task in range(3)]
    for part in (replicas(part, 3) for part in cut(4, 3, size)):
        population = make(part)
        for task in range(3):
            metrics = population.train_task(task)
            torch.testing.assert_close(metrics.loss, expected[task].loss[part], rtol=1e-8, atol=1e-10)
            assert torch.equal(metrics.reinitialized, expected[task].reinitialized[part])


def test_the_cpu_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)
