"""Fresh optimizer state: what the optimizer itself gives a new entry."""

import copy

import pytest
import torch
from helpers import backward, network

import supple
from supple.lab.nn import StackedMLP
from supple.optim import SGDW, AdamW

LR = 0.03
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=LR),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=LR, weight_decay=0.1),
    "Adam amsgrad": lambda p: torch.optim.Adam(p, lr=LR, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=LR),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=LR, fused=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=LR, foreach=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=LR, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=LR, initial_accumulator_value=0.25),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=LR, t0=1, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=LR),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=LR),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=LR),
}
# What the documentation of each optimizer says a new entry has; zero for all others.
NEW = {"Adagrad": {"sum": 0.25}, "Rprop": {"step_size": LR}}


def fit(model, optimizer, step):
    backward(model, step, 8, 6)
    optimizer.step()


def wanted(optimizer, key, weight):
    if optimizer == "ASGD" and key == "ax":
        return weight
    return torch.full_like(weight, NEW.get(optimizer, {}).get(key, 0.0))


def methods_of(model, optimizer):
    yield supple.SWR(
        model, optimizer, frequency=1, factor=0.4, pruning="proportional", utility="magnitude", optimizer_state="fresh"
    )
    yield supple.CBP(model, optimizer, maturity=0, replacement_rate=0.4, optimizer_state="fresh")
    yield supple.ReDo(model, optimizer, frequency=1, threshold=1, utility="gradient", optimizer_state="fresh")


@pytest.mark.one_in(8)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["SWR", "CBP", "ReDo"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reinitialized_entries_get_what_a_new_entry_gets_and_others_keep_theirs(name, which):
    model = network().double()
    optimizer = OPTIMIZERS[name](model.parameters())
    method = list(methods_of(model, optimizer))[which]
    fit(model, optimizer, 0)
    for step in (1, 2, 3):
        fit(model, optimizer, step)
        weights = {p: p.detach().clone() for p in model.parameters()}
        states = {p: copy.deepcopy(optimizer.state[p]) for p in model.parameters()}
        method.step()
        changes = 0
        for p in model.parameters():
            changed = p.detach() != weights[p]
            changes += int(changed.sum())
            for key, old in states[p].items():
                new = optimizer.state[p][key]
                if not isinstance(old, torch.Tensor) or old.shape != p.shape:
                    assert new == old, key
                    continue
                fresh = wanted(name, key, p.detach())
                expected = torch.where(changed, fresh, old)
                # Entries set to the value that they had are reinitialized, too, but cannot be told from here.
                unsure = ~changed & (p.detach() == 0)
                assert torch.equal(torch.where(unsure, 0.0, new), torch.where(unsure, 0.0, expected)), key
        assert changes > 0


def test_keep_leaves_the_state_as_it_is():
    model = network().double()
    optimizer = torch.optim.Adam(model.parameters())
    method = supple.SWR(model, optimizer, frequency=1, factor=0.9, utility="magnitude")
    fit(model, optimizer, 0)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    method.step()
    assert int(method.reinitialized.last) > 0
    after = optimizer.state_dict()["state"]
    assert len(before) == 4
    for place, state in before.items():
        for key, value in state.items():
            assert torch.equal(after[place][key], value)


def test_a_step_size_changed_by_a_scheduler_is_the_one_new_entries_get():
    model = network().double()
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    method = supple.SWR(model, optimizer, frequency=1, factor=1, pruning="proportional", optimizer_state="fresh")
    for step in range(3):
        fit(model, optimizer, step)
        rate = optimizer.param_groups[0]["lr"]
        method.step()
        for p in model.parameters():
            assert torch.equal(optimizer.state[p]["step_size"], torch.full_like(p, rate))
        scheduler.step()


def test_groups_have_their_own_settings():
    model = network().double()
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.5}]
    optimizer = torch.optim.Rprop(groups)
    method = supple.SWR(model, optimizer, frequency=1, factor=1, pruning="proportional", optimizer_state="fresh")
    fit(model, optimizer, 0)
    method.step()
    assert bool((optimizer.state[model[0].weight]["step_size"] == 0.01).all())
    assert bool((optimizer.state[model[2].weight]["step_size"] == 0.5).all())


def test_the_optimizer_itself_is_not_touched_by_the_search():
    model = network().double()
    optimizer = torch.optim.Adam(model.parameters())
    calls = []
    optimizer.register_step_post_hook(lambda *arguments: calls.append(1))
    method = supple.SWR(model, optimizer, frequency=1, factor=0.5, optimizer_state="fresh")
    fit(model, optimizer, 0)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    parameters = [id(p) for group in optimizer.param_groups for p in group["params"]]
    owners = list(map(id, optimizer.state))
    method.step()
    assert calls == [1]
    assert groups == [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    assert parameters == [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert owners == list(map(id, optimizer.state))
    assert all(float(state["step"]) == 1 for state in optimizer.state.values())


@pytest.mark.parametrize("kind", [SGDW, AdamW])
def test_stacked_optimizers(kind):
    model = StackedMLP([1, 2], 4, 6, 3, 2)
    optimizer = kind(model.parameters(), lr=torch.tensor([0.1, 0.2]), **({"momentum": 0.9} if kind is SGDW else {}))
    method = supple.SWR(model, optimizer, frequency=[1, 3], factor=0.5, pruning="proportional", optimizer_state="fresh")
    for step in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        before = {p: p.detach().clone() for p in model.parameters()}
        states = {p: copy.deepcopy(optimizer.state[p]) for p in model.parameters()}
        method.step()
    weight = model.blocks[1].linear.weight
    changed = weight.detach() != before[weight]
    assert changed[0].sum() == 18
    assert not changed[1].any()
    for key, old in states[weight].items():
        if old.shape == weight.shape:
            assert torch.equal(optimizer.state[weight][key], torch.where(changed, 0.0, old))


def test_what_cannot_be_made_fresh_is_refused():
    model = network().double()
    with pytest.raises(ValueError, match="needs the optimizer"):
        supple.SWR(model, optimizer_state="fresh")
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"0.weight: .*shape \(30, 6\) is not in the SGD"):
        supple.SWR(model, optimizer, optimizer_state="fresh")
    for kind in (torch.optim.LBFGS, torch.optim.SparseAdam):
        with pytest.raises(ValueError, match=rf'what {kind.__name__} gives a new entry .*optimizer_state="keep"'):
            supple.SWR(model, kind(model.parameters()), optimizer_state="fresh")


def test_an_optimizer_with_attributes_of_its_own():
    class Scaled(torch.optim.Adam):
        def __init__(self, params, scale):
            super().__init__(params, lr=0.1)
            self.scale = scale

        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad.mul_(self.scale)
            return super().step(closure)

    model = network().double()
    optimizer = Scaled(model.parameters(), 2.0)
    method = supple.SWR(model, optimizer, frequency=1, factor=0.5, optimizer_state="fresh")
    model(torch.ones(1, 6, dtype=torch.float64)).sum().backward()
    optimizer.step()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    method.step()
    fresh = 0
    for old, parameter in zip(before, model.parameters(), strict=True):
        changed = old != parameter
        fresh += int(changed.sum())
        assert (optimizer.state[parameter]["exp_avg"][changed] == 0).all()
    assert fresh > 0


def test_an_optimizer_that_makes_its_state_when_it_is_made():
    class Eager(torch.optim.Optimizer):
        def __init__(self, params, lr=0.1, start=0.25):
            super().__init__(params, {"lr": lr, "start": start})
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter] = {"step": torch.zeros(()), "sum": torch.full_like(parameter, start)}

        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["step"] += 1
                    total = self.state[parameter]["sum"].add_(parameter.grad.square())
                    parameter.data.addcdiv_(parameter.grad, total.sqrt(), value=-group["lr"])

    model = network().double()
    optimizer = Eager(model.parameters())
    method = supple.SWR(model, optimizer, frequency=1, factor=1, pruning="proportional", optimizer_state="fresh")
    fit(model, optimizer, 0)
    method.step()
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["sum"], torch.full_like(parameter, 0.25))


class Belief(torch.optim.Optimizer):
    """AdaBelief: updates are divided by little where gradients are as expected, so that 60 steps tell little."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr, "count": 0})

    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                for name in ("mean", "spread"):
                    state.setdefault(name, torch.zeros_like(parameter))
                state["mean"].mul_(0.9).add_(parameter.grad, alpha=0.1)
                state["spread"].mul_(0.999).addcmul_(*[parameter.grad - state["mean"]] * 2, value=0.001)
                first, second = 1 - 0.9 ** group["count"], 1 - 0.999 ** group["count"]
                update = state["mean"] / first / ((state["spread"] / second).sqrt() + 1e-8)
                parameter.data.sub_(update, alpha=group["lr"])


def test_entries_that_are_hurled_only_after_many_steps_are_refused_too():
    def largest(optimizer, parameter, age):
        before = parameter.detach().clone()
        moved = []
        for step in range(15):
            parameter.grad = torch.randn(200, generator=torch.Generator().manual_seed(age + step))
            optimizer.step()
            moved.append((parameter.detach() - before)[::2].abs().max())
            before = parameter.detach().clone()
        return max(moved)

    old, new = (torch.zeros(200, requires_grad=True) for _ in range(2))
    optimizer = Belief([old])
    for step in range(1500):
        old.grad = torch.randn(200, generator=torch.Generator().manual_seed(step))
        optimizer.step()
    for tensor in optimizer.state[old].values():
        tensor[::2] = 0
    # What is refused is bad indeed: entries made fresh move three times as far as a new optimizer moves them.
    assert largest(optimizer, old, 1500) > 3 * largest(Belief([new]), new, 3000)
    model = torch.nn.Linear(4, 6, bias=False).double()
    with pytest.raises(ValueError, match=r'made fresh, it moves them .*use optimizer_state="mean" or .*"keep"'):
        supple.SWR(model, Belief(model.parameters()), optimizer_state="fresh")
