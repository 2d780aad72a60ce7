"""Models in which something that looks like hidden units is not; what is found has to be right by what it does."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import prune
from traced_checks import assert_replacing_silences, assert_untouched, everything
from traced_models import rows

import supple
from supple.structure.tracing import trace


class Model(nn.Module):
    """A function of modules and an input, behind a layer of hidden units."""

    def __init__(self, function, **modules):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 7), nn.Linear(7, 5)
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x):
        return self.function(self, self.second(self.first(x).relu()))


def linear(inputs=6, outputs=6, **options):
    return nn.Linear(inputs, outputs, **options)


def found_in(model, example=None):
    """Names of the groups, which have to be right by what they do, and reasons by name of what was left out."""
    example = rows(4) if example is None else example
    found = supple.units(model, example)
    assert_replacing_silences(model, example, found)
    return [group.name for group in found], {item.name: item.reason for item in found.excluded}


def gated(self, x):
    a, b = self.a(x), self.b(x)
    return self.o(self.c(a * b) * b)


def gated_by_a_gate(self, x):
    a, b = self.a(x), self.b(x).relu()
    return self.o(self.c(a * b) * a)


def gated_by_a_class(self, x):
    a, b, d = self.a(x), self.b(x), self.d(x)
    return self.o(d * b), self.p(self.c(a) * d), self.q(a * b)


@pytest.mark.parametrize("function", [gated, gated_by_a_gate, gated_by_a_class])
def test_a_layer_is_not_one_with_what_it_is_computed_from(function):
    model = Model(function, **{name: linear(5) for name in "abd"}, c=linear(), **{name: linear(6, 2) for name in "opq"})
    names, reasons = found_in(model)
    assert names[0] == "first"
    assert not any("*" in name for name in names[1:] if "c" in name)
    assert "computed from them" in reasons["c"]


def test_a_gate_of_what_another_gate_produced():
    def function(self, x):
        return self.o(self.c(self.a(x) * self.b(x)) * self.d(x))

    model = Model(function, **{name: linear(5) for name in "abd"}, c=linear(), o=linear(6, 2))
    assert found_in(model)[0] == ["first", "second", "a * b", "c * d"]


def test_a_half_of_a_layer_gates_what_the_other_half_is_read_by():
    def function(self, x):
        gate, hidden = self.a(x).chunk(2, -1)
        return self.o(self.c(hidden) * gate)

    model = Model(function, a=linear(5, 12), c=linear(), o=linear(6, 2))
    assert found_in(model)[0] == ["first", "second", "a[0:6] * c", "a[6:12]"]


def test_running_statistics_of_two_layers():
    def function(self, x):
        return self.o(self.norm(self.b(self.norm(self.a(x)).relu())).relu())

    model = Model(function, a=linear(5), b=linear(), o=linear(6, 2), norm=nn.BatchNorm1d(6, affine=False))
    names, reasons = found_in(model)
    assert names == ["first", "second"]
    assert reasons["a"] == reasons["b"] == "norm.running_mean is used 2 times in one forward pass"
    assert [group.name for group in supple.units(model.eval(), rows(4))] == names


AFTER = {
    "directly": (lambda product, shift: product + shift, True),
    "behind a view": (lambda product, shift: product.unsqueeze(1).squeeze(1) + shift, True),
    "behind an activation": (lambda product, shift: product.sigmoid() + shift, False),
    "behind a scale": (lambda product, shift: 0.5 * product + shift, False),
    "subtracted": (lambda product, shift: product - shift, False),
    "doubled": (lambda product, shift: torch.add(product, shift, alpha=2), False),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_consumers_bias_is_what_is_added_to_its_product(name):
    function, direct = AFTER[name]
    model = Model(lambda self, x: self.o(function(self.c(self.a(x).relu()), self.shift)), a=linear(5), o=linear(6, 2))
    model.c, model.shift = linear(bias=False), nn.Parameter(torch.zeros(6))
    groups = {group.name: group for group in supple.units(model, rows(4))}
    assert groups["a"].consumers[0].bias == ("shift" if direct else None)
    assert [part.tensor for part in groups["c"].bias] == ["shift"]
    found_in(model)


@pytest.mark.parametrize(("kind", "used"), [("linear", r"b\.weight"), ("norm", r"n\.\w+")])
def test_a_function_that_keeps_the_original_is_named_with_the_remedy(kind, used):
    model = Model(
        lambda self, x: (self.b(self.a(x).relu()), self.extra(x)), a=linear(5), b=linear(6, 2), n=nn.BatchNorm1d(5)
    )
    model.extra = (lambda x: F.linear(model.b.weight, model.b.weight)) if kind == "linear" else lambda x: model.n(x)
    with pytest.raises(ValueError, match=rf"cannot trace Model: in module the model .* uses {used} of .*a method"):
        trace(model, rows(4))


class Remembering(nn.Module):
    """Adds what it computed in the call before."""

    def __init__(self, keep):
        super().__init__()
        self.a, self.u, self.o, self.keep = linear(4), linear(6, 4), linear(6, 2), keep
        self.register_buffer("last", None)
        self.memory = {"steps": [], "self": self}

    def forward(self, x):
        kept = self.last if self.keep == "buffer" else (self.memory["steps"] or [None])[-1]
        hidden = self.a(x if kept is None else x + self.u(kept)).relu()
        if self.keep == "buffer":
            self.last = hidden.detach()
        elif self.keep == "list":
            self.memory["steps"].append(hidden.detach() * 2)
        return self.o(hidden)


@pytest.mark.parametrize("keep", ["buffer", "list"])
def test_features_that_are_kept_for_the_next_call(keep):
    reasons = {item.name: item.reason for item in trace(Remembering(keep), rows(4)).excluded}
    assert reasons["a"] == "they are kept on the model between calls"
    assert [group.name for group in trace(Remembering("nothing"), rows(4))] == ["a"]


def test_wrapped_models():
    model = Model(lambda self, x: x)
    found = supple.units(model, rows(4))
    assert supple.units(torch.compile(model), rows(4)).groups == found.groups
    assert supple.units(torch.compile(nn.Sequential(linear(), linear())))[0].incoming == (supple.Slice("0.weight"),)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert supple.units(torch.compile(wrapped), rows(4)).groups == found.groups
        sharded = fully_shard(copy.deepcopy(model), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"Model: its parameters are sharded; call supple\.units before fully_sh"):
            supple.units(sharded, rows(4))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("batch", [1, 3])
def test_one_number_for_each_example_is_a_residual_at_any_batch_size(batch):
    model = Model(lambda self, x: self.o(self.a(x).relu() + x[:, :1]), a=linear(5), o=linear(6, 2))
    names, reasons = found_in(model, torch.randn(batch, 4))
    assert names == ["first"]
    assert "residual stream" in reasons["a"]
    scalar = Model(lambda self, x: self.o(self.a(x).relu() + x.detach().mean()), a=linear(5), o=linear(6, 2))
    assert "second" in {item.name for item in supple.units(scalar, torch.randn(batch, 4)).excluded}


def test_hooks_of_others_do_not_run():
    model, seen = Model(lambda self, x: x), []
    model.first.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.second.register_forward_pre_hook(lambda module, inputs, keywords: seen.append(inputs), with_kwargs=True)
    before = everything(model)
    assert len(supple.units(model, rows(4))) == 1
    assert not seen
    assert_untouched(model, before)
    prune.random_unstructured(model.first, "weight", 0.5)
    assert "computed" in {item.name: item.reason for item in trace(model, rows(4)).excluded}["first"]


@pytest.mark.parametrize("take", [lambda w: w[1], lambda w: w.unbind(0)[2]])
def test_one_of_several_weights_in_a_parameter(take):
    def function(self, x):
        hidden = F.linear(self.a(x).relu(), take(self.weights)).relu()
        return self.o(self.b(hidden) + take(self.biases))

    model = Model(function, a=linear(5), b=linear(), o=linear(6, 2))
    model.weights, model.biases = nn.Parameter(torch.randn(3, 6, 6)), nn.Parameter(torch.randn(3, 6))
    names, reasons = found_in(model)
    assert names == ["first", "second"]
    assert reasons["weights"] == "its weight is one of several in the parameter weights"
    assert reasons["a"] == "the model reads them with one of several weights in the parameter weights"
    assert "or one of several in a parameter" in reasons["b"]


def test_the_place_of_a_single_unit_that_cannot_be_told():
    def function(self, x):
        hidden = self.a(x)
        return self.p(self.o(hidden).relu()), self.q(self.b(hidden.squeeze(-1).unsqueeze(-1)).relu())

    model = Model(function, a=linear(5, 1), o=linear(1), b=linear(1), p=linear(6, 2), q=linear(6, 2))
    names, reasons = found_in(model)
    assert names == ["first", "second", "o", "b"]
    assert reasons == {"a": "unsqueeze in the model leaves open along which dimension it lies"}
    model.function = lambda self, x: self.p(self.o(self.a(x).view(-1, 1).tanh()).relu())
    assert found_in(model)[0] == ["first", "second", "a", "o"]


def test_parts_of_parts():
    def function(self, x):
        q, hidden = self.a(x).split([4, 8], -1)
        gate, up = hidden.chunk(2, -1)
        return self.p(q), self.o(gate.sigmoid() * up)

    model = Model(function, a=linear(5, 12), p=linear(4, 2), o=linear(4, 2))
    assert found_in(model) == (["first", "second", "a[0:4]", "a[4:12]"], {})
    groups = {group.name: group for group in supple.units(model, rows(4).double())}
    assert groups["a[4:12]"].incoming == (supple.Slice("a.weight", start=4), supple.Slice("a.weight", start=8))
    assert groups["a[4:12]"].bias == (supple.Slice("a.bias", start=4), supple.Slice("a.bias", start=8))

    def some(self, x):
        gate, up = self.a(x)[:, 2:10].chunk(2, -1)
        return self.p(gate), up, self.o(gate)

    model = Model(some, a=linear(5, 12), p=linear(4, 2), o=linear(4, 2))
    assert found_in(model)[0] == ["first", "second", "a[2:6]"]

    def both(self, x):
        hidden = self.a(x)[:, 4:]
        return self.p(hidden[:, :4]), self.o(hidden)

    model = Model(both, a=linear(5, 12), p=linear(4, 2), o=linear(8, 2))
    names, reasons = found_in(model)
    assert names == ["first", "second"]
    assert reasons["a"] == "they are read both as a whole and in parts"
