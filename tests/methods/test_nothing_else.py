"""Zero does nothing at all, and nothing but the chosen units changes."""

import copy

import pytest
import torch
from helpers import backward, perceptron, unchanged, values
from hypothesis import given
from hypothesis import strategies as st

import supple
from supple.lab.nn import MLP

ZERO = {
    "L2": (supple.L2, {"l2": 0}),
    "S&P": (supple.ShrinkAndPerturb, {"l2": 0, "variance": 0}),
    "SWR": (supple.SWR, {"frequency": 1, "factor": 0}),
    "SWR magnitude": (supple.SWR, {"frequency": 1, "factor": 0, "utility": "magnitude", "decay": 0.5}),
    "SWR proportional": (supple.SWR, {"frequency": 1, "factor": 0, "pruning": "proportional"}),
    "CBP": (supple.CBP, {"maturity": 0, "replacement_rate": 0}),
    "CBP drawn": (supple.CBP, {"maturity": 0, "replacement_rate": 0, "counting": "draw", "decay": 0.9}),
    "CBP absorbing": (supple.CBP, {"maturity": 0, "replacement_rate": 0, "decay": 0.9, "absorb_mean": True}),
    "ReDo": (supple.ReDo, {"frequency": 1, "threshold": 0}),
}


@pytest.mark.parametrize("name", ZERO)
def test_zero_does_nothing_at_all(name):
    kind, settings = ZERO[name]
    model = perceptron()
    with torch.no_grad():
        model.blocks[0].linear.weight[:3] = 0  # dead units, of utility 0
    optimizer = torch.optim.Adam(model.parameters())
    method = (
        kind(model, optimizer, optimizer_state="fresh", **settings)
        if kind not in (supple.L2, supple.ShrinkAndPerturb)
        else kind(model, **settings)
    )
    for step in range(4):
        backward(model, step)
        optimizer.step()
        before, state = values(model), copy.deepcopy(optimizer.state_dict()["state"])
        method.step()
        assert unchanged(model, before)
        for place, entries in optimizer.state_dict()["state"].items():
            assert all(torch.equal(value, state[place][key]) for key, value in entries.items())
    assert int(method.reinitialized.total) == 0


@given(st.sampled_from(["CBP", "ReDo"]), st.floats(0, 1), st.integers(0, 3), st.integers(-(2**63), 2**63 - 1))
def test_unit_counts_equal_what_changed_and_nothing_else_changes(kind, setting, patience, seed):
    """One hidden layer, so that each change belongs to one unit."""
    model = MLP(5, 8, 3, 1, seed=2)
    with torch.no_grad():
        model.blocks[0].linear.bias += 1  # so that a bias of 0 is new
    initial = {"blocks.0.linear.bias": supple.Constant(0.0)}
    if kind == "CBP":
        method = supple.CBP(model, maturity=patience, replacement_rate=setting, seed=seed, initial=initial)
    else:
        method = supple.ReDo(model, frequency=patience + 1, threshold=setting, seed=seed, initial=initial)
    for step in range(5):
        backward(model, step)
        before = values(model)
        method.step()
        after = values(model)
        layer, readers = "blocks.0.linear", "output"
        rows = (after[f"{layer}.weight"] != before[f"{layer}.weight"]).all(dim=1)
        assert torch.equal(rows, (after[f"{layer}.weight"] != before[f"{layer}.weight"]).any(dim=1))
        assert int(rows.sum()) == int(method.reinitialized.last)
        assert not after[f"{layer}.bias"][rows].any()
        assert not after[f"{readers}.weight"][:, rows].any()
        assert torch.equal(after[f"{layer}.bias"][~rows], before[f"{layer}.bias"][~rows])
        assert torch.equal(after[f"{readers}.weight"][:, ~rows], before[f"{readers}.weight"][:, ~rows])
        assert torch.equal(after[f"{readers}.bias"], before[f"{readers}.bias"])
        if setting == 0 or (kind == "ReDo" and (step + 1) % (patience + 1)):
            assert not rows.any()
