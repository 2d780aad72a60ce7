"""Gradients and features that are infinite or NaN: the tensor or layer is left alone, counted, and said once."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from helpers import network
from torch import nn

import supple
from supple.lab.nn import StackedMLP


def backward(model: nn.Module, bad: float | None = None) -> None:
    model.zero_grad()
    model(torch.randn(5, 6, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    if bad is not None:
        model[2].weight.grad[0, 7] = bad  # type: ignore[index]


METHODS = {
    "SWR": lambda m: supple.SWR(m, frequency=1, factor=0.5),
    "SWR proportional": lambda m: supple.SWR(m, frequency=1, factor=0.5, pruning="proportional"),
    "ReDo": lambda m: supple.ReDo(m, frequency=1, threshold=0.5, utility="gradient"),
}


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_counted_and_said_once(name: str, bad: float) -> None:
    model = network()
    method = METHODS[name](model)
    assert int(method.skipped) == 0
    before = model[2].weight.detach().clone()
    for step in range(3):
        backward(model, bad if step != 1 else None)
        if step == 0:
            with pytest.warns(UserWarning, match=f"{type(method).__name__} left a parameter or layer alone") as said:
                method.step()
            assert said[0].filename == __file__
            assert torch.equal(model[2].weight, before)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                method.step()
    assert int(method.skipped) == 2
    again = METHODS[name](network())
    again.load_state_dict(method.state_dict())
    with pytest.warns(UserWarning, match="left a parameter"):
        assert int(again.skipped) == 2


@pytest.mark.filterwarnings("ignore:CBP left")
def test_units_of_unknown_utility_keep_their_turn_and_age() -> None:
    """An overflow passes; then as many are replaced as had been due."""
    model = network()
    method = supple.CBP(model, maturity=0, replacement_rate=0.1, utility="gradient")
    backward(model)
    with torch.no_grad():
        model[2].weight.grad.fill_(math.nan)  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (int(method.reinitialized.total), int(method.skipped)) == (0, 1)
    backward(model)
    method.step()
    assert int(method.reinitialized.last) == 3


@pytest.mark.filterwarnings("ignore:CBP left")
def test_an_overflow_does_not_stay_in_a_moving_average() -> None:
    model = network()
    method = supple.CBP(model, maturity=0, replacement_rate=1e-3, decay=0.9, absorb_mean=True)
    for step in range(3):
        x = torch.randn(5, 6)
        model(x * (math.inf if step == 1 else 1)).sum().backward()
        method.step()
    assert int(method.skipped) == 1
    state = method.state_dict()
    assert all(bool(part.isfinite().all()) for part in (*state["average"], *state["mean"]))


@pytest.mark.filterwarnings("ignore:SWR left")
def test_each_replica_is_skipped_on_its_own() -> None:
    model = StackedMLP([0, 1, 2], 5, 8, 3, 1)
    method = supple.SWR(model, frequency=1, factor=0.5)
    model(torch.randn(6, 5)).square().sum().backward()
    model.output.weight.grad[1, 0, 0] = math.inf  # type: ignore[union-attr,index]
    method.step()
    assert method.skipped.tolist() == [0, 1, 0]
    method.skipped.add_(5)
    assert method.skipped.tolist() == [0, 1, 0]


@pytest.mark.filterwarnings("ignore:SWR left")
def test_a_scaler_that_overflows_costs_one_turn(monkeypatch: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = supple.SWR(model, optimizer, frequency=1, factor=0.3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(5, 6)).square().mean()
        scaler.scale(loss * (math.inf if step == 2 else 1)).backward()
        before = [p.detach().clone() for p in model.parameters()]
        scaler.step(optimizer)
        scaler.update()
        method.step()
        same = [torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
        assert all(same) is (step == 2)
    assert int(method.skipped) == 4
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.filterwarnings("ignore:SWR left")
def test_a_chain_adds_up() -> None:
    model = network()
    method = supple.chain(supple.L2(model), METHODS["SWR"](model), METHODS["SWR"](model))
    backward(model, math.nan)
    method.step()
    assert int(method.skipped) == 2


@pytest.mark.filterwarnings("ignore:SWR left")
@pytest.mark.parametrize("pruning", ["threshold", "proportional"])
@pytest.mark.parametrize("last", [False, True])
def test_an_overflow_leaves_a_moving_average_of_weights_as_it_is(pruning: Any, last: bool) -> None:
    """One method meets an overflow, the other is not asked in that step; after it both do the same.

    Args:
        pruning: the setting.
        last: whether it comes when the tensors are due, which then waits for the next period.
    """
    model = network()
    method = supple.SWR(model, frequency=3, factor=0.5, decay=0.9, pruning=pruning)
    average = [torch.zeros_like(p) for p in model.parameters()]
    for step in range(1, 7):
        model.zero_grad()
        model(torch.randn(5, 6, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        overflow = step == (3 if last else 2)
        if overflow:
            for p in model.parameters():
                p.grad.fill_(math.inf)  # type: ignore[union-attr]
        else:
            for p, one in zip(model.parameters(), average, strict=True):
                one.mul_(0.9).add_(0.1 * (p.detach() * p.grad).abs())  # type: ignore[operator]
        acts = step % 3 == 0 and not overflow
        if acts:
            if pruning == "threshold":
                expected = sum(int((one <= 0.5 * one.mean()).sum()) for one in average)
            else:
                expected = sum(one.numel() // 2 for one in average)
            for one in average:
                one.zero_()
        method.step()
        assert int(method.skipped) == (4 if step >= (3 if last else 2) else 0)
        got = int(method.reinitialized.last)
        # Of an odd number of entries, one more or less than half.
        assert abs(got - expected) <= 1 if acts else got == 0
        for (name, p), one in zip(model.named_parameters(), average, strict=True):
            torch.testing.assert_close(method.state_dict()["average"][name][0], one.view(p.shape))


@pytest.mark.filterwarnings("ignore:SWR left")
def test_an_overflow_in_one_replica_is_not_in_the_averages_of_others() -> None:
    model = StackedMLP([0, 1, 2], 5, 8, 3, 1)
    method = supple.SWR(model, frequency=3, factor=0.5, decay=[0.9, 0.9, 0.0])
    for step in range(3):
        model.zero_grad()
        model(torch.randn(6, 5)).square().sum().backward()
        if step == 1:
            for p in model.parameters():
                p.grad[1] = math.nan  # type: ignore[index]
        method.step()
        assert all(bool(one.isfinite().all()) for one in method.state_dict()["average"].values())
    assert method.skipped.tolist() == [0, len(list(model.parameters())), 0]
    assert bool((method.reinitialized.last > 0).all())


REGULARIZERS: dict[str, Any] = {
    "isometry": supple.Isometry,
    "Parseval": lambda m, o: supple.Parseval(m, o, decoupled=True),
    "Parseval normalized": lambda m, o: supple.Parseval(m, o, decoupled=True, normalize_rows=True),
    "spectral": lambda m, o: supple.Spectral(m, o, decoupled=True),
    "FIRE": lambda m, o: supple.FIRE(m, o, every=1),
    "NaP": supple.NaP,
}


@pytest.mark.filterwarnings("ignore:.* left a parameter")
@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_matrix_that_is_not_finite_is_left_as_it_is(name: str, bad: float) -> None:
    model = network()
    method = REGULARIZERS[name](model, torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.no_grad():
        model[0].weight[0, 1] = bad  # type: ignore[index]
    before = model[0].weight.detach().clone()
    method.step()
    assert torch.equal(model[0].weight.nan_to_num(9), before.nan_to_num(9))
    assert int(method.skipped) == 1
    assert model[2].weight.isfinite().all()


@pytest.mark.filterwarnings("ignore:.* left a parameter")
@pytest.mark.parametrize("kind", ["zero", "constant", "one rank"])
@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_matrix_of_low_rank_stays_finite_and_one_of_zeros_stays(name: str, kind: str) -> None:
    model = network()
    method = REGULARIZERS[name](model, torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.no_grad():
        w = model[0].weight
        w.copy_({"zero": 0 * w, "constant": 0 * w + 0.3, "one rank": w[:, :1] @ w[:1]}[kind])
    for _ in range(3):
        method.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    if kind == "zero":
        assert not model[0].weight.any()
        assert int(method.skipped) == (3 if name in ("spectral", "FIRE", "NaP") else 0)


def test_snr_says_that_what_is_always_above_0_is_never_silent() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    method = supple.SNR(model)
    for step in range(2):
        model(torch.randn(20, 6, generator=torch.Generator().manual_seed(step)))
        method.step()
    with pytest.warns(UserWarning, match=r"no unit of 0 was ever silent.*Leave the layer out.*CBP") as said:
        method.boundary()
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.boundary()


@pytest.mark.filterwarnings("ignore:SNR left")
def test_features_that_are_not_a_number_are_no_silence() -> None:
    """Of eight units two are silent for good; a batch of NaN in between makes nobody older, and replaces nobody."""
    model = network(hidden=8)
    with torch.no_grad():
        model[0].bias[:2], model[0].bias[2:] = -50.0, 50.0
    method = supple.SNR(model, threshold=10, initial={"0.bias": supple.Constant(0.0)})
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    before = model[0].weight.detach().clone()
    for bad in (False, True, True):
        model(x * math.nan if bad else x)
        method.step()
        assert method.per_unit["age"][0].tolist() == [[5, 5, 0, 0, 0, 0, 0, 0]]
    assert torch.equal(model[0].weight, before)
    assert int(method.skipped) == 2
    model(x)
    method.step()
    assert int(method.reinitialized.total) == 2


@pytest.mark.filterwarnings("ignore:CBP left")
@pytest.mark.parametrize("utility", ["magnitude", "random"])
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_no_bias_absorbs_a_mean_that_is_not_finite(utility: Any, decay: float) -> None:
    """The utility may be known where the features are not."""
    model = network()
    method = supple.CBP(model, maturity=0, replacement_rate=0.1, utility=utility, absorb_mean=True, decay=decay)
    for step in range(3):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        model(x * (math.inf if step == 1 else 1))
        method.step()
        assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert int(method.skipped) == 1


@pytest.mark.filterwarnings("ignore:Spectral left")
@pytest.mark.parametrize("start", [0.0, math.nan])
def test_a_matrix_that_says_nothing_at_the_start_is_acted_on_later(start: float) -> None:
    """The last layer of a residual block often starts from zeros."""
    model = nn.Linear(4, 4, bias=False)
    nn.init.constant_(model.weight, start)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    method = supple.Spectral(model, optimizer, strength=0.1, decoupled=True)
    method.step()
    assert int(method.skipped) == 1
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5])))
    for _ in range(3000):
        method.step()
    assert float(torch.linalg.matrix_norm(model.weight.detach(), 2)) == pytest.approx(1.0, abs=0.01)
    assert int(method.skipped) == 1


@pytest.mark.filterwarnings("ignore:UPGD left")
@pytest.mark.parametrize("scaling", ["global", "local"])
def test_an_overflow_does_not_stay_in_a_utility(scaling: Any) -> None:
    """The step is left out; after that, the weights go on as if its gradients had been 0."""
    ends = []
    for bad in (math.inf, math.nan, 0.0):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = supple.UPGD(model, optimizer, std=0.01, scaling=scaling, seed=1)
        for step in range(4):
            backward(model)
            if step == 2:
                for parameter in model.parameters():
                    parameter.grad.fill_(bad)  # type: ignore[union-attr]
            method.before_step()
            if step != 2:
                optimizer.step()
            method.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert int(method.skipped) == (0 if bad == 0 else 4)
    assert bool(ends[0].isfinite().all())
    assert torch.equal(ends[0], ends[2])
    assert torch.equal(ends[1], ends[2])
