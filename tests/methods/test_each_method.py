"""What holds for every method of the registry, one variant of each, on an ordinary network of one's own."""

import copy

import pytest
import torch
from every_method import EVERY, build
from helpers import batch, penalty_of
from torch import nn

import supple
from supple.methods.registry import METHODS
from supple.methods.units import UnitMethod

ONE = {kind: next(name for name, (made, *_) in EVERY.items() if made is kind) for kind in METHODS.values()}
each = pytest.mark.parametrize("name", ONE.values())


class Net(nn.Module):
    """A convolution, a normalization, a tied pair, an embedding, and what is never trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(6, 6)
        self.conv, self.norm = nn.Conv1d(1, 4, 3), nn.LayerNorm(16)
        self.first, self.second = nn.Linear(16, 12), nn.Linear(12, 12)
        self.third = nn.Linear(12, 12)
        self.third.weight = self.second.weight
        self.unused, self.frozen = nn.Linear(3, 3), nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = x + self.embed((x > 0).sum(dim=1) % 5)
        x = torch.relu(self.norm(self.conv(x.unsqueeze(1)).flatten(1)))
        x = torch.relu(self.first(x))
        return self.head(torch.relu(self.third(torch.relu(self.second(x)))))


def make(name, model, lr=0.05, adam=False):
    parameters = model.parameters()
    optimizer = torch.optim.Adam(parameters, lr=lr) if adam else torch.optim.SGD(parameters, lr=lr, momentum=0.5)
    units = {}
    if issubclass(EVERY[name][0], UnitMethod):
        units = {"units": supple.units(model, batch(0)[0][:2].to(model.head.bias.dtype))}
    method = build(name, model, optimizer, replica=0, **units)
    if isinstance(method, supple.DASH):
        method.batches = [batch(9)]
        method.loss = lambda network, one: nn.functional.cross_entropy(network(one[0].to(network.head.bias)), one[1])
    return optimizer, method


def train(model, optimizer, method, steps, first=0):
    for step in range(first, first + steps):
        x, y = batch(step)
        optimizer.zero_grad()
        x = x.to(model.head.bias.dtype)
        loss = nn.functional.cross_entropy(model(x), y)
        (loss + penalty_of(method, x, loss)).backward()
        method.before_step()
        optimizer.step()
        method.step()
    if method.acts_at_boundary:
        method.boundary()


def test_every_method_of_the_registry_is_in_the_table():
    assert set(ONE) == set(METHODS.values())


@each
def test_a_network_of_ones_own_trains_and_stays_finite(name):
    model = Net()
    frozen, unused = model.frozen.weight.clone(), model.unused.weight.clone()
    optimizer, method = make(name, model)
    train(model, optimizer, method, 12)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert torch.equal(model.frozen.weight, frozen)
    assert model.third.weight is model.second.weight
    if type(method).reads_gradients:
        assert torch.equal(model.unused.weight, unused)


@each
def test_half_precision(name):
    model = Net().to(torch.bfloat16)
    optimizer, method = make(name, model)
    train(model, optimizer, method, 12)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


@each
def test_a_parameter_that_is_not_finite_stays_alone(name):
    """What is not finite may remain, but spreads to no other parameter, and nothing raises."""
    model = Net()
    optimizer, method = make(name, model)
    train(model, optimizer, method, 2)
    with torch.no_grad():
        model.embed.weight[5] = float("nan")  # a row that is never read
        model.unused.weight[0, 0] = float("nan")
    train(model, optimizer, method, 10, first=2)
    others = [parameter for key, parameter in model.named_parameters() if key not in ("embed.weight", "unused.weight")]
    assert all(bool(parameter.isfinite().all()) for parameter in others)


@each
def test_frozen_later_nothing_changes(name):
    model = Net()
    optimizer, method = make(name, model, lr=0.0)
    train(model, optimizer, method, 1)
    model.first.requires_grad_(False)
    before = [parameter.clone() for parameter in model.first.parameters()]
    train(model, optimizer, method, 10, first=1)
    assert all(torch.equal(old, new) for old, new in zip(before, model.first.parameters(), strict=True))


@each
@pytest.mark.parametrize("adam", [False, True])
def test_what_is_unfrozen_later_is_acted_on_as_if_it_had_always_trained(name, adam):
    ends = []
    for frozen in (False, True):
        model = Net()
        model.second.requires_grad_(not frozen)
        model.norm.requires_grad_(not frozen)
        optimizer, method = make(name, model, adam=adam)
        before = model.second.weight.clone()
        model.requires_grad_(True)
        train(model, optimizer, method, 12)
        # TRAC has not left the start after so few of Adam's small steps.
        assert adam or not torch.equal(before, model.second.weight)
        ends.append([parameter.detach() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@each
@pytest.mark.parametrize("saved", [4, 8])
def test_what_was_unfrozen_goes_on_from_a_saved_state(name, saved):
    """Saved before it is unfrozen, or after; loaded where it trains, or is frozen yet."""

    def begin(frozen=True):
        model = Net()
        model.second.requires_grad_(not frozen)
        return model, *make(name, model)

    whole = begin()
    train(*whole, 4)
    if saved == 8:
        whole[0].second.requires_grad_(True)
        train(*whole, 4, first=4)
    method, weights = copy.deepcopy(whole[2].state_dict()), copy.deepcopy(whole[0].state_dict())
    optimizer = copy.deepcopy(whole[1].state_dict())
    whole[0].second.requires_grad_(True)
    train(*whole, 4, first=saved)
    again = begin(frozen=saved == 8)
    again[0].load_state_dict(weights)
    again[1].load_state_dict(optimizer)
    again[2].load_state_dict(method)
    again[0].second.requires_grad_(True)
    train(*again, 4, first=saved)
    pairs = zip(whole[0].parameters(), again[0].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_weights_that_were_unfrozen_are_acted_on_as_long_as_they_train():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model[2].parameters())
    method = supple.SWR(model, optimizer, frequency=1, factor=1.0, utility="random", pruning="proportional")
    changed = []
    for step in range(6):
        model[0].requires_grad_(2 <= step < 4)
        if step == 2:
            optimizer.add_param_group({"params": [*model[0].parameters()]})
        optimizer.zero_grad()
        model(torch.rand(5, 3)).sum().backward()
        optimizer.step()
        before = model[0].weight.clone()
        method.step()
        changed.append(bool((model[0].weight != before).all()))
    assert changed == [False, False, True, True, False, False]
    assert int(method.reinitialized.total) == 6 * 10 + 2 * 16
    saved = method.state_dict()
    again = supple.SWR(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), utility="random")
    again.load_state_dict(saved)
    assert int(again.reinitialized.total) == 6 * 10 + 2 * 16


def test_what_is_frozen_is_no_evidence_of_training_and_left_out_where_its_distribution_is_not_known():
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2))
    with torch.no_grad():
        model[0].weight += torch.randn(40, 30) ** 3  # pretrained
    with pytest.raises(ValueError, match=r"unknown:\n  0\.weight"):
        supple.SWR(model)
    model[0].weight.requires_grad_(False)
    method = supple.SWR(model)
    assert "0.weight" not in method.parameters
    assert {"0.bias", "2.weight", "2.bias"} == set(supple.SWR(model, exclude="0.weight").parameters)
    assert "0.weight" in supple.L2(model).parameters


@each
def test_another_module_of_the_same_kind_acts_alike(name):
    ends = []
    for _ in range(2):
        model = Net()
        optimizer, method = make(name, model)
        train(model, optimizer, method, 8)
        ends.append([parameter.detach() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@each
def test_what_is_maximized_is_the_negative_of_what_is_minimized(name):
    ends = []
    for sign in (1, -1):
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5, maximize=sign < 0)
        units = {}
        if issubclass(EVERY[name][0], UnitMethod):
            units = {"units": supple.units(model, batch(0)[0][:2])}
        method = build(name, model, optimizer, replica=0, **units)
        for step in range(12):
            x, y = batch(step)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (sign * (loss + penalty_of(method, x, loss))).backward()
            method.before_step()
            optimizer.step()
            method.step()
        ends.append([parameter.detach() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@each
def test_an_overflow_costs_a_step_and_spoils_nothing(name):
    """The optimizer's step is left out, as by a GradScaler, and the method is called all the same."""
    model = Net()
    optimizer, method = make(name, model)
    for step in range(12):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        (loss + penalty_of(method, x, loss)).backward()
        if step == 5:
            for number, parameter in enumerate(one for one in model.parameters() if one.grad is not None):
                parameter.grad.fill_((float("nan"), float("inf"), -float("inf"))[number % 3])
        method.before_step()
        if step != 5:
            optimizer.step()
        method.step()
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    method.load_state_dict(method.state_dict())


@each
def test_a_weight_that_is_not_finite_reaches_no_gradient(name):
    model = Net()
    _, method = make(name, model)
    with torch.no_grad():
        model.embed.weight[5, 0], model.embed.weight[5, 1] = float("nan"), float("inf")  # a row that is never read
    x, y = batch(0)
    loss = nn.functional.cross_entropy(model(x), y)
    (loss + penalty_of(method, x, loss)).backward()
    method.before_step()
    assert all(bool(one.grad.isfinite().all()) for one in model.parameters() if one.grad is not None)
