"""The three lines in the training loops that people write."""

import copy
import warnings

import pytest
import torch
from helpers import batch, network
from torch import nn

import supple

OPTIMIZERS = {
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.3),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
}
METHODS = {
    "L2": lambda m, o, state: supple.L2(m, o, l2=1e-4),
    "S&P": lambda m, o, state: supple.ShrinkAndPerturb(m, o, l2=1e-4, variance=1e-8),
    "SWR": lambda m, o, state: supple.SWR(m, o, frequency=5, factor=0.05, optimizer_state=state),
    "CBP": lambda m, o, state: supple.CBP(m, o, maturity=5, replacement_rate=0.01, optimizer_state=state),
    "ReDo": lambda m, o, state: supple.ReDo(m, o, frequency=5, threshold=0.1, optimizer_state=state),
}
every_optimizer = pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
every_method = pytest.mark.parametrize("method_name", METHODS)


def loss_of(model, x, y):
    return nn.functional.cross_entropy(model(x), y)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("state", ["keep", "fresh"])
@every_optimizer
@every_method
def test_three_lines_and_the_network_learns(method_name, optimizer_name, state):
    model = network()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    method = METHODS[method_name](model, optimizer, state)
    first = float(loss_of(model, *batch(10_000, 500)).detach())
    for step in range(60):
        optimizer.zero_grad()
        loss_of(model, *batch(step)).backward()
        optimizer.step()
        method.step()
    assert float(loss_of(model, *batch(10_000, 500)).detach()) < first - 0.02
    assert int(method.reinitialized.total) >= (1 if method_name in ("SWR", "CBP") else 0)


@pytest.mark.one_in(2)
@every_method
def test_groups_and_a_scheduler(method_name):
    model = network()
    optimizer = torch.optim.AdamW(
        [{"params": model[:2].parameters(), "lr": 1e-3}, {"params": model[2:].parameters(), "weight_decay": 0.1}]
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=60)
    method = METHODS[method_name](model, optimizer, "fresh")
    first = float(loss_of(model, *batch(10_000, 500)).detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(60):
            optimizer.zero_grad()
            loss_of(model, *batch(step)).backward()
            optimizer.step()
            method.step()
            scheduler.step()
    assert float(loss_of(model, *batch(10_000, 500)).detach()) < first - 0.02


def double(kind, model, optimizer=None):
    return {
        "SWR": lambda: supple.SWR(model, optimizer, frequency=2, factor=0.3),
        "CBP": lambda: supple.CBP(model, optimizer, maturity=1, replacement_rate=0.1),
        "CBP averaged": lambda: supple.CBP(
            model, optimizer, maturity=1, replacement_rate=0.1, decay=0.9, utility="activation", absorb_mean=True
        ),
        "CBP gradient": lambda: supple.CBP(model, optimizer, maturity=1, replacement_rate=0.1, utility="gradient"),
        "ReDo": lambda: supple.ReDo(model, optimizer, frequency=2, threshold=0.4),
        "ReDo gradient": lambda: supple.ReDo(model, optimizer, frequency=2, threshold=0.4, utility="gradient"),
    }[kind]()


DOUBLE = ["SWR", "CBP", "CBP averaged", "CBP gradient", "ReDo", "ReDo gradient"]


def run(kind, parts, before_step=lambda model: None, scale=1.0, steps=12):
    """Training in double precision, each batch in parts of the given sizes."""
    model = network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = double(kind, model, optimizer)
    counts = []
    for step in range(steps):
        x, y = batch(step, 24)
        optimizer.zero_grad()
        for inputs, labels in zip(x.double().split(parts), y.split(parts), strict=True):
            (scale * loss_of(model, inputs, labels) * len(inputs) / 24).backward()
        for p in model.parameters():
            p.grad /= scale
        optimizer.step()
        for p in model.parameters():
            p.grad *= scale
        method.step()
        counts.append(int(method.reinitialized.last))
    return list(model.parameters()), counts


@pytest.mark.parametrize("kind", DOUBLE)
def test_accumulated_gradients_are_one_large_batch(kind):
    whole, counts = run(kind, [24])
    for parts in ([12, 12], [1, 20, 3]):
        pieces, theirs = run(kind, parts)
        assert theirs == counts
        for one, other in zip(whole, pieces, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert sum(counts) > 0


@pytest.mark.parametrize("kind", DOUBLE)
def test_a_scaled_loss_selects_the_same(kind):
    plain, counts = run(kind, [24])
    scaled, theirs = run(kind, [24], scale=2.0**16)
    assert theirs == counts
    assert sum(counts) > 0
    for one, other in zip(plain, scaled, strict=True):
        assert torch.equal(one, other)  # a power of two scales without rounding


@every_method
def test_a_gradient_scaler(method_name):
    """unscale_ divides the gradients in place; without it they stay scaled. Both select the same."""
    results = []
    for unscales in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        method = METHODS[method_name](model, optimizer, "keep")
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
        for step in range(20):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model, *batch(step))
            scaler.scale(loss).backward()
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            method.step()
        results.append((copy.deepcopy(model.state_dict()), int(method.reinitialized.total)))
    assert results[0][1] == results[1][1]
    for name, value in results[0][0].items():
        assert torch.equal(value, results[1][0][name])


@pytest.mark.parametrize("kind", ["SWR", "CBP", "ReDo"])
def test_weights_in_half_precision(kind):
    model = network().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = double(kind, model, optimizer)
    for step in range(10):
        x, y = batch(step)
        optimizer.zero_grad()
        loss_of(model, x.bfloat16(), y).backward()
        optimizer.step()
        method.step()
    assert int(method.reinitialized.total) > 0
    assert all(p.dtype == torch.bfloat16 and bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("kind", ["SWR", "CBP", "ReDo"])
def test_a_closure(kind):
    """An optimizer that evaluates the loss itself reads features as often as it does so, as one larger batch."""
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    method = double(kind, model, optimizer)
    for step in range(4):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, *batch(step))
            loss.backward()
            return loss

        optimizer.step(closure)
        method.step()
    assert int(method.reinitialized.total) > 0
    assert all(bool(p.isfinite().all()) for p in model.parameters())


class Doubling(nn.Module):
    """Takes a flag besides its input, and gives it back besides its output."""

    def forward(self, flag=True, *, x, mask=None):
        return 2 * x if flag else x, flag


class Wrapped(nn.Module):
    """Calls its layers with keyword arguments, as attention blocks do, or with a tuple."""

    def __init__(self, style):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.doubling, self.out = nn.Linear(6, 16), Doubling(), nn.Linear(16, 2)
        self.style = style

    def forward(self, x):
        features = torch.relu(self.fc(x))
        doubled, _ = self.doubling(True, x=features) if self.style == "flag first" else self.doubling(x=features)
        return self.out(doubled) if self.style == "positional" else self.out(input=doubled)


def described(module, where="input"):
    return [
        supple.UnitGroup(
            "fc",
            16,
            supple.Feature(module, where, supple.Slice("", dim=-1)),
            (supple.Slice("fc.weight"),),
            (supple.Consumer(supple.Slice("out.weight", dim=1), "out.bias"),),
            (supple.Slice("fc.bias"),),
        )
    ]


def replaced(style, units, steps=6):
    model = Wrapped(style)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = supple.CBP(model, optimizer, maturity=1, replacement_rate=0.1, units=units)
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(model, *batch(step)).backward()
        optimizer.step()
        method.step()
    assert int(method.reinitialized.total) > 0
    return list(model.parameters())


@pytest.mark.parametrize("module", ["out", "doubling"])
def test_a_module_called_with_keywords_is_read_as_one_called_without(module):
    """Doubled features have the same order of utility."""
    expected = replaced("positional", described("out"))
    for mine, theirs in zip(replaced("keywords", described(module)), expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("style", "where", "kind"), [("flag first", "input", "bool"), ("keywords", "output", "tuple")])
def test_features_that_are_no_tensor_are_refused_by_name(style, where, kind):
    with pytest.raises(TypeError, match=f"read at the {where} of module 'doubling', which is a {kind}, not a tensor"):
        replaced(style, described("doubling", where))
