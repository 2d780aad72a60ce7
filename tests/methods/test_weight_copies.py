"""Optimizers that keep copies of the weights, wrap others, or remember things in other ways."""

import copy
import gc
import weakref

import pytest
import torch

import supple
from supple.methods.optimizer_parts import follows

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
schedulefree = pytest.importorskip("schedulefree")
prodigyopt = pytest.importorskip("prodigyopt")


def network():
    torch.manual_seed(0)
    sizes = [torch.nn.Linear(8, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24), torch.nn.ReLU(), torch.nn.Linear(24, 2)]
    return torch.nn.Sequential(*sizes)


def fit(model, optimizer, method, steps):
    for step in steps:
        optimizer.zero_grad()
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step)).to(model[0].weight.dtype)
        model(x).square().mean().backward()
        optimizer.step()
        if method is not None:
            method.step()


def outgoing(model, dead):
    return model[4].weight.detach()[:, dead].abs().max()


@pytest.mark.parametrize("state", ["keep", "mean", None])
def test_lookahead_does_not_bring_replaced_units_back(state):
    model = network()
    optimizer = pytorch_optimizer.Lookahead(torch.optim.Adam(model.parameters(), lr=1e-3), k=5, alpha=0.5)
    method = supple.CBP(model, optimizer, maturity=3, replacement_rate=0.5, optimizer_state=state)
    fit(model, optimizer, method, range(4))
    dead = (model[4].weight.detach() == 0).all(0).nonzero().flatten()
    assert len(dead) >= 6
    slow = optimizer.state[model[4].weight]["slow_params"]
    assert not slow[:, dead].any()
    fit(model, optimizer, None, range(4, 5))  # the step in which it goes back half of the way to its copy
    assert outgoing(model, dead) < 5e-3


@pytest.mark.parametrize("state", ["keep", None])
@pytest.mark.parametrize("kind", ["AdamWScheduleFree", "RAdamScheduleFree", "SGDScheduleFree"])
def test_replaced_units_are_off_where_a_schedule_free_optimizer_is_evaluated(kind, state):
    model = network()
    optimizer = getattr(schedulefree, kind)(model.parameters(), lr=1e-2)
    optimizer.train()
    method = supple.CBP(model, optimizer, maturity=29, replacement_rate=0.5, optimizer_state=state)
    fit(model, optimizer, method, range(30))
    dead = (model[4].weight.detach() == 0).all(0).nonzero().flatten()
    assert len(dead) >= 6
    optimizer.eval()
    assert outgoing(model, dead) < 1e-7
    optimizer.train()
    assert outgoing(model, dead) < 1e-7


def test_a_schedule_free_optimizer_that_is_not_asked_to_train_yet():
    model = network()
    optimizer = schedulefree.AdamWScheduleFree(model.parameters(), lr=1e-2)
    method = supple.CBP(model, optimizer, maturity=1, replacement_rate=0.5)
    optimizer.train()
    fit(model, optimizer, method, range(3))
    assert int(method.reinitialized.total) > 0


def test_prodigy_measures_its_distance_from_the_new_value():
    model = network()
    optimizer = prodigyopt.Prodigy(model.parameters())
    method = supple.SWR(model, optimizer, frequency=5, factor=0.3, pruning="proportional", optimizer_state="fresh")
    fit(model, optimizer, method, range(4))
    weight = model[2].weight
    states = copy.deepcopy(optimizer.state[weight])
    before = weight.detach().clone()
    model.zero_grad()
    fit(model, optimizer, None, range(4, 5))
    before, states = weight.detach().clone(), copy.deepcopy(optimizer.state[weight])
    method.step()
    changed = weight.detach() != before
    assert 0 < changed.sum() < changed.numel()
    state = {name: value.view_as(weight) for name, value in optimizer.state[weight].items() if name != "step"}
    assert torch.equal(state["p0"][changed], weight.detach()[changed])
    for name in ("s", "exp_avg", "exp_avg_sq"):
        assert not state[name][changed].any()
    for name, value in state.items():
        assert torch.equal(value[~changed], states[name].view_as(weight)[~changed])


@pytest.mark.parametrize(
    "make", [lambda m: supple.L2(m[0], m[1], l2=0.1), lambda m: supple.ShrinkAndPerturb(*m, l2=0.1)]
)
def test_what_changes_all_weights_a_little_changes_copies_too(make):
    model = network()
    optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=1e-2)
    optimizer.train()
    method = make((model, optimizer))
    fit(model, optimizer, None, range(5))
    before = [p.detach().clone() for p in model.parameters()]
    copies = [optimizer.state[p]["z"].clone() for p in model.parameters()]
    method.step()
    for p, old, z in zip(model.parameters(), before, copies, strict=True):
        torch.testing.assert_close(optimizer.state[p]["z"] - z, p.detach() - old)
        assert (p.detach() - old).any()


class Slow(torch.optim.SGD):
    """Lookahead as many write it: the copies stand in an attribute."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr)
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]

    def step(self, closure=None):
        super().step(closure)
        for group, slow in zip(self.param_groups, self.slow, strict=True):
            for p, q in zip(group["params"], slow, strict=True):
                q.add_(p.detach() - q, alpha=0.5)
                p.data.copy_(q)


class Masters(torch.optim.Optimizer):
    """Weights in half precision, whose optimizer works on float32 copies of its own."""

    def __init__(self, params, lr):
        super().__init__(list(params), {"lr": lr})
        self.inner = None

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        if self.inner is None:
            self.masters = [p.detach().float().clone() for p in parameters]
            self.inner = torch.optim.SGD(self.masters, lr=self.defaults["lr"])
        for p, master in zip(parameters, self.masters, strict=True):
            master.grad = p.grad.float()
        self.inner.step()
        for p, master in zip(parameters, self.masters, strict=True):
            p.data.copy_(master)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("state", ["keep", "fresh", "mean", None])
@pytest.mark.parametrize("kind", [Slow, Masters])
def test_copies_that_cannot_be_reached_are_refused_when_the_method_is_made(kind, state):
    model = network()
    optimizer = kind(model.parameters(), 0.1)
    for method in (supple.SWR, supple.CBP, supple.ReDo):
        with pytest.raises(ValueError, match=rf"^\S+: .*{kind.__name__}.*; use "):
            method(model, optimizer, optimizer_state=state)
    with pytest.raises(ValueError, match=kind.__name__):
        supple.L2(model, optimizer)
    assert all(p.grad is None for p in model.parameters())


class HalfMasters(torch.optim.SGD):
    """Float32 copies in the state."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                master = self.state[p].setdefault("master", p.detach().float().clone())
                master.sub_(p.grad.float(), alpha=group["lr"])
                p.data.copy_(master)


@pytest.mark.parametrize("state", ["keep", "fresh"])
def test_copies_in_single_precision_follow(state):
    model = network().bfloat16()
    optimizer = HalfMasters(model.parameters(), lr=0.1)
    method = supple.SWR(
        model, optimizer, frequency=3, factor=0.3, pruning="proportional", utility="random", optimizer_state=state
    )
    fit(model, optimizer, method, range(2))
    fit(model, optimizer, None, range(2, 3))
    before = [p.detach().clone() for p in model.parameters()]
    method.step()
    for p, old in zip(model.parameters(), before, strict=True):
        changed = p.detach() != old
        assert changed.any()
        assert torch.equal(optimizer.state[p]["master"][changed], p.detach()[changed].float())


def test_an_optimizer_made_after_the_method_is_noticed():
    model = network()
    method = supple.SWR(model, torch.optim.Adam(model.parameters()), frequency=1000, optimizer_state="fresh")
    fit(model, torch.optim.Adam(model.parameters()), method, range(5))
    with pytest.raises(RuntimeError, match=r"the Adam that SWR was made with has taken no step in 10 steps"):
        fit(model, torch.optim.Adam(model.parameters()), method, range(5, 30))


def test_a_scaler_that_skips_steps_and_an_optimizer_that_was_loaded_are_no_other_optimizer():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    method = supple.SWR(model, optimizer, frequency=1000, optimizer_state="fresh")
    fit(model, optimizer, method, range(3))
    for _ in range(40):
        method.step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fit(model, optimizer, method, range(30))


def test_parameters_that_come_later_or_move_to_another_group():
    model = network()
    optimizer = torch.optim.Rprop(model[0].parameters(), lr=0.01)
    optimizer.add_param_group({"params": [*model[2].parameters(), *model[4].parameters()], "lr": 0.5})
    method = supple.SWR(model, optimizer, frequency=1, factor=1, pruning="proportional", optimizer_state="fresh")
    fit(model, optimizer, method, range(2))
    moved = optimizer.param_groups[1]["params"].pop()
    optimizer.add_param_group({"params": [moved], "lr": 0.25})
    fit(model, optimizer, method, range(2, 3))
    assert (optimizer.state[moved]["step_size"] == 0.25).all()
    optimizer.param_groups.pop()
    with pytest.raises(ValueError, match=r"4.bias: .*is not in the Rprop"):
        fit(model, optimizer, method, range(3, 4))


def test_two_optimizers_of_the_same_settings_have_their_own_step_sizes_and_no_network_is_kept():
    models = [network(), network()]
    optimizers = [torch.optim.Rprop(one.parameters(), lr=0.0625) for one in models]
    methods = [
        supple.SWR(one, by, frequency=1, factor=1, pruning="proportional", optimizer_state="fresh")
        for one, by in zip(models, optimizers, strict=True)
    ]
    optimizers[1].param_groups[0]["lr"] = 0.125
    for one, by, acting, rate in zip(models, optimizers, methods, (0.0625, 0.125), strict=True):
        fit(one, by, acting, range(1))
        assert (by.state[one[0].weight]["step_size"] == rate).all()
    gone = weakref.ref(models[0][0].weight)
    del models, optimizers, methods, one, by, acting
    gc.collect()
    assert gone() is None


def test_what_is_a_copy():
    values = torch.randn(4, 3)
    assert follows(values + 0.1 * torch.randn(4, 3), values)
    assert follows(values.flatten(), values)
    assert not follows(torch.randn(4, 3), values)
    assert not follows(torch.zeros(4, 3), torch.zeros(4, 3))


@pytest.mark.parametrize("kind", ["units", "weights"])
def test_the_mean_is_that_of_the_others(kind):
    model = network().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if kind == "units":
        method = supple.CBP(model, optimizer, maturity=0, replacement_rate=0.2, optimizer_state="mean")
    else:
        method = supple.SWR(model, optimizer, frequency=5, factor=0.2, pruning="proportional", optimizer_state="mean")
    fit(model, optimizer, method, range(4))
    fit(model, optimizer, None, range(4, 5))
    weight = model[0].weight
    before, state = weight.detach().clone(), copy.deepcopy(optimizer.state[weight])
    method.step()
    changed = weight.detach() != before
    assert 0 < changed.sum() < changed.numel()
    assert not optimizer.state[weight]["exp_avg"][changed].any()
    squares = state["exp_avg_sq"]
    for i, j in changed.nonzero().tolist():
        # Of a unit, what the others have for the same input; of a weight, what the others of its parameter have.
        others = squares[~changed[:, j], j] if kind == "units" else squares[~changed]
        torch.testing.assert_close(optimizer.state[weight]["exp_avg_sq"][i, j], others.mean())
    assert torch.equal(optimizer.state[weight]["exp_avg_sq"][~changed], squares[~changed])


@pytest.mark.parametrize("state", ["keep", None])
def test_copies_follow_units_that_are_moved_a_little_and_biases_that_absorb_a_mean(state):
    """By as much as the weights, so that a schedule-free optimizer goes on from where they are."""
    for make in (
        lambda m, o: supple.CPR(m, o, frequency=6, replacement_rate=0.5, threshold=1e9, optimizer_state=state),
        lambda m, o: supple.CBP(m, o, maturity=5, replacement_rate=0.1, absorb_mean=True, optimizer_state=state),
    ):
        model = network()
        optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=1e-2)
        optimizer.train()
        method = make(model, optimizer)
        fit(model, optimizer, method, range(5))
        model.zero_grad()
        fit(model, optimizer, None, range(5, 6))
        before = [p.detach().clone() for p in model.parameters()]
        copies = [optimizer.state[p]["z"].clone() for p in model.parameters()]
        if isinstance(method, supple.CBP):
            model(torch.randn(16, 8, generator=torch.Generator().manual_seed(5)))
        method.step()
        assert int(method.reinitialized.last) > 0
        moved = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
        came = [optimizer.state[p]["z"] - z for p, z in zip(model.parameters(), copies, strict=True)]
        if isinstance(method, supple.CBP):
            moved, came = moved[5:], came[5:]  # weights are replaced, where a copy takes the value itself
        assert any(bool(one.any()) for one in moved)
        for one, other in zip(moved, came, strict=True):
            torch.testing.assert_close(one, other)
