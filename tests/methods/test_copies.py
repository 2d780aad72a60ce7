"""A copy of a method goes on alone, with its own network and optimizer, as the first one does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from every_method import FEW, build
from helpers import numbers, perceptron, unchanged, values
from torch import nn

import supple

Whole = tuple[nn.Module, torch.optim.Optimizer, supple.Method]
WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda whole: pickle.loads(pickle.dumps(whole)),
    "deepcopy of the method": lambda whole: of_method(copy.deepcopy(whole[2])),
    "pickle of the method": lambda whole: of_method(pickle.loads(pickle.dumps(whole[2]))),
}


def of_method(method: supple.Method) -> Any:
    return method.model, method.optimizer, method


def make(name: str) -> Whole:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if name == "chain":
        parts = [build(one, model, optimizer, replica=0) for one in ("CBP of 2024", "S&P", "SWR averaged")]
        return model, optimizer, supple.chain(*parts)
    return model, optimizer, build(name, model, optimizer, replica=0)


def train(whole: Whole, first: int, last: int) -> None:
    model, optimizer, method = whole
    for step in range(first, last):
        optimizer.zero_grad()
        model(numbers(step, 6, 5)).square().sum().backward()
        optimizer.step()
        method.step()


@pytest.mark.one_in(4)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*FEW, "CBP gradient", "chain"])
def test_a_copy_goes_on_as_the_first_one(name: str, way: str) -> None:
    first = make(name)
    train(first, 0, 5)
    second = WAYS[way](first)
    assert second[2].model is second[0] is not first[0]
    before, state = values(first[0]), repr(first[2].state_dict())
    train(second, 5, 30)
    assert unchanged(first[0], before)
    assert repr(first[2].state_dict()) == state
    train(first, 5, 30)
    assert unchanged(first[0], values(second[0]))
    assert repr(first[2].state_dict()) == repr(second[2].state_dict())
    assert name in ("L2", "S&P") or int(first[2].reinitialized.total) > 0


def test_closing_a_copy_leaves_the_first_one_as_it_is() -> None:
    first, alone = make("CBP contribution"), make("CBP contribution")
    copy.deepcopy(first)[2].close()
    average = copy.deepcopy(first[0])
    for handles in (module._forward_pre_hooks for module in average.modules()):
        handles.clear()
    train(first, 0, 20)
    train(alone, 0, 20)
    assert unchanged(first[0], values(alone[0]))


def test_features_that_were_read_before_the_copy_count() -> None:
    first = make("ReDo activation")
    train(first, 0, 3)
    first[0](numbers(3, 6, 5)).sum().backward()
    second = copy.deepcopy(first)
    for _, _, method in (first, second):
        method.step()
    assert int(first[2].reinitialized.last) > 0
    assert unchanged(first[0], values(second[0]))


def test_what_acts_in_several_processes_says_why_it_cannot_be_copied() -> None:
    method = make("CBP magnitude")[2]
    method._process_group = object()  # a process group
    with pytest.raises(TypeError, match=r"acts in several processes.*state_dict\(\)"):
        copy.deepcopy(method)
