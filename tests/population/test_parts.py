"""Parts cover every replica once, and training in parts, halved or not, gives what training together gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import supple
from supple.data import LabelledImages
from supple.nn import StackedMLP
from supple.optim import SGDW
from supple.population import Population, TaskMetrics, cut, train_in_parts
from supple.population.parts import halve, out_of_memory
from supple.streams import PermutedStream

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
        if part.stop - part.start > 1:
            one, two = halve(part, settings)
            assert (one.start, one.stop, two.stop) == (part.start, two.start, part.stop)
            assert one.start < one.stop < two.stop
            assert whole(one, settings)
            assert whole(two, settings)


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


def collected(parts: list[slice], maker=make) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    losses = torch.full((3, 12), torch.nan, dtype=torch.float64)
    counts = torch.full((3, 12), -1)
    halved: list[slice] = []

    results = train_in_parts(maker, parts, len(FACTORS), range(3), lambda part, error: halved.append(part))
    for part, task, metrics in results:
        assert (counts[task, part] == -1).all()
        losses[task, part], counts[task, part] = metrics.loss, metrics.reinitialized
    return losses, counts, halved


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 12])
def test_parts_give_what_all_together_give(size: int) -> None:
    losses, counts, halved = collected(cut(4, 3, size))
    expected, expected_counts, _ = collected([slice(0, 12)])
    torch.testing.assert_close(losses, expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(counts, expected_counts)
    assert not halved


class Small(Population):
    """A population on a machine whose memory is full in the second task, if there are more than four replicas."""

    def train_task(self, index: int, progress=lambda steps: None) -> TaskMetrics:
        if index == 1 and self.network.replicas > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().train_task(index, progress)


def small(part: slice) -> Population:
    population = make(part)
    population.__class__ = Small
    return population


def test_a_part_that_runs_out_of_memory_is_halved_and_goes_on() -> None:
    losses, counts, halved = collected([slice(0, 12)], small)
    expected, expected_counts, _ = collected([slice(0, 12)])
    torch.testing.assert_close(losses, expected, rtol=1e-8, atol=1e-10)
    assert torch.equal(counts, expected_counts)
    assert halved == [slice(0, 12), slice(0, 6), slice(6, 12)]


def test_one_replica_that_does_not_fit_is_an_error() -> None:
    def never(part: slice) -> Population:
        raise MemoryError("no memory at all")

    with pytest.raises(MemoryError, match="no memory at all"):
        collected([slice(0, 12)], never)


def test_other_errors_are_not_taken_for_memory() -> None:
    def broken(part: slice) -> Population:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        collected([slice(0, 12)], broken)


def test_the_cpu_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        cut(4, 3, 0)
