"""What tracing cannot do, and what it says then; and details of what it finds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from traced_checks import assert_untouched, everything
from traced_models import CASES, rows
from traced_networks import FunctionalMLP
from traced_sequences import HandRecurrent

import supple
from supple.structure.tracing import trace


class Net(nn.Module):
    """Two layers with anything in between."""

    def __init__(self, between=torch.relu, inputs=4, hidden=6, read=None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(read or hidden, 2)
        self.between = between

    def forward(self, x):
        return self.fc2(self.between(self.fc1(x)))


def reasons(model, example):
    """Why layers were left out, by name."""
    return {item.name: item.reason for item in trace(model, example).excluded}


def test_a_sequential_has_the_same_units_with_and_without_an_example():
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.GELU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.LayerNorm(5), nn.Linear(5, 2)),
    )
    found = supple.units(model, torch.zeros(3, 2, 8, 8))
    assert found.groups == supple.units(model).groups
    assert not found.excluded


def test_other_models_are_asked_for_an_example():
    with pytest.raises(ValueError, match=r"of a FunctionalMLP.*units=supple\.units\(model, example\).*UnitGroup"):
        supple.units(FunctionalMLP())


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (
            torch.zeros(3, 5),
            r"fails in module fc1 \(last operation: aten.*\) on the example \(shape \(3, 5\)\): RuntimeError: ",
        ),
        ((torch.zeros(3, 4), torch.zeros(3)), r"in module the model .*\(3, 4\), \(3,\)\): TypeError: .*positional"),
        ({"y": torch.zeros(3, 4)}, r"TypeError: .*unexpected keyword argument 'y'"),
        (3, r"fails in module fc1 .*TypeError"),
    ],
)
def test_a_wrong_example_is_named_with_the_remedy(example, message):
    model = FunctionalMLP()
    before = everything(model)
    with pytest.raises(ValueError, match=rf"(?s)cannot trace FunctionalMLP: .*{message}.*supple\.UnitGroup"):
        supple.units(model, example)
    assert_untouched(model, before)


def test_control_flow_that_depends_on_data_needs_values():
    model = Net(lambda h: h.relu() if h.sum() > 0 else h).to("meta")
    with pytest.raises(
        ValueError, match=r"(?s)cannot trace Net: in module the model .*depends on the values.*UnitGroup"
    ):
        supple.units(model, torch.zeros(3, 4, device="meta"))


class LayerDrop(nn.Module):
    """A residual layer that is left out at random in training."""

    def __init__(self):
        super().__init__()
        self.inside = Net(torch.relu)
        self.out = nn.Linear(2, 4)

    def forward(self, x):
        if self.training and torch.rand([]) < 0.5:
            return x
        return x + self.out(self.inside(x))


def test_layers_left_out_at_random_in_training_are_found():
    model = LayerDrop().train()
    before, state = everything(model), torch.get_rng_state()
    found = supple.units(model, rows(4))
    assert [group.name for group in found] == ["inside.fc1", "inside.fc2"]
    assert found.groups == supple.units(model.eval(), rows(4)).groups
    assert_untouched(model.train(), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_control_flow_that_depends_on_shapes_is_followed():
    model = Net(lambda h: h.relu() if h.shape[0] == 3 else h.softmax(-1))
    assert [group.name for group in supple.units(model, rows(4))] == ["fc1"]
    assert "_softmax" in reasons(model, torch.zeros(2, 4))["fc1"]


def test_what_cannot_be_copied_and_lazy_parameters():
    model = Net()
    model.file = open(__file__)  # noqa: SIM115
    with pytest.raises(ValueError, match=r"(?s)cannot trace Net: it cannot be copied \(TypeError: .*UnitGroup"):
        supple.units(model, rows(4))
    model.file.close()
    with pytest.raises(ValueError, match="lazy parameters; run it once"):
        supple.units(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), rows(4))


def test_one_example_where_batch_normalization_needs_two():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    with pytest.raises(
        ValueError, match=r"in module 1 .*\(1, 4\)\): ValueError: Expected more than 1 value per channel"
    ):
        supple.units(model, torch.zeros(1, 4))
    with pytest.warns(
        UserWarning, match="in module 1 .* in training mode, so that only what reads units in evaluation"
    ):
        assert len(supple.units(model.eval(), torch.zeros(1, 4))) == 1


def test_batch_statistics_random_numbers_and_caches_are_left_alone():
    class Caching(Net):
        scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.ones(6)
            return self.fc2(F.dropout(self.norm(self.fc1(x)), 0.5) * self.scale)

    model = Caching()
    model.norm = nn.BatchNorm1d(6)
    before = everything(model)
    assert len(supple.units(model, rows(4))) == 1
    assert_untouched(model, before)
    assert model.scale is None


KEPT = {
    "squeezed in place": lambda h: h.unsqueeze_(1).squeeze_(1).relu_(),
    "straight through": lambda h: h + (h.round() - h).detach(),
    "single precision inside": lambda h: h.double().tanh().float(),
    "activations": lambda h: F.hardswish(F.elu(F.leaky_relu(h))) + F.softplus(h) * F.logsigmoid(h),
    "gelu by hand": lambda h: 0.5 * h * (1 + torch.tanh(0.8 * (h + 0.04 * h.pow(3)))),
    "in place": lambda h: F.relu_(h).mul_(2),
    "activations in place": lambda h: F.mish(F.hardswish(F.elu(F.celu(h, 1, True), 1, True), True), True),
    "bounds in place": lambda h: F.hardsigmoid(
        F.hardtanh(F.threshold(F.leaky_relu(h, 0.1, True), 0, 0, True), -1, 1, True), True
    ),
    "clamped": lambda h: h.clamp(min=0).to(torch.float64).to(torch.float32),
    "noise": lambda h: h + 0.1 * torch.randn_like(h),
    "alpha dropout": lambda h: F.alpha_dropout(h, 0.5, training=True),
    "random leaky relu": lambda h: F.rrelu(h, training=True),
    "mask": lambda h: h.masked_fill(torch.ones(6) > 0, 0.5),
    "chosen": lambda h: torch.where(h > 0, h, 0.1 * h),
    "there and back": lambda h: h.t().contiguous().view(6, 1, -1).permute(2, 1, 0).flatten(1),
    "joined along the batch": lambda h: torch.cat([h, 2 * h]).mean(0, keepdim=True),
    "written": lambda h: torch.zeros(3, 6).add_(h),
    "indexed": lambda h: h[torch.tensor([2, 0, 1, 1])],
    "masked": lambda h: h[torch.tensor([True, False, True])],
    "both indexed": lambda h: h.view(3, 1, 6)[torch.tensor([0, 2]), torch.tensor([0, 0])],
    "gathered": lambda h: h.gather(0, torch.tensor([[2], [0]]).expand(2, 6)),
    "added up": lambda h: torch.zeros(2, 6).index_add_(0, torch.tensor([1, 0, 1]), h),
    "scattered": lambda h: torch.zeros(2, 6).scatter_add(0, torch.tensor([[1], [0], [1]]).expand(3, 6), h),
    "put": lambda h: torch.zeros(4, 6).index_put_((torch.tensor([3, 0, 1]),), h),
    "overwritten": lambda h: h.index_fill(0, torch.tensor([1]), 0.5),
    "neighbours": lambda h: torch.ones(3, 3) @ h,
    "stacked": lambda h: torch.stack([h, h.relu()], dim=1).sum(1),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_keeps_units_apart(name):
    (group,) = supple.units(Net(KEPT[name]), rows(4))
    assert (group.name, group.feature.module, group.feature.where) == ("fc1", "fc2", "input")


MIXED = {
    "matrix": (lambda h: h @ torch.eye(6), "reads them, but its weight is no parameter"),
    "product": (lambda h: h @ h.t() @ h, "attention (mm in the model)"),
    "softmax": (lambda h: h.softmax(-1), "_softmax in the model may mix them"),
    "shift": (lambda h: h.roll(1, dims=1), "roll in the model may mix them"),
    "flip": (lambda h: h.flip(1), "flip in the model may mix them"),
    "sort": (lambda h: h.sort(dim=1).values, "sort in the model may mix them"),
    "indexed": (lambda h: h[:, torch.tensor([3, 2, 1, 0, 4, 5])], "index in the model may mix them"),
    "mean": (lambda h: h - h.mean(1, keepdim=True), "mean in the model may mix them"),
    "every other": (lambda h: h[:, ::2].repeat(1, 2), "slice in the model takes some of them"),
    "one": (lambda h: h[:, 0:1].expand(-1, 6) + h[:, 1].unsqueeze(1), "takes some of them"),
    "partly written": (
        lambda h: h.index_put_((torch.tensor([0]),), h.roll(1, 1)[:1]),
        "roll in the model may mix them",
    ),
    "gathered": (lambda h: h.gather(1, torch.zeros(3, 6, dtype=torch.int64)), "gather in the model may mix them"),
    "scattered": (
        lambda h: torch.zeros(3, 6).scatter(1, torch.zeros(3, 6, dtype=torch.int64), h),
        "scatter in the model may mix them",
    ),
    "some scattered": (
        lambda h: torch.zeros(3, 6).scatter(0, torch.zeros(3, 2, dtype=torch.int64), h),
        "scatter in the model may mix them",
    ),
    "two views": (
        lambda h: (lambda t: t + t.flatten().index_put_((torch.arange(18),), h.flatten()).view(3, 6))(
            torch.zeros(3, 6)
        ),
        "in the model",
    ),
    "copied": (lambda h: torch.zeros(3, 6).copy_(h), "in the model"),
    "heads": (lambda h: h.view(3, 2, 3).transpose(1, 2).reshape(3, 6), "spreads them over several dimensions"),
    "cumulative": (lambda h: h.cumsum(1), "cumsum in the model may mix them"),
    "outer": (lambda h: (h.unsqueeze(2) * h.unsqueeze(1)).sum(2), "combines each of them with many others"),
    "residual": (lambda h: h + rows(6) * h.sum(1, keepdim=True), "sum in the model may mix them"),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_units(name):
    between, reason = MIXED[name]
    assert reason in reasons(Net(between), rows(4)).get("fc1", "")


def test_shared_layers_and_weights():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model.insert(4, model[2])
    found = reasons(model, rows(4))
    assert found == {
        "0": "2.weight is used 2 times in one forward pass",
        "2": "2.weight is used 2 times in one forward pass",
        "5": "the model gives its outputs out, so that they are not hidden",
    }
    tied = Net(read=6)
    tied.fc2 = nn.Linear(6, 4, bias=False)
    tied.fc2.weight = nn.Parameter(tied.fc1.weight.detach().t().clone())
    assert len(supple.units(tied, rows(4))) == 1
    tied.fc2.forward = lambda h: F.linear(h, tied.fc1.weight.t())
    assert "used 2 times" in reasons(TiedAutoencoder(), rows(4))["fc1"]


class TiedAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)

    def forward(self, x):
        return self.fc1(x).relu() @ self.fc1.weight


class Gates(Net):
    """Gates by other activations, which come back in a sum."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 6)

    def forward(self, x):
        gate, hidden, other = self.gate(x).sigmoid(), self.fc1(x).relu(), F.pad(x, (0, 2))
        return self.fc2(gate * hidden + (1 - gate) * other)


def test_a_highway_layer_is_a_residual_stream():
    assert "residual stream" in reasons(Gates(), rows(4))["fc1"]


def test_what_a_model_gives_out_may_be_any_object():
    class Policy(Net):
        def forward(self, x):
            hidden = self.fc1(x).tanh()
            return torch.distributions.Categorical(logits=self.fc2(hidden)), torch.distributions.Normal(hidden, 1.0)

    validate = torch.distributions.Distribution._validate_args
    assert reasons(Policy(), rows(4))["fc1"] == "they are also an output of the model"
    assert torch.distributions.Distribution._validate_args == validate


def test_values_that_leave_by_a_back_door():
    class Leaking(Net):
        def forward(self, x):
            hidden = self.fc1(x)
            buffer = torch.zeros(3, 6)
            buffer[:, 2:] = x
            return self.fc2(hidden + buffer), hidden.data

    assert "fc1" in reasons(Leaking(), rows(4))
    assert "residual stream" in reasons(Leaking(), rows(4))["fc1"]


def test_features_of_functional_layers_are_read_where_a_module_has_them():
    class Functional(Net):
        def forward(self, x):
            return torch.einsum("bi,oi->bo", self.between(self.fc1(x)), self.fc2.weight)

    (group,) = supple.units(Functional(nn.Tanh()), rows(4))
    assert (group.feature.module, group.feature.where) == ("between", "output")
    assert group.consumers == (supple.Consumer(supple.Slice("fc2.weight", dim=1)),)
    assert "cannot be read" in reasons(Functional(torch.tanh), rows(4))["fc1"]


def test_a_layer_of_one_unit_has_a_bias():
    (group,) = supple.units(Net(hidden=1), rows(4))
    assert (group.size, group.bias) == (1, (supple.Slice("fc1.bias"),))


def test_layers_that_read_nothing_of_the_input():
    class Constant(Net):
        def forward(self, x):
            return x @ self.fc2(self.fc1(torch.ones(4, 4)).relu())

    assert reasons(Constant(), rows(4))["fc1"] == "it reads nothing that depends on the model's input"


def test_a_model_with_a_method_and_with_weights_elsewhere():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with supple.CBP(model):
        before = everything(model)
        assert supple.units(model, rows(4)).groups == supple.units(model).groups
        assert_untouched(model, before)
    meta = FunctionalMLP().to("meta")
    assert len(supple.units(meta, torch.zeros(3, 4, device="meta"))) == 2


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["vgg", "vit", "normed", "gated"])
def test_the_same_units_are_found_on_a_gpu(name):
    model = CASES[name].make()
    found = supple.units(model, CASES[name].example)
    assert supple.units(model.cuda(), CASES[name].example.cuda()).groups == found.groups


def test_a_recurrence_by_hand():
    found = reasons(HandRecurrent(), rows(5, 4))
    assert found["cell"] == "cell.weight is used 5 times in one forward pass"
    assert "cell.weight is used 5 times" in found["inner"]


def test_computed_weights():
    model = Net()
    parametrizations.weight_norm(model.fc1)
    model.fc2 = parametrizations.spectral_norm(nn.Linear(6, 5))
    model = nn.Sequential(nn.Linear(4, 4), model)
    found = reasons(model, rows(4))
    assert "but its weight is computed" in found["0"]
    assert "its weight is computed" in found["1.fc1"]
    assert "its weight is computed" in found["1.fc2"]


def test_units_that_are_an_output_too_and_layers_that_are_not_used():
    class Both(Net):
        def forward(self, x):
            hidden = self.fc1(x)
            return {"features": [hidden], "out": self.fc2(hidden)}

    model = Both()
    model.spare = nn.Linear(2, 2)
    assert reasons(model, rows(4)) == {
        "fc1": "they are also an output of the model",
        "spare": "the model does not use it on the example",
        "fc2": "the model gives its outputs out, so that they are not hidden",
    }


def test_a_consumer_that_reads_other_values_has_no_bias_to_absorb_a_mean():
    groups = {group.name: group for group in supple.units(CASES["u-net"].make(), CASES["u-net"].example)}
    skip = groups["enc1.3"]
    assert (skip.feature.module, skip.feature.where) == ("enc2.0", "input")
    assert [(c.weight.tensor, c.weight.start, c.bias) for c in skip.consumers] == [
        ("enc2.0.weight", 0, "enc2.0.bias"),
        ("dec.0.weight", 0, None),
    ]
    assert groups["up"].consumers[0].weight == supple.Slice("dec.0.weight", dim=1, start=3)
    assert groups["up"].incoming == (supple.Slice("up.weight", dim=1),)


def test_descriptions_of_parts_copies_and_products():
    parts = {group.name: group for group in supple.units(CASES["crelu"].make(), CASES["crelu"].example)}
    (consumer,) = parts["fc1"].consumers
    assert consumer.weight == supple.Slice("mid.weight", dim=1, start=4, copies=2)
    assert parts["fc1"].feature == supple.Feature("mid", "input", supple.Slice("", -1, start=4, copies=2))
    assert parts["mid[0:4]"].incoming == (supple.Slice("mid.weight"),)
    gated = {group.name: group for group in supple.units(CASES["gated"].make(), CASES["gated"].example)}
    assert gated["both"].incoming == (supple.Slice("both.weight"), supple.Slice("both.weight", start=7))
    assert gated["both"].bias == (supple.Slice("both.bias"), supple.Slice("both.bias", start=7))
    normed = {group.name: group for group in supple.units(CASES["normed"].make(), CASES["normed"].example)}
    assert normed["fc1"].feature == supple.Feature("norm1", "input", supple.Slice("", -1))
    assert normed["fc1"].feature_after_norm == supple.Feature("fc2", "input", supple.Slice("", -1))
    flat = [norm.running_var for norm in normed["conv"].norms if norm.running_var is not None]
    assert flat == [supple.Slice("norm4.running_var", repeat=5)]


class Opaque(nn.Module):
    """Its weight goes through code that fails while it is looked at, as a compiled extension may."""

    def __init__(self, tied=None):
        super().__init__()
        self.inside, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        if tied is not None:
            self.inside.weight = tied

    def forward(self, x):
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("no kernel for this mode")
        return self.last(self.inside(x).relu())


class Around(nn.Module):
    """Units before, beside and behind the part that is not known."""

    def __init__(self, tied=False):
        super().__init__()
        self.one, self.two, self.into = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 6)
        self.part = Opaque(self.into.weight if tied else None)
        self.three, self.four = nn.Linear(6, 7), nn.Linear(7, 2)

    def forward(self, x):
        h = self.two(self.one(x).relu())
        return self.four(self.three(self.part(self.into(h.tanh())) + 1).relu())


def test_where_a_part_cannot_be_followed_the_groups_that_do_not_touch_it_are_found():
    model = Around()
    before = everything(model)
    found = supple.units(model, rows(4))
    assert_untouched(model, before)
    assert [group.name for group in found] == ["one", "two", "three"]
    why = {item.name: item.reason for item in found.excluded}
    what = "part, which cannot be followed (RuntimeError: no kernel for this mode)"
    assert why["into"] == f"they go into {what}"
    assert why["part.inside"] == why["part.last"] == f"it is in {what}"
    # What a part that is not known uses, too, is not replaced.
    assert [group.name for group in supple.units(Around(tied=True), rows(4))] == ["one", "three"]


def test_a_model_that_does_not_run_at_all_says_where_it_failed_first():
    class Broken(Opaque):
        def forward(self, x):
            return super().forward(x[:, :5])

    model = Around()
    model.part = Broken()
    with pytest.raises(ValueError, match=r"fails in module part .*no kernel for this mode"):
        supple.units(model, rows(4))
