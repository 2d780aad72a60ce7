"""Saved in the middle, loaded in a new process, gone on: bit for bit as if never stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every_method import EVERY, build
from helpers import penalty_of
from torch import nn

import supple
from supple.lab.nn import MLP, StackedMLP

SEEDS = [3, 3, 8, 2**40, 0, 11]
STEPS, CUT = 20, 9
KINDS = {"single": (MLP, torch.float64), "stacked": (StackedMLP, torch.float32)}
METHODS = [*EVERY, "chain"]


def make(kind, name):
    """Network, optimizer and method as a program makes them when it starts."""
    network, dtype = KINDS[kind]
    model = network(SEEDS, 5, 8, 3, 2) if network is StackedMLP else MLP(5, 8, 3, 2, seed=3)
    model = model.to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    replica = None if kind == "stacked" else 0
    names = ["S&P", "SWR averaged", "CBP of 2024"] if name == "chain" else [name]
    methods = [build(one, model, optimizer, replica) for one in names]
    return model, optimizer, supple.chain(*methods) if name == "chain" else methods[0]


def train(model, optimizer, method, first, last):
    dtype = next(model.parameters()).dtype
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(6, 5, generator=generator).to(dtype)
        y = torch.randint(0, 3, (6,), generator=generator)
        optimizer.zero_grad()
        output = model(x)
        labels = y.expand(*output.shape[:-2], 6).flatten()
        loss = nn.functional.cross_entropy(output.flatten(0, -2), labels)
        (loss + penalty_of(method, x, loss)).backward()
        method.before_step()
        optimizer.step()
        method.step()


def state(model, optimizer, method):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "method": method.state_dict()}


def resume(folder):
    """What the new process does: loads every state in the folder, goes on, and saves what comes of it."""
    torch.set_num_threads(1)
    for path in sorted(folder.glob("*.middle")):
        kind, name = path.stem.split("-", 1)
        parts = make(kind, name)
        saved = torch.load(path, weights_only=True)
        for part, key in zip(parts, ("model", "optimizer", "method"), strict=True):
            part.load_state_dict(saved[key])
        train(*parts, CUT, STEPS)
        torch.save(state(*parts), path.with_suffix(".end"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, one_thread):
    """What never stopped, and the folder with what a new process made of the middle."""
    folder = tmp_path_factory.mktemp("resume")
    whole = {}
    for kind in KINDS:
        for name in METHODS:
            parts = make(kind, name)
            train(*parts, 0, CUT)
            torch.save(state(*parts), folder / f"{kind}-{name}.middle")
            train(*parts, CUT, STEPS)
            whole[kind, name] = state(*parts)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, __file__, str(folder)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=300, env=paths)
    assert result.returncode == 0, result.stderr
    return whole, folder


def assert_same(one, other, path=""):
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{place}]")
    else:
        assert one == other, path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_going_on_in_a_new_process_is_as_never_having_stopped(name, kind, resumed):
    whole, folder = resumed
    assert_same(torch.load(folder / f"{kind}-{name}.end", weights_only=True), whole[kind, name])
    method = whole[kind, name]["method"]
    totals = [part["total"].sum() for part in method.get("methods", [method])]
    assert any(totals) is (name == "chain" or EVERY[name][0].replaces)


def test_a_saved_state_does_not_change_when_the_method_goes_on():
    parts = make("stacked", "chain")
    train(*parts, 0, CUT)
    saved = parts[2].state_dict()
    copied = torch.load(_saved(saved), weights_only=True)
    train(*parts, CUT, STEPS)
    assert_same(saved, copied)


def _saved(value):
    from io import BytesIO

    buffer = BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


if __name__ == "__main__":
    resume(Path(sys.argv[1]))
