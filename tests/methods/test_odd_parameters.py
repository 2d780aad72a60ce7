"""Scalars, parameters without entries, scales of several dimensions, weights that are shared or lie the other way."""

import copy
import math

import pytest
import torch
from helpers import batch, numbers, penalty_of
from torch import nn

import supple
from supple.methods.registry import METHODS
from supple.methods.units import UnitMethod

pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
WEIGHTS = {name: kind for name, kind in METHODS.items() if not issubclass(kind, UnitMethod)}


class Odd(nn.Module):
    """A scalar, a vector and a layer without entries, and a normalization over two dimensions that comes last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.scale, self.none = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.empty(0))
        self.head, self.empty = nn.Linear(8, 2), nn.Linear(8, 0)
        self.norm = nn.LayerNorm((2, 4))

    def forward(self, x):
        h = self.second(torch.relu(self.first(x))) * self.scale
        h = torch.relu(self.norm(h.unflatten(1, (2, 4))).flatten(1))
        return self.head(h) + self.none.sum() + self.empty(h).sum()


@pytest.mark.filterwarnings("ignore:The model looks trained")
@pytest.mark.parametrize("name", WEIGHTS)
def test_scalars_and_parameters_without_entries(name):
    model = Odd()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = WEIGHTS[name](model, optimizer, **({"ratio": 0} if name == "c_chain" else {}))
    assert not {"none", "empty.weight", "empty.bias"} & set(method.parameters)
    for step in range(3):
        x, y = batch(step)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss + penalty_of(method, x, loss)).backward()
        method.before_step()
        optimizer.step()
        method.step()
    if method.acts_at_boundary:
        data = ([batch(9)[0]], lambda network, one: network(one).square().mean()) if name == "dash" else ()
        method.boundary(*data)
    method.load_state_dict(method.state_dict())
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert int(method.skipped) == 0


def test_of_a_scalar_the_cosine_is_a_sign():
    model = Odd()
    method = supple.DASH(model, include="scale", minimum=0.25)
    method.boundary([numbers(0, 4, 6)], lambda network, x: network.scale)
    assert model.scale.item() == 1.5 * 0.25
    method.boundary([numbers(0, 4, 6)], lambda network, x: -network.scale)
    assert model.scale.item() == 1.5 * 0.25


def test_scales_of_several_dimensions_are_no_matrices():
    model = Odd()
    for kind in (supple.Isometry, supple.FIRE):
        method = kind(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert list(method.parameters) == ["first.weight", "second.weight", "head.weight"]
    assert list(supple.Parseval(model).parameters) == ["first.weight", "second.weight"]
    assert list(supple.Reset(model).parameters) == ["head.weight", "head.bias"]
    with torch.no_grad():
        model.norm.weight.copy_(numbers(1, 2, 4))
        model.norm.bias.copy_(numbers(2, 2, 4))
    entries = model.norm.weight.flatten().tolist() + model.norm.bias.flatten().tolist()
    length = math.sqrt(sum(one * one for one in entries))
    supple.NaP(model, norms="project").step()
    projected = model.norm.weight.flatten().tolist() + model.norm.bias.flatten().tolist()
    assert projected == pytest.approx([math.sqrt(8) * one / length for one in entries], rel=1e-5)


def test_spectral_regularization_pulls_a_shift_of_several_dimensions_to_0():
    model = nn.LayerNorm((2, 2)).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [0.5, 1.0]]))
        model.bias.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    (model(numbers(0, 3, 2, 2, dtype=torch.float64)).sum() * 0).backward()
    supple.Spectral(model, strength=1.0).before_step()
    # (g^2 - 1)^2 of each scale, |b|^4 of the shift
    expected = torch.tensor([[[0.0, 24.0], [-1.5, 0.0]], [[0.0, 20.0], [40.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(torch.stack([model.weight.grad, model.bias.grad]), expected)


class Language(nn.Module):
    """The output layer shares its weight with the embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 9)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.down(self.up(self.embedding(tokens)).relu()))


def test_an_output_layer_that_shares_its_weight_is_the_last_one():
    model = Language()
    assert list(supple.Reset(model).parameters) == ["embedding.weight", "head.bias"]
    assert list(supple.Reset(model, layers=2).parameters) == [
        "embedding.weight",
        "down.weight",
        "down.bias",
        "head.bias",
    ]
    for kind in (supple.NaP, supple.Parseval):
        assert list(kind(model).parameters) == ["up.weight", "down.weight"]
    clipped = supple.WeightClipping(model, last_layer=False).parameters
    assert list(clipped) == ["up.weight", "up.bias", "down.weight", "down.bias"]
    assert supple.InFeR(model).reader is model.head


def test_a_module_of_two_names_is_one_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model.register_module("alias", model[0])
    assert list(supple.Reset(model).parameters) == ["2.weight", "2.bias"]


def test_fire_scales_by_outputs_and_inputs_where_weights_lie_the_other_way():
    torch.manual_seed(0)
    plain, turned = nn.Conv1d(2, 8, 3), nn.ConvTranspose1d(2, 8, 3)
    for model, dims in ((plain, (0, 1)), (turned, (1, 0))):
        supple.FIRE(model, iterations=40).boundary()
        assert [model.weight.shape[dim] for dim in dims] == [8, 2]
        for position in range(3):
            values = torch.linalg.svdvals(model.weight.detach()[:, :, position])
            assert values.tolist() == pytest.approx([2 / 3, 2 / 3], rel=1e-4)


@pytest.mark.filterwarnings("ignore:The model looks trained")
@pytest.mark.parametrize("whole", [True, False])
def test_statistics_of_a_normalization_without_parameters_start_anew_with_the_whole_network(whole):
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 2))
    methods = [supple.Reset(model, layers=0 if whole else 1, seed=0)]
    methods.append(supple.ShrinkAndRedraw(model, exclude=None if whole else "0.*", seed=0))
    for method in methods:
        model(numbers(0, 5, 6))
        before = copy.deepcopy(model[1].state_dict())
        method.boundary()
        assert (int(model[1].num_batches_tracked) == 0) is whole
        assert torch.equal(model[1].running_mean, before["running_mean"]) is not whole


def test_utilities_of_a_parameter_count_the_steps_in_which_it_ran():
    """The first weight runs in all of 11 steps, the second in the last; in double precision, one number at a time."""
    model = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = supple.UPGD(model, optimizer, std=0.0, decay=0.9)
    weights, utilities, steps, x = [2.0, 1.0], [0.0, 0.0], [0, 0], torch.ones(1, 1, dtype=torch.float64)
    with torch.no_grad():
        for layer, weight in zip(model, weights, strict=True):
            layer.weight.fill_(weight)
    for step in range(11):
        optimizer.zero_grad()
        runs = [0, 1] if step == 10 else [0]
        sum(-model[i](x).sum() for i in runs).backward()
        method.before_step()
        optimizer.step()
        method.step()
        for i in runs:
            utilities[i] = 0.9 * utilities[i] + 0.1 * weights[i]
            steps[i] += 1
        for i in runs:
            corrected = utilities[i] / (1 - 0.9 ** steps[i])
            weights[i] += 0.1 * (1 - 1 / (1 + math.exp(-corrected / max(utilities[j] for j in runs))))
    assert [layer.weight.item() for layer in model] == pytest.approx(weights, rel=1e-9)
