"""The tasks that the probe gives networks to learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from supple.probing import RandomLabels, RandomTeacher, Task

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


class Recorder(nn.Module):
    """Notes which examples it is given, by their first input."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.seen = nn.Linear(4, 3), []

    def forward(self, x, other=None):
        self.seen.append(x[:, 0].tolist())
        return self.inside(x if other is None else x + other)


def learned(task: Task, network: nn.Module, seed: int = 0) -> torch.Tensor:
    return task(network, torch.optim.SGD(network.parameters(), lr=0.1), seed)


def test_every_example_once_before_any_again_in_an_order_of_the_seed():
    recorders = [Recorder() for _ in range(3)]
    for recorder, seed in zip(recorders, [0, 0, 1], strict=True):
        learned(Task(X, torch.zeros(50, dtype=torch.long), steps=10, batch_size=10), recorder, seed)
    for recorder in recorders:
        for epoch in (recorder.seen[:5], recorder.seen[5:]):
            assert sorted(value for batch in epoch for value in batch) == sorted(X[:, 0].tolist())
        assert recorder.seen[:5] != recorder.seen[5:]
    assert recorders[0].seen == recorders[1].seen != recorders[2].seen


def test_losses_are_those_before_each_step():
    task, network = Task(X, X[:, :3], nn.functional.mse_loss, steps=2, batch_size=50), make()
    before = nn.functional.mse_loss(network(X), X[:, :3])
    first, second = learned(task, network)
    assert float(first) == pytest.approx(float(before.detach()), rel=1e-5)
    assert second < first


@pytest.mark.parametrize("data", [(X, X), [X, X], {"x": X, "other": X}], ids=["tuple", "list", "dict"])
def test_networks_of_several_inputs(data):
    assert learned(Task(data, torch.zeros(50, dtype=torch.long), steps=3), Recorder()).shape == (3,)
    assert learned(RandomLabels(data, steps=3), Recorder()).shape == (3,)
    assert learned(RandomTeacher(data, Recorder, steps=3), Recorder()).shape == (3,)


def test_random_labels_are_even_and_of_the_seed():
    inputs = torch.zeros(3000, 4)
    draws = [RandomLabels(inputs, examples=3000).goals(make(), seed) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert 0.6 < float((draws[0] != draws[2]).float().mean()) < 0.73  # two of three
    assert draws[0].bincount(minlength=3).tolist() == pytest.approx([1000] * 3, abs=100)
    assert len(RandomLabels(inputs, examples=100).goals(make(), 0)) == 100


def test_a_teacher_gives_standardized_outputs_of_the_seed():
    task = RandomTeacher(X, make)
    torch.manual_seed(0)
    goals = [task.goals(make(), seed) for seed in (0, 0, 1)]
    assert torch.equal(goals[0], goals[1])
    assert not torch.equal(goals[0], goals[2])
    torch.testing.assert_close(goals[0].mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(goals[0].std(dim=0), torch.ones(3))

    def constant():
        network = make()
        nn.init.zeros_(network[2].weight)
        return network

    assert not RandomTeacher(X, constant).goals(make(), 0).any()


def test_modes_stay_as_they_are():
    network = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
    network[1].eval()
    RandomLabels(X).goals(network, 0)
    assert [module.training for module in network.modules()] == [True, True, False]


class Several(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        (lambda: Task(X, torch.zeros(49)), ValueError, "targets have 49 examples, the first of the inputs 50"),
        (lambda: Task((X, X[:9]), torch.zeros(50)), ValueError, "inputs have 9 examples"),
        (lambda: Task(X, X, steps=1), ValueError, "steps is 1; a curve needs two or more"),
        (lambda: Task(X, X, batch_size=51), ValueError, "batch_size is 51; with 50 examples it has to be from 1 to 50"),
        (lambda: Task("x", X), TypeError, "examples are a str; they have to be a tensor"),
        (
            lambda: RandomLabels(X).goals(nn.Linear(4, 1), 0),
            ValueError,
            r"gives \[2, 1\] for 2 examples; random labels",
        ),
        (
            lambda: RandomLabels(X).goals(nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))), 0),
            ValueError,
            r"gives \[2, 2, 2\] for 2 examples",
        ),
        (lambda: RandomLabels(X).goals(Several(4, 2), 0), TypeError, "gives a tuple, and the tasks of supple.probing"),
        (
            lambda: RandomTeacher(X, make).goals(nn.Linear(4, 2), 0),
            ValueError,
            r"output is \[2\] of the network, \[3\] of the teacher",
        ),
    ],
    ids=range(9),
)
def test_bad_input_is_named(task, error, said):
    with pytest.raises(error, match=said):
        task()
