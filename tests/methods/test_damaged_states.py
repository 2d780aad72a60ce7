"""A state that is damaged in any way is refused by name and changes nothing, or does no harm."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from every_method import build
from helpers import backward, perceptron, unchanged, values
from torch import nn

import supple

NAMES = ["L2", "S&P", "SWR averaged", "SWR initial", "CBP of 2024", "CBP contribution", "ReDo activation", "chain"]


def make(name: str) -> tuple[nn.Module, supple.Method]:
    model = perceptron()
    if name == "SWR initial":
        return model, supple.SWR(model, frequency=2, factor=0.3, reinit="initial")
    if name == "chain":
        return model, supple.chain(build("CBP of 2024", model, replica=0), build("SWR averaged", model, replica=0))
    return model, build(name, model, replica=0)


def train(model: nn.Module, method: supple.Method, first: int, last: int) -> None:
    for step in range(first, last):
        backward(model, step)
        method.step()


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a state."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [one for key, value in inside for one in [(node, key), *places(value)]]


def damage(state: Any, chance: random.Random) -> str:
    """Changes one place of a state, and says how."""
    holder, key = chance.choice(places(state))
    value = holder[key]
    others: list[Any] = [None, "word", 3.7, -1, 10**30, True, [], {}, object(), math.nan, b"x", torch.zeros(3), [None]]
    others += [
        torch.tensor(math.nan),
        torch.full((1,), -5),
        torch.zeros(1, 2, 3),
        {"a": 1},
        torch.zeros(1, device="meta"),
    ]
    ways = ["other"] * 3 + ["lost", "more"]
    if isinstance(value, torch.Tensor):
        ways += ["dtype", "shape", "entry", "entry", "entry", "list", "sparse"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        ways += ["number"] * 4
    way = chance.choice(ways)
    if way == "other":
        holder[key] = chance.choice(others)
    elif way == "lost":
        del holder[key]
    elif way == "more":
        holder.insert(0, value) if isinstance(holder, list) else holder.update(more=value)
    elif way == "dtype":
        holder[key] = value.to(chance.choice([torch.bool, torch.complex64, torch.int8, torch.float16]))
    elif way == "shape":
        holder[key] = chance.choice([value.flatten()[:0], value.unsqueeze(0), torch.cat([value, value])])
    elif way == "list":
        holder[key] = value.tolist()
    elif way == "sparse":
        holder[key] = value.to_sparse()
    elif way == "entry":
        number = [-1, 2**62, -(2**62)] if not value.is_floating_point() else [math.nan, math.inf, -math.inf, -1.0, 1e30]
        value.flatten()[chance.randrange(value.numel()) if value.numel() else slice(0)] = chance.choice(number)
    else:
        holder[key] = chance.choice([-1, 0, value + 1, 10**12, math.inf, -math.inf, math.nan, 1e300, -1e300, 2.5])
    return f"{way} at {key}"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_named_or_harmless(name: str, seed: int) -> None:
    model, method = make(name)
    train(model, method, 0, 6)
    state, weights = method.state_dict(), values(model)
    shown, refused = repr(state), 0
    chance = random.Random(f"{name} {seed}")
    for _ in range(45):
        damaged = copy.deepcopy(state)
        how = damage(damaged, chance)
        try:
            method.load_state_dict(damaged)
        except (ValueError, TypeError):
            refused += 1
            assert repr(method.state_dict()) == shown, how
            assert unchanged(model, weights), how
            continue
        train(model, method, 6, 8)
        assert all(bool(value.isfinite().all()) for value in model.state_dict().values()), how
        model.load_state_dict(weights)
        method.load_state_dict(state)
    assert refused > 25


@pytest.mark.parametrize("state", [None, [], "SWR", 3, {"method": None}, {"method": []}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_state_is_refused(name: str, state: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="state"):
        make(name)[1].load_state_dict(state)


def test_the_place_is_named() -> None:
    _, method = make("CBP of 2024")
    for path, value, said in (
        (
            ("schedule", "mature_at", 0),
            torch.full((1, 8), -1),
            r"schedule\.mature_at\.0 of the state has values below 0",
        ),
        (("schedule", "step"), 7, r"schedule\.step of the state is 7 after 0 steps"),
        (("average", 1), torch.full((1, 8), math.inf), r"average\.1 of the state has values that are infinite or NaN"),
        (("steps",), "3", r"steps of the state is '3'; it has to be of type int"),
        (("initial", "blocks.0.linear.weight", "low"), math.inf, r"initial\.blocks\.0\.linear\.weight of the state"),
        (("more",), 1, r"the state differs in its keys: more"),
    ):
        state = method.state_dict()
        holder: Any = state
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        with pytest.raises((ValueError, TypeError), match=said):
            method.load_state_dict(state)
