"""Streams of one's own: whatever holds tasks and batches is read the same each time, for each seed."""

import itertools
import random as python_random

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from supple.lab.streams import SeedStream, Task


def data(count=20):
    return TensorDataset(torch.arange(count).float(), torch.arange(count))


class Counting(IterableDataset):
    def __iter__(self):
        return iter((torch.tensor(float(k)), torch.tensor(k)) for k in range(9))


def of_loaders(seed):
    return [DataLoader(data(), batch_size=5, shuffle=True) for _ in range(3)]


def drawn(seed):
    """A generator whose tasks and batches all go on from one another."""
    level = torch.zeros(())
    for _ in range(3):

        def batches():
            nonlocal level
            for _ in range(4):
                level = level + torch.rand(())
                yield level.repeat(2), torch.zeros(2)

        yield batches()


STREAMS = {
    "loaders": of_loaders,
    "data sets": lambda seed: [data() for _ in range(3)],
    "the same for all seeds": [data(), data(), data()],
    "one data set": data(),
    "one loader": DataLoader(data(), batch_size=5, shuffle=True),
    "iterable data": lambda seed: [Counting() for _ in range(3)],
    "one from another": drawn,
}


def read(stream, order, seed=3):
    one = SeedStream(stream, seed, batch_size=4)
    return {task: torch.cat([x for x, _ in one.task(task)]) for task in order}


@pytest.mark.parametrize("name", STREAMS)
def test_a_seed_gives_the_same_batches_in_any_order(name):
    stream = STREAMS[name]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    straight = read(stream, [0, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(100)
    for order in ([2], [1, 2], [2, 0]):
        for task, values in read(stream, order).items():
            assert torch.equal(values, straight[task])
    if name != "iterable data":  # which has an order of its own
        other = read(stream, [0], seed=4)[0]
        assert not torch.equal(other, straight[0])
        assert not torch.equal(straight[1], straight[0])


def test_two_seeds_are_read_in_turns_as_each_alone():
    seeds = [SeedStream(of_loaders, seed) for seed in (5, 6)]
    both = list(zip(*(stream.task(1) for stream in seeds), strict=True))
    for k, stream in enumerate(seeds):
        alone = list(SeedStream(of_loaders, stream.seed).task(1))
        assert all(torch.equal(pair[k][0], x) for pair, (x, _) in zip(both, alone, strict=True))


def test_a_data_set_is_batched_as_a_loader_would():
    batches = list(SeedStream([data(22)], 0, batch_size=5).task(0))
    assert [len(x) for x, _ in batches] == [5] * 4
    values = torch.cat([y for _, y in batches])
    assert len(values.unique()) == 20
    assert SeedStream([data(22)], 0, batch_size=5).task(0).length == 4


def test_a_task_has_a_test():
    task = SeedStream([Task(data(), test=DataLoader(data(6), batch_size=4))], 0).task(0)
    assert [len(x) for x, _ in task.test] == [4, 2]
    assert SeedStream([data()], 0).task(0).test is None


def test_what_is_learned_later_is_read_before_the_next_task():
    heard = []

    def telling(what):
        yield heard.append(what) or (torch.zeros(3, 2), torch.zeros(3))

    def stream(seed):
        for task in range(3):
            yield Task(telling(f"task {task}"), later=telling(f"later {task}"))

    read = SeedStream(stream, 0)
    read.task(2)
    assert heard == ["task 0", "later 0", "task 1", "later 1"]
    task = SeedStream([Task(data(12), later=data(22))], 0, batch_size=5).task(0)
    assert (task.length, task.later.length) == (2, 4)
    assert [len(x) for x, _ in task.later] == [5] * 4


@pytest.mark.parametrize(
    ("stream", "index", "said"),
    [
        ([data()], 1, "stream of seed 0 ends after 1 tasks"),
        (lambda seed: (data() for _ in range(2)), 2, "stream of seed 0 ends after 2 tasks"),
        (iter([data()]), 0, "the stream is an iterator, which can be read once; give a function of the seed"),
        ([[torch.zeros(3)]], 0, r"a batch is Tensor; it has to be a pair \(inputs, targets\)"),
        ([[(torch.zeros(3), [1, 2, 3])]], 0, "the targets of a batch are list; they have to be a tensor"),
    ],
)
def test_mistakes_are_explained(stream, index, said):
    with pytest.raises(ValueError, match=said):
        list(SeedStream(stream, 0).task(index))


def test_what_python_draws_is_not_looked_after():
    """Which is what the check before a comparison is for."""

    def stream(seed):
        return [[(torch.tensor([python_random.random()]), torch.zeros(1))]]

    python_random.seed(0)
    once, again = (next(iter(itertools.chain(SeedStream(stream, 0).task(0))))[0] for _ in range(2))
    assert not torch.equal(once, again)
