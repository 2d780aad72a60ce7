from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import supple
from supple.lab.nn import StackedMLP
from supple.metrics import watching
from supple.metrics.measuring import MEASURES


class Restless(nn.Module):
    """Batch normalization, dropout, and modules that draw and write whenever they run, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.up, self.layer_norm, self.down = nn.Linear(64, 12), nn.LayerNorm(12), nn.Linear(12, 3)
        self.frozen = nn.BatchNorm1d(12).eval()
        self.generator = torch.Generator().manual_seed(5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.drop(self.norm(self.conv(x)).relu())
        h = h + 0.1 * torch.rand(h.shape, generator=self.generator) * random.random() * np.random.rand()  # noqa: NPY002
        h = nn.functional.gelu(self.frozen(self.up(nn.functional.dropout(h.flatten(1), 0.1))))
        return self.down(self.layer_norm(h))


def batch(step: int, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 1, 6, 6, generator=generator), torch.randint(3, (size,), generator=generator)


UNITS = [
    supple.UnitGroup(
        "conv",
        4,
        supple.Feature("drop", "input", supple.Slice("", dim=1)),
        (supple.Slice("conv.weight"),),
        (supple.Consumer(supple.Slice("up.weight", dim=1, repeat=16)),),
    ),
    supple.UnitGroup(
        "up",
        12,
        supple.Feature("layer_norm", "input", supple.Slice("", dim=-1)),
        (supple.Slice("up.weight"),),
        (supple.Consumer(supple.Slice("down.weight", dim=1)),),
    ),
]


def trained(steps: int = 4, by_hand: bool = False, autocast: bool = False, **options: Any) -> tuple[Any, ...]:
    """A network after some steps, watched if there are options, and everything that tells of them."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    model = Restless()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    watch = None
    if options:
        by = None if by_hand else optimizer
        watch = supple.watch(model, UNITS, batch=batch(99)[0], optimizer=by, every=1, **options)
    losses = []
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if watch is not None and by_hand:
                watch.measure()  # before the forward pass, and where autocast keeps what it has cast
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    state = [*model.state_dict().values(), *(p.grad for p in model.parameters()), *losses]
    state += [value for one in optimizer.state.values() for value in one.values()]
    random_state = [torch.get_rng_state(), model.generator.get_state()]
    random_state.append(torch.tensor([random.random(), np.random.rand()]))  # noqa: NPY002
    return [*state, *random_state], [module.training for module in model.modules()], watch


@pytest.fixture(scope="module")
def alone() -> dict[bool, tuple[Any, ...]]:
    return {autocast: trained(autocast=autocast) for autocast in (False, True)}


@pytest.mark.parametrize("measures", [MEASURES, *([one] for one in MEASURES)], ids=["all", *MEASURES])
def test_watching_changes_no_bit(measures: Any, alone: dict[bool, tuple[Any, ...]]) -> None:
    state, modes, watch = trained(measures=measures)
    assert len(watch.history) == 4
    assert all(len(row) > 1 for row in watch.history)
    assert modes == alone[False][1]
    assert all(torch.equal(one, other) for one, other in zip(state, alone[False][0], strict=True))


@pytest.mark.parametrize("autocast", [False, True])
def test_measuring_by_hand_changes_no_bit(autocast: bool, alone: dict[bool, tuple[Any, ...]]) -> None:
    state, modes, _ = trained(by_hand=True, autocast=autocast, measures=MEASURES)
    assert modes == alone[autocast][1]
    assert all(torch.equal(one, other) for one, other in zip(state, alone[autocast][0], strict=True))


def test_numbers_against_slow_formulas() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].bias[0], model[0].bias[1] = -5.0, 5.0  # dead, and linear
        model[2].weight[:, 1] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, start = torch.randn(300, 5), copy.deepcopy(model)
    first_weights = torch.cat([p.flatten() for p in start.parameters()])
    watch = supple.watch(model, x, optimizer=optimizer, every=3, thresholds=(0.025, 0.5))
    for _ in range(3):
        before = copy.deepcopy(model)
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        optimizer.step()
    (row,) = watch.history
    first = model[0](x).relu().detach()
    second = model[:5](x).detach()
    magnitude = first.abs().mean(dim=0)
    scores = model[0].weight.grad.abs().mean(dim=1)
    singular = np.linalg.svd(first.double().numpy(), compute_uv=False)
    shares = singular / singular.sum()
    positive = (second > 0).double().mean(dim=0).numpy()
    ours = {
        "0/dormant_0.025": (magnitude <= 0.025 * magnitude.mean()).float().mean(),
        "0/dormant_0.5": (magnitude <= 0.5 * magnitude.mean()).float().mean(),
        "0/dead": 1 / 6,
        "0/linearized": 1 / 6,
        "0/saturated": (first == 0).float().mean(),
        "dead": ((first == 0).all(dim=0).sum() + (second.abs() >= 0.99).all(dim=0).sum()) / 10,
        "2/sign_entropy": sum(-p * np.log2(p) - (1 - p) * np.log2(1 - p) for p in positive if 0 < p < 1) / 4,
        "0/feature_rank": 1 + int((np.cumsum(shares) < 0.99).sum()),
        "0/effective_rank": np.exp(-(shares[shares > 1e-12] * np.log(shares[shares > 1e-12])).sum()),
        "0/stable_rank": (singular**2).sum() / singular[0] ** 2,
        "0/grama_0.025": (scores <= 0.025 * scores.mean()).float().mean(),
        "0/weight_magnitude": model[0].weight.abs().mean(),
        "weight_magnitude": torch.cat([p.flatten() for p in model.parameters()]).abs().mean(),
        "3/scale_magnitude": model[3].weight.abs().mean(),
        "0/distance": (model[0].weight - start[0].weight).norm(),
        "distance": (torch.cat([p.flatten() for p in model.parameters()]) - first_weights).norm(),
        "2/update_ratio": (model[2].weight - before[2].weight).norm() / before[2].weight.norm(),
        "2/spectral_norm": np.linalg.norm(model[2].weight.detach().numpy(), ord=2),
        "2/gradient_magnitude": model[2].weight.grad.abs().mean(),
        "0/zero_gradients": (model[0].weight.grad == 0).float().mean(),
    }
    assert row["step"] == 3
    assert row["plasticity/2/sign_entropy"] > 0.1
    for name, expected in ours.items():
        assert row[f"plasticity/{name}"] == pytest.approx(float(torch.as_tensor(expected).detach()), rel=1e-5), name
    assert "plasticity/2/linearized" not in row  # of tanh
    by_hand = watch.measure()
    assert {name for name in row if name not in by_hand} == {"step", *(n for n in row if n.endswith("update_ratio"))}


def test_features_of_a_transformer_are_its_units() -> None:
    model = nn.TransformerEncoderLayer(d_model=4, nhead=2, dim_feedforward=8, batch_first=True)
    with torch.no_grad():
        model.linear1.bias[:2] = -100.0
    values = supple.watch(model, torch.randn(6, 5, 4)).measure()
    assert values["plasticity/linear1/dead"] == 0.25
    assert values["plasticity/linear1/dormant"] == 0.25


def test_large_layers_are_sampled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 2))
    x = torch.randn(20_000, 40)
    exact = supple.watch(model, x, sample=20_000).measure()
    sampled = supple.watch(model, x, sample=2000).measure()
    assert exact != sampled
    for name in ("saturated", "sign_entropy", "effective_rank", "stable_rank"):
        assert sampled[f"plasticity/0/{name}"] == pytest.approx(exact[f"plasticity/0/{name}"], rel=0.03), name


def test_distances_of_large_weights_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved() -> dict[str, float]:
        torch.manual_seed(0)
        model = nn.Linear(300, 200)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        watch = supple.watch(model, [], optimizer=optimizer, every=1, measures=["distance", "update_ratio"])
        model(torch.randn(5, 300)).square().sum().backward()
        optimizer.step()
        return watch.history[0]

    exact = moved()
    monkeypatch.setattr("supple.metrics.measuring._ENTRIES", 5000)
    assert moved() == pytest.approx(exact, rel=0.05)


def small() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()


def test_units_by_hand_a_batch_of_its_own_and_keywords() -> None:
    model, _ = small()
    x = torch.randn(50, 4)
    found = supple.watch(model, supple.units(model), batch=x).measure()
    assert found == supple.watch(model, x[:1], batch={"input": x}).measure()
    assert found == supple.watch(model, batch=(x,)).measure()
    assert list(supple.watch(model, [], measures="spectral_norm").measure()) == [
        "plasticity/0/spectral_norm",
        "plasticity/2/spectral_norm",
    ]
    x.zero_()
    watch = supple.watch(model, batch=torch.randn(50, 4), prefix="", activation={"0": "gelu"})
    assert "gelu" in repr(watch)
    assert "0/dead" in watch.measure()


def test_compiled_networks_and_wrapped_optimizers() -> None:
    model, optimizer = small()
    compiled = torch.compile(model, backend="eager")
    watch = supple.watch(compiled, torch.randn(50, 4), optimizer=optimizer, every=2)
    for _ in range(4):
        step(compiled, optimizer)
    assert [row["step"] for row in watch.history] == [2, 4]
    watch.close()
    step(compiled, optimizer)
    assert watch.steps == 4


class Inherited(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class WithoutHooks(torch.optim.Optimizer):
    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.param_groups, self.state = inner.param_groups, inner.state

    def step(self, closure: Any = None) -> Any: ...


def test_each_step_counts_once_however_the_optimizer_takes_it() -> None:
    model, plain = small()
    inherited = Inherited(model.parameters(), lr=0.1)
    watch = supple.watch(model, torch.randn(50, 4), optimizer=inherited, every=2)
    for _ in range(4):
        step(model, inherited)
    assert [row["step"] for row in watch.history] == [2, 4]
    watch.close()
    watch = supple.watch(model, torch.randn(50, 4), optimizer=plain, every=2)
    compiled = torch.compile(plain.step, backend="eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "measuring failed")
        for _ in range(4):
            model(torch.randn(8, 4)).square().mean().backward()
            compiled()
    assert [row["step"] for row in watch.history] == [2, 4]
    with pytest.raises(ValueError, match=r"step\(\) of this WithoutHooks calls no hooks.*watch\.measure\(\)"):
        supple.watch(model, torch.randn(50, 4), optimizer=WithoutHooks(plain))


def test_what_is_not_finite_is_not_called_healthy() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    model(torch.randn(8, 4)).sum().backward()
    numbers = supple.watch(model, torch.randn(50, 4)).measure()
    weights = {"2/weight_magnitude", "2/distance", "2/spectral_norm", "0/gradient_magnitude"}
    gradients = {"grama", "0/grama", "zero_gradients", "0/zero_gradients", "2/zero_gradients"}
    known = {name.removeprefix("plasticity/") for name, number in numbers.items() if not np.isnan(number)}
    assert known == weights | gradients


def test_going_on_from_a_checkpoint() -> None:
    torch.manual_seed(0)
    model, optimizer = small()
    x = torch.randn(50, 4)
    watch = supple.watch(model, x, optimizer=optimizer, every=3)
    for _ in range(2):
        step(model, optimizer)
    again = copy.deepcopy(model)
    other = torch.optim.SGD(again.parameters(), lr=0.1)
    resumed = supple.watch(again, x, optimizer=other, every=3)
    resumed.load_state_dict(copy.deepcopy(watch.state_dict()))
    for one in ((model, optimizer), (again, other)):
        torch.manual_seed(7)
        step(*one)
    assert len(watch.history) == 1
    assert watch.history == resumed.history


class OnlyTraining(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("this one is for training")
        return self[2](self[1](self[0](x)))


class Single(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_bad_input_is_named() -> None:
    model, optimizer = small()
    x = torch.randn(50, 4)
    with pytest.raises(ValueError, match="the SGD holds no parameter of this Sequential"):
        supple.watch(nn.Sequential(nn.Linear(4, 4)), x, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"batch of shape \(50, 5\).*did run on the example of shape \(50, 4\)"):
        supple.watch(model, x, batch=torch.randn(50, 5))
    training = OnlyTraining(*small()[0])
    with pytest.raises(ValueError, match=r"OnlyTraining does not run in evaluation mode.*this one is for training"):
        supple.watch(training, supple.units(model), batch=x)
    with pytest.raises(ValueError, match=r"no examples in the batch of shape \(0, 4\)"):
        supple.watch(model, x, batch=torch.zeros(0, 4))
    with pytest.raises(ValueError, match=r"(?s)no hidden units.*supple\.watch\(model, \[\]\)"):
        supple.watch(Single(4, 2), x)
    with pytest.raises(ValueError, match="no batch to measure the units on"):
        supple.watch(model)
    with pytest.raises(ValueError, match="Did you mean 'dormant'"):
        supple.watch(model, x, measures=["dorment"])
    with pytest.raises(ValueError, match="every is 0"):
        supple.watch(model, x, every=0)
    with pytest.raises(ValueError, match="activation 'rellu' is not known"):
        supple.watch(model, x, activation="rellu")
    with pytest.raises(ValueError, match="speaks of '1', which is no group"):
        supple.watch(model, x, activation={"1": "relu"})
    with pytest.raises(ValueError, match=r"stack\.replica\(0\)"):
        supple.watch(StackedMLP([0, 1], 4, 3), x)
    with pytest.raises(TypeError, match="log is a int"):
        supple.watch(model, x, log=3)
    assert not optimizer._optimizer_step_post_hooks


def test_training_goes_on_when_the_log_or_the_model_fails() -> None:
    model, optimizer = small()

    def broken(values: dict[str, float]) -> None:
        raise OSError("disk full")

    watch = supple.watch(model, torch.randn(50, 4), optimizer=optimizer, every=1, log=broken)
    with pytest.warns(UserWarning, match="the log failed at step 1; training goes on.*disk full"):
        step(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(model, optimizer)
    assert len(watch.history) == 2
    watch._inputs = ((torch.randn(3, 9),), {})
    with pytest.warns(UserWarning, match="measuring failed at step 3; training goes on"):
        step(model, optimizer)
    with pytest.raises(ValueError, match="does not run"):
        watch.measure()
    assert [module.training for module in model.modules()] == [True] * 4
    assert watching.watch is supple.watch
