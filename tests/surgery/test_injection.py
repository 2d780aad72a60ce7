"""Plasticity injection: the network computes what it did, and only the new head learns."""

import copy

import pytest
import torch
from torch import nn

import supple
from supple import surgery


class Agent(nn.Module):
    """An encoder, and a head of two layers."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(5, 6)
        self.head = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x):
        return self.head(torch.relu(self.encoder(x)))


def numbers(step):
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(step))


def make(steps=3):
    torch.manual_seed(0)
    model = Agent()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    train(model, optimizer, steps)
    return model, optimizer


def train(model, optimizer, steps, first=0):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        model(numbers(step)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("training", [True, False])
def test_the_network_computes_exactly_what_it_did(training):
    model, optimizer = make()
    model.eval()
    x = numbers(40)
    before = model(x) if not training else copy.deepcopy(model).train()(x)
    assert surgery.inject(model, optimizer, head="head") is model
    assert torch.equal(model.train(training)(x), before)
    assert not torch.equal(model.head.new[0].weight, model.head.old[0].weight)
    assert torch.equal(model.head.new[0].weight, model.head.start[0].weight)


def test_only_the_new_head_and_the_encoder_learn():
    model, optimizer = make()
    weight = model.encoder.weight
    moments = copy.deepcopy(optimizer.state[weight])
    count = sum(p.numel() for p in model.parameters())
    surgery.inject(model, optimizer, head="head")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters() if p.requires_grad}
    assert list(optimizer.state) == [weight, model.encoder.bias]
    assert all(torch.equal(optimizer.state[weight][key], value) for key, value in moments.items())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, 3, 3)
    for name, p in model.named_parameters():
        learns = name.startswith(("encoder", "head.new"))
        assert torch.equal(p, before[name]) is not learns, name
        assert (p.grad is None) is not learns
    with torch.no_grad():
        z = torch.relu(model.encoder(numbers(9)))
        parts = [copy.deepcopy(getattr(model.head, name))(z) for name in ("old", "new", "start")]
        torch.testing.assert_close(model(numbers(9)), parts[0] + parts[1] - parts[2])


def test_new_weights_are_drawn_as_the_layer_draws_them():
    model, _ = make()
    model.head[0] = nn.Linear(6, 400)
    model.head[1], model.head[3] = nn.BatchNorm1d(400), nn.Linear(400, 2)
    others = [copy.deepcopy(model) for _ in range(3)]
    surgery.inject(model, head="head")
    weight, bound = model.head.new[0].weight.detach(), 6**-0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert torch.equal(model.head.new[1].weight, torch.ones(400))
    assert not model.head.new[1].running_mean.any()
    surgery.inject(others[0], head="head")
    assert torch.equal(others[0].head.new[0].weight, weight)
    surgery.inject(others[1], head="head", seed=1)
    assert not torch.equal(others[1].head.new[0].weight, weight)
    surgery.inject(others[2], head="head", initial={"head.0.weight": supple.Normal(3.0, 0.1)})
    assert others[2].head.new[0].weight.mean().item() == pytest.approx(3, abs=0.02)


def test_again_and_again():
    model, optimizer = make()
    model.eval()
    for number in range(3):
        before = model(numbers(7))
        surgery.inject(model, optimizer, head="head")
        assert torch.equal(model(numbers(7)), before)
        model.train()
        train(model, optimizer, 2, 10 * number)
        model.eval()
    starts = [model.head.start, model.head.old.start, model.head.old.old.start]
    assert len({float(one[0].weight[0, 0]) for one in starts}) == 3
    head = sum(p.numel() for p in model.head.new.parameters())
    assert sum(p.numel() for p in model.head.parameters()) == 7 * head  # two more heads each time
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(name.startswith(("encoder", "head.new")) for name in learning)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {
        id(p) for p in model.parameters() if p.requires_grad
    }


def test_a_saved_state_goes_on_alike():
    model, optimizer = make()
    surgery.inject(model, optimizer, head="head")
    train(model, optimizer, 2, 3)
    again, other = make(1)
    surgery.inject(again, other, head="head", seed=8)
    again.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 2, 5)
    train(again, other, 2, 5)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_of_a_sequential_the_head_begins_with_the_last_hidden_layer():
    torch.manual_seed(0)
    layers = [nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2)]
    model, other = nn.Sequential(*layers), nn.Sequential(*copy.deepcopy(layers))
    x = torch.randn(3, 1, 5)
    before = model(x)
    surgery.inject(model)
    assert torch.equal(model(x), before)
    assert list(model._modules) == ["0", "1", "2", "head"]
    assert [type(one) for one in model.head.new] == [nn.Linear, nn.Tanh, nn.Linear]
    surgery.inject(model)
    assert torch.equal(model(x), before)
    assert [type(one) for one in model.head.new] == [nn.Linear, nn.Tanh, nn.Linear]
    surgery.inject(other)
    # The units of what learns are found.
    assert [group.name for group in supple.units(other, x)] == ["0", "head.old.0", "head.new.0", "head.start.0"]


def tied(model):
    model.other = model.head[3]
    return model


REFUSED = {
    "no head": (Agent, {}, "say which module of the Agent is the head.*encoder, head"),
    "wrong head": (Agent, {"head": "tail"}, "the Agent has no module 'tail'; it has encoder, head"),
    "nothing learns": (lambda: Agent().requires_grad_(False), {"head": "head"}, "the head head has no parameter that"),
    "one layer": (lambda: nn.Sequential(nn.Linear(3, 2)), {}, "has no hidden units"),
    "tied": (lambda: tied(Agent()), {"head": "head"}, "head.3.weight is used outside of the head"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_injected_is_refused_and_left_as_it_was(name):
    build, arguments, reason = REFUSED[name]
    model = build()
    before, text = {key: p.detach().clone() for key, p in model.named_parameters()}, repr(model)
    with pytest.raises(ValueError, match=reason):
        surgery.inject(model, **arguments)
    assert repr(model) == text
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())


def test_an_unknown_distribution_is_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-3, 3, 40).clamp(min=0).view(8, 5))

        def forward(self, x):
            return torch.relu(x @ self.weight.mT) @ self.weight

    model = nn.Sequential(nn.Linear(5, 5), Own())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"not known what 1\.weight is drawn from.*supple\.Normal"):
        surgery.inject(model, optimizer, head="1")
    assert isinstance(model[1], Own)


def test_a_changed_sequential_says_what_to_do():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))
    supple.surgery.crelu(model)
    with pytest.raises(ValueError, match=r'which part of the Sequential is the head; say so: .*head="\.\.\."'):
        supple.surgery.inject(model)
    with pytest.raises(ValueError, match=r"An example of its input tells .*units=supple\.units\(model, example\)"):
        supple.units(model)
    assert len(supple.units(model, torch.zeros(1, 4))) == 2
