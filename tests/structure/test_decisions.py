"""Models that decide by values or at random: what reads a unit in any pass, against descriptions written by hand."""

import random
import warnings
from collections import UserDict, namedtuple
from collections.abc import MutableMapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced_checks import (
    assert_found,
    assert_methods_take_steps,
    assert_replacing_silences,
    assert_untouched,
    everything,
)
from traced_models import CASES, RESIDUAL, Case, rows

import supple
from supple.structure.tracing import run as running

RECURRENT = "they go into rnn, a recurrent layer (lstm)"


def mlp(inputs, hidden, outputs):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def indices(high, *shape):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(5))


class Experts(nn.Module):
    """Each example goes to the one expert that a router chooses."""

    def __init__(self, how):
        super().__init__()
        self.stem, self.router, self.head, self.how = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2), how
        self.experts = nn.ModuleList(mlp(5, 6, 5) for _ in range(3))

    def forward(self, x):
        x = self.stem(x).relu()
        scores = self.router(x)
        weight, chosen = (scores - scores.mean(0)).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            mask = chosen == k
            if self.how == "mask" and mask.any():
                out[mask] = expert(x[mask]) * weight[mask].unsqueeze(-1)
            elif self.how == "index":
                (places,) = torch.where(mask)
                out.index_add_(0, places, expert(x[places]) * weight[places, None])
        return self.head(out)


class Messages(nn.Module):
    """A graph network: what nodes tell their neighbours is added up."""

    def __init__(self, how):
        super().__init__()
        self.message, self.update, self.out, self.how = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2), how
        self.mlp = mlp(5, 7, 5)

    def forward(self, x, edges):
        source, target = edges
        nodes = int(edges.max()) + 1
        said = self.message(x).relu()
        told, total = said[source], said.new_zeros(nodes, 6)
        places = target[:, None].expand_as(told)
        if self.how == "index_add":
            total = total.index_add(0, target, told)
        elif self.how == "index_add_":
            total.index_add_(0, target, told)
        elif self.how == "scatter_add":
            total = total.scatter_add(0, places, told)
        elif self.how == "scatter_reduce":
            total = total.scatter_reduce(0, places, told, "amax", include_self=False)
        else:
            total = said.new_zeros(nodes, nodes).index_put_((target, source), said.new_ones(())) @ said
        hidden = self.update(total).relu()
        return self.out(hidden + self.mlp(hidden))


class Packed(nn.Module):
    """Sequences of different lengths through a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.inlet, self.rnn, self.head = nn.Linear(4, 5), nn.LSTM(5, 6, batch_first=True), mlp(6, 7, 2)

    def forward(self, x, lengths):
        options = {"batch_first": True, "enforce_sorted": False}
        packed = nn.utils.rnn.pack_padded_sequence(self.inlet(x).relu(), lengths.cpu(), **options)
        out, lengths = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out[torch.arange(len(out)), lengths - 1])


class Quantized(nn.Module):
    """A VQ-VAE whose codes are taken from the first batch and counted."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.codes = mlp(4, 8, 3), mlp(3, 7, 4), nn.Embedding(5, 3)
        self.register_buffer("ready", torch.tensor(False))
        self.register_buffer("used", torch.zeros(5))

    def forward(self, x):
        z = self.encoder(x)
        if self.training and not self.ready:
            self.codes.weight.data.copy_(z.detach()[torch.randperm(len(z))[:5]])
            self.ready.fill_(True)
        code = torch.cdist(z, self.codes.weight).argmin(-1)
        if self.training:
            self.used.index_add_(0, code, torch.ones(len(code)))
        nearest = self.codes(code)
        loss = F.mse_loss(z, nearest.detach()) + F.mse_loss(z.detach(), nearest)
        return self.decoder(z + (nearest - z).detach()), loss


class Policy(nn.Module):
    """Recurrent PPO: the state starts anew where an episode does."""

    def __init__(self):
        super().__init__()
        self.features, self.rnn = mlp(4, 8, 5), nn.LSTM(5, 6)
        self.actor, self.critic = mlp(6, 7, 2), mlp(6, 9, 1)

    def forward(self, observations, state, starts):
        many = state[0].shape[1]
        sequence = self.features(observations).tanh().reshape(many, -1, 5).swapaxes(0, 1)
        starts = starts.reshape(many, -1).swapaxes(0, 1)
        if torch.all(starts == 0.0):
            out, state = self.rnn(sequence, state)
        else:
            outs = []
            for step, start in zip(sequence, starts, strict=True):
                going = (1.0 - start).view(1, many, 1)
                out, state = self.rnn(step[None], (going * state[0], going * state[1]))
                outs.append(out)
            out = torch.cat(outs)
        out = out.transpose(0, 1).flatten(0, 1)
        return {"logits": self.actor(out), "value": self.critic(out), "state": state}


EXPERTS = {f"experts.{k}.0": (6, [f"experts.{k}.2"]) for k in range(3)}
STEM = ["router", "experts.0.0", "experts.1.0", "experts.2.0"]
MODELS = {
    **{
        f"experts by {how}": Case(
            lambda how=how: Experts(how),
            torch.randn(40, 4, generator=torch.Generator().manual_seed(7)),
            {"stem": (5, STEM), **EXPERTS},
            {"router": "_softmax", **{f"experts.{k}.2": "puts other features in their place" for k in range(3)}},
        )
        for how in ("mask", "index")
    },
    **{
        f"messages by {how}": Case(
            lambda how=how: Messages(how),
            (torch.randn(5, 4), torch.cat([indices(5, 2, 9), torch.full((2, 1), 4)], 1)),
            {"message": (6, ["update"]), "mlp.0": (7, ["mlp.2"])},
            {"update": RESIDUAL, "mlp.2": RESIDUAL},
        )
        for how in ("index_add", "index_add_", "scatter_add", "scatter_reduce", "edges")
    },
    "packed": Case(
        Packed,
        (rows(5, 4), torch.tensor([3, 5, 2])),
        {"head.0": (7, ["head.2"])},
        {"inlet": RECURRENT, "rnn": "it is a recurrent layer (lstm)"},
    ),
    "quantized": Case(
        Quantized,
        torch.randn(8, 4),
        {"encoder.0": (8, ["encoder.2"]), "decoder.0": (7, ["decoder.2"])},
        {"encoder.2": ""},
    ),
    **{
        f"policy, {what}": Case(
            Policy,
            (torch.randn(6, 4), (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6)), starts),
            {"features.0": (8, ["features.2"]), "actor.0": (7, ["actor.2"]), "critic.0": (9, ["critic.2"])},
            {"features.2": RECURRENT, "rnn": "it is a recurrent layer (lstm)"},
        )
        for what, starts in (("going on", torch.zeros(6)), ("starting", torch.tensor([1.0, 0, 0, 0, 1, 0])))
    },
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", MODELS)
def test_models_that_decide_by_values(name):
    torch.manual_seed(0)
    case = MODELS[name]
    model = case.make()
    sum(p.sum() for p in model.parameters()).backward()
    model.register_forward_hook(lambda *_: pytest.fail("a hook of the model ran"))
    before = everything(model)
    found = supple.units(model, case.example)
    assert_untouched(model, before)
    assert_found(found, case.groups, case.excluded)
    assert [group.name for group in found] == [*case.groups]
    model._forward_hooks.clear()
    assert supple.units(model.eval(), case.example).groups == found.groups
    assert_replacing_silences(case.make(), case.example, found)
    if name != "policy, starting":
        assert_methods_take_steps(case.make(), case.example, found)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_with_values_the_same_is_found_as_without(name, monkeypatch):
    torch.manual_seed(0)
    case = CASES[name]
    model = case.make()
    without = supple.units(model, case.example)

    def impossible(**_):
        raise ValueError("no fake tensors")

    monkeypatch.setattr(running, "FakeTensorMode", impossible)
    before = everything(model)
    found = supple.units(model, case.example)
    assert_untouched(model, before)
    assert (found.groups, found.excluded) == (without.groups, without.excluded)


class Net(nn.Module):
    """Linear layers a, b, c, d, e of one width and a function of them."""

    def __init__(self, function):
        super().__init__()
        for name in "abcde":
            setattr(self, name, nn.Linear(4, 4))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def readers(found):
    return {group.name: {one.weight.tensor.partition(".")[0] for one in group.consumers} for group in found}


def reasons(found):
    return {item.name: item.reason for item in found.excluded}


GENERATOR = torch.Generator()
NUMBERS = {
    "Python": random.random,
    "NumPy": np.random.rand,
    "a number": lambda: torch.rand(1).item(),
    "a tensor": lambda: torch.rand([]),
    "uniform": lambda: torch.empty(1).uniform_(),
    "a generator": lambda: torch.rand(1, generator=GENERATOR).item(),
}


@pytest.mark.parametrize("source", NUMBERS)
@pytest.mark.parametrize(("name", "rare"), [("low", lambda u: u < 0.01), ("high", lambda u: u > 0.99)])
def test_a_reader_in_one_training_pass_of_a_hundred(source, name, rare):
    def function(self, x):
        h = self.a(x).relu()
        y = self.c(self.b(h).relu())
        return (y, self.d(h)) if self.training and rare(NUMBERS[source]()) else y

    model = Net(function)
    before, state = everything(model), GENERATOR.get_state()
    assert readers(supple.units(model, rows(4))) == {"a": {"b", "d"}, "b": {"c"}}
    assert readers(supple.units(model.eval(), rows(4))) == {"a": {"b", "d"}, "b": {"c"}}
    assert_untouched(model.train(), before)
    assert torch.equal(GENERATOR.get_state(), state)


def test_one_of_several_ways_that_are_equally_likely():
    def function(self, x):
        h = self.a(x).relu()
        return getattr(self, random.choice("bcde"))(h)

    assert readers(supple.units(Net(function), rows(4))) == {"a": {*"bcde"}}


def test_each_decision_is_taken_the_other_way():
    def function(self, x):
        h = self.a(x).relu()
        if not torch.isfinite(x).all():
            raise FloatingPointError
        if (x > 100).any():
            return self.b(h)
        return self.c(h) if (x.sum() < 1000).item() else self.d(h)

    assert readers(supple.units(Net(function), rows(4))) == {"a": {*"bcd"}}


def test_only_what_training_reads():
    """As in deep supervision, with augmentation now and then; also of a model that is in evaluation mode."""

    def function(self, x):
        if self.training and torch.rand([]) < 0.1:
            x = x + 0.1 * torch.randn_like(x)
        h = self.a(x).relu()
        y = self.c(self.b(h).relu())
        return (y, self.d(h)) if self.training else y

    model = Net(function)
    for mode in (True, False):
        found = supple.units(model.train(mode), rows(4))
        assert readers(found) == {"a": {"b", "d"}, "b": {"c"}}
    method = supple.CBP(
        model.train(), units=found, maturity=0, replacement_rate=0.5, initial={"*": supple.Normal(0.0, 1.0)}
    )
    model(rows(4))
    model.a(rows(4)).sum().backward()
    method.step()
    assert int((model.d.weight == 0).all(0).sum()) == 2


WAYS = {
    "its reader reads other features": (
        lambda self, x, one: self.b(self.a(x).relu()) if one else self.b(x),
        {"a": "b.weight is used for something else in another forward pass"},
    ),
    "its reader reads other units": (
        lambda self, x, one: self.b(self.a(x).relu() if one else self.c(x).relu()),
        dict.fromkeys("ac", "b.weight is used for something else in another forward pass"),
    ),
    "its weight reads": (
        lambda self, x, one: self.b(self.a(x).relu()) if one else self.c(self.b(x).relu()) @ self.a.weight,
        {"a": "a.weight is used for something else in another forward pass"},
    ),
    "a gate at times": (
        lambda self, x, one: self.c(self.a(x) * self.b(x).sigmoid() if one else self.a(x)),
        dict.fromkeys("ab", "they are one with other units in another forward pass"),
    ),
    "given out at times": (
        lambda self, x, one: self.b(self.a(x).relu()) if one else self.a(x),
        {"a": "they are also an output of the model"},
    ),
    "mixed at times": (
        lambda self, x, one: self.b(self.a(x).relu() if one else self.a(x).softmax(-1)),
        {"a": "_softmax in the model may mix them"},
    ),
    "not read at times": (lambda self, x, one: self.b(self.a(x).relu()) if one else self.c(x) + 0 * self.b.bias, {}),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("rest", [0, 1])
def test_passes_that_differ(name, rest):
    function, expected = WAYS[name]
    parity = iter(range(rest, 10**6))
    model = Net(lambda self, x: (random.random(), self.e(self.d(x).relu()), function(self, x, next(parity) % 2 == 0)))
    found = supple.units(model, rows(4))
    told = reasons(found)
    assert "d" in readers(found)
    for layer, reason in expected.items():
        assert reason in told[layer]
    if not expected:
        assert readers(found)["a"] == {"b"}


def test_a_normalization_and_a_bias_in_some_passes_belong_to_the_unit():
    def function(self, x):
        h = self.a(x)
        h = self.norm(h) if random.random() < 0.5 else h + self.shift
        return self.b(h.relu())

    model = Net(function)
    model.norm, model.shift = nn.BatchNorm1d(4), nn.Parameter(torch.zeros(4))
    (group,) = supple.units(model, rows(4))
    assert {part.tensor for part in group.bias} == {"a.bias", "shift"}
    assert [norm.running_var.tensor for norm in group.norms] == ["norm.running_var"]


def test_features_are_read_where_most_passes_have_them():
    def function(self, x):
        h = self.a(x).relu()
        return self.c(h) + (self.b(h) if random.random() < 0.5 else 0)

    (group,) = supple.units(Net(function), rows(4))
    assert (group.feature.module, {one.weight.tensor for one in group.consumers}) == ("c", {"b.weight", "c.weight"})


def test_units_that_decide_or_leave_are_read_by_that():
    def decides(self, x):
        h = self.a(x).relu()
        return self.b(h) if torch.equal(h, 2 * h) else self.c(h)

    assert reasons(supple.units(Net(lambda self, x: (decides(self, x), self.e(self.d(x)))), rows(4)))["a"] == (
        "what the model does depends on their values"
    )

    def leaves(self, x):
        h = torch.from_numpy(np.tanh(self.b(self.a(x).relu()).detach().numpy()))
        return self.d(self.c(h).relu())

    found = supple.units(Net(leaves), rows(4))
    assert readers(found) == {"a": {"b"}, "c": {"d"}}
    assert reasons(found)["b"] == "the model takes their values out of PyTorch"

    def chooses(self, x):
        h = self.a(x).relu()
        return self.e(self.d(x).relu()[(h[:, 0] > 0).nonzero().flatten()]), self.b(h)

    assert readers(supple.units(Net(chooses), rows(4))) == {"d": {"e"}}


def test_a_model_that_fails_with_values_too():
    def function(self, x):
        return self.b(self.a(x).relu()) if x.sum() > -1e9 and x.shape[1] == 5 else self.c(x[:, :3])

    with pytest.raises(ValueError, match=r"fails in module c .*\(3, 4\)\): RuntimeError: mat1 and mat2"):
        supple.units(Net(function), rows(4))


@dataclass
class Batch:
    x: torch.Tensor
    others: list


@dataclass(slots=True)
class SlottedBatch:
    x: torch.Tensor
    others: list


NamedBatch = namedtuple("NamedBatch", "x others")


class Mine(MutableMapping):
    """Like a TensorDict: a mapping of tensors with methods of a tensor."""

    def __init__(self, **held):
        self._held = held

    def __getitem__(self, key):
        return self._held[key]

    def __setitem__(self, key, value):
        self._held[key] = value

    def __delitem__(self, key):
        del self._held[key]

    def __iter__(self):
        return iter(self._held)

    def __len__(self):
        return len(self._held)

    def clone(self):
        return Mine(**{key: value.clone() for key, value in self.items()})


def by_name(batch):
    return batch.x, batch.others


def by_key(batch):
    return batch["x"], batch["others"]


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize(
    ("example", "take"),
    [
        (Batch(rows(4), [rows(4)]), by_name),
        (SlottedBatch(rows(4), [rows(4)]), by_name),
        (NamedBatch(rows(4), [rows(4)]), by_name),
        (({"x": rows(4), "others": (rows(4),)},), by_key),
        (Mine(x=rows(4), others=Mine(a=rows(4))), lambda batch: (batch["x"], [batch["others"]["a"]])),
    ],
)
def test_examples_of_any_form(example, take, values):
    def function(self, batch):
        x, (other,) = take(batch)
        if values and x.sum() > 1e9:
            raise OverflowError
        x.add_(1)  # of a copy
        return self.b(self.a(x).relu() * self.c(other).sigmoid())

    (group,) = supple.units(Net(function), example)
    assert group.name == "a * c"
    assert torch.equal(take(*example if type(example) is tuple else (example,))[0], rows(4))


def test_mappings_of_keyword_arguments_and_packed_sequences():
    assert len(supple.units(Net(lambda self, x: self.b(self.a(x).relu())), UserDict(x=rows(4)))) == 1
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 4), torch.randn(2, 4)])

    def function(self, sequence):
        return self.b(self.a(self.rnn(sequence)[0].data).relu())

    model = Net(function)
    model.rnn = nn.GRU(4, 4)
    assert readers(supple.units(model, packed)) == {"a": {"b"}}


def test_compiled_by_torch_jit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inside = torch.jit.script(mlp(5, 6, 5))
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), inside, nn.ReLU(), nn.Linear(5, 3))
    found = supple.units(model, rows(4))
    assert [(group.name, group.feature.module) for group in found] == [("0", "1"), ("2.2", "4")]
    assert "cannot be read" in reasons(found)["2.0"]
    assert_methods_take_steps(model, rows(4), found)
    for given in ((inside, rows(5)), (inside,)):
        with pytest.raises(ValueError, match=r"torch\.jit compiled it.* the module that it was made from"):
            supple.units(*given)
