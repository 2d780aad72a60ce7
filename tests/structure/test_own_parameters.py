"""What belongs to units besides their weights and biases: slopes, thresholds, scales, and the size of their noise."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced_checks import assert_methods_take_steps
from traced_models import image, rows

import supple


class Between(nn.Module):
    """Two layers, with parameters that have an entry for each unit in between."""

    def __init__(self, function, value, shape=(6,)):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 2)
        self.own = nn.Parameter(torch.full(shape, value))
        self.function = function

    def forward(self, x):
        return self.fc2(self.function(self.fc1(x), self.own))


OWN = {
    "slopes": (F.prelu, 0.25),
    "slopes by hand": (lambda h, own: torch.where(h > 0, h, own * h), 0.25),
    "thresholds": (lambda h, own: h * (h > own.exp()), -3.0),
    "a sharpness": (lambda h, own: h * torch.sigmoid(own * h), 1.0),
    "an exponent": (lambda h, own: h.abs().pow(own), 2.0),
    "a divisor": (lambda h, own: h / own, 1.0),
    "a scale around 1": (lambda h, own: h.relu() * (1.0 + own), 0.0),
    "a positive scale": (lambda h, own: h * F.softplus(own), 0.5),
}


@pytest.mark.parametrize("name", OWN)
def test_parameters_with_an_entry_for_each_unit_get_their_initial_value_again(name):
    function, value = OWN[name]
    model = Between(function, value)
    found = supple.units(model, rows(4))
    (group,) = found
    assert group.name == "fc1"
    assert {norm.scale for norm in group.norms} == {supple.Slice("own")}
    method = supple.CBP(model, maturity=0, replacement_rate=1.0, utility="magnitude", units=found)
    with torch.no_grad():
        model.own += torch.rand(6)
    method.step()
    torch.testing.assert_close(model.own.detach(), torch.full((6,), value))


def test_slopes_in_a_sequential_with_and_without_an_example():
    def make(slopes, *layers):
        return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *layers, nn.PReLU(slopes), nn.Flatten(), nn.Linear(256, 2))

    for model, tensor in ((make(4), "1.weight"), (make(4, nn.BatchNorm2d(4)), "2.weight")):
        found = supple.units(model)
        assert [norm.scale for norm in found[0].norms][-1] == supple.Slice(tensor)
        assert found.groups == supple.units(model, image()).groups
    assert not supple.units(make(1))[0].norms
    assert not supple.units(make(1), image())[0].norms
    flat = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.PReLU(8), nn.Linear(8, 2))
    assert supple.units(flat)[0].norms[0].scale == supple.Slice("2.weight", repeat=2)
    assert supple.units(flat).groups == supple.units(flat, torch.zeros(3, 2, 4)).groups


def test_slopes_that_two_layers_share_belong_to_none():
    slopes = nn.PReLU(6)
    model = nn.Sequential(nn.Linear(4, 6), slopes, nn.Linear(6, 6), slopes, nn.Linear(6, 2))
    with pytest.raises(ValueError, match="3 shares its parameters with an earlier layer"):
        supple.units(model)
    with pytest.raises(ValueError, match=r"1\.weight is used 2 times"):
        supple.units(model, rows(4))
    slopes = nn.PReLU()
    model = nn.Sequential(nn.Linear(4, 6), slopes, nn.Linear(6, 6), slopes, nn.Linear(6, 2))
    assert len(supple.units(model)) == len(supple.units(model, rows(4))) == 2


class Noisy(nn.Module):
    """A linear layer with noise in its weights, whose size is learned (Fortunato et al., 2018)."""

    def __init__(self, inputs, outputs, how):
        super().__init__()
        self.how = how
        self.weight_mu = nn.Parameter(torch.empty(outputs, inputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), 0.5 * inputs**-0.5))
        self.bias_mu = nn.Parameter(torch.empty(outputs).uniform_(-(inputs**-0.5), inputs**-0.5))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), 0.5 * outputs**-0.5))
        self.register_buffer("weight_epsilon", torch.zeros(outputs, inputs))
        self.register_buffer("bias_epsilon", torch.zeros(outputs))

    def reset_noise(self):
        outer, inner = (torch.randn(n) for n in self.weight_mu.shape)
        outer, inner = (e.sign() * e.abs().sqrt() for e in (outer, inner))
        self.weight_epsilon.copy_(outer.outer(inner))
        self.bias_epsilon.copy_(outer)

    def forward(self, x):
        if self.how == "drawn there":
            self.reset_noise()
        if self.how == "fused":
            weight = torch.addcmul(self.weight_mu, self.weight_sigma, self.weight_epsilon)
        elif self.how == "scaled":
            weight = self.weight_mu + self.weight_sigma.mul(self.weight_epsilon) * 0.5
        else:
            weight = self.weight_sigma * self.weight_epsilon + self.weight_mu
        return F.linear(x, weight, self.bias_mu + self.bias_sigma * self.bias_epsilon)


class NoisyNet(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.inlet = nn.Linear(4, 5)
        self.fc1, self.fc2, self.head = Noisy(5, 6, how), Noisy(6, 7, how), nn.Linear(7, 2)

    def forward(self, x):
        return self.head(self.fc2(self.fc1(self.inlet(x).relu()).relu()).relu())


@pytest.mark.parametrize("how", ["kept", "fused", "scaled", "drawn there"])
def test_the_size_of_noise_belongs_to_the_unit(how):
    torch.manual_seed(0)
    model = NoisyNet(how)
    found = supple.units(model, rows(4))
    groups = {group.name.partition(".")[0]: group for group in found}
    assert list(groups) == ["inlet", "fc1", "fc2"]
    assert {part.tensor for part in groups["fc1"].incoming} == {"fc1.weight_mu", "fc1.weight_sigma"}
    assert {consumer.weight for consumer in groups["fc1"].consumers} == {
        supple.Slice("fc2.weight_mu", dim=1),
        supple.Slice("fc2.weight_sigma", dim=1),
    }
    assert [(c.weight.tensor, c.bias) for c in groups["inlet"].consumers if c.bias] == [
        ("fc1.weight_mu", "fc1.bias_mu")
    ]
    assert groups["fc1"].bias == (supple.Slice("fc1.bias_mu"),)

    method = supple.CBP(model, maturity=0, replacement_rate=1.0, utility="magnitude", units=[groups["fc1"]])
    for layer in (model.fc1, model.fc2):
        layer.reset_noise()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.25
    noise, others = model.fc1.weight_epsilon.clone(), model.inlet.weight.detach().clone()
    method.step()
    # At the start sigma is 0.5 / sqrt(inputs), mu uniform within 1 / sqrt(inputs); what leaves a new unit is 0.
    torch.testing.assert_close(model.fc1.weight_sigma.detach(), torch.full((6, 5), 0.5 * 5**-0.5))
    torch.testing.assert_close(model.fc1.bias_sigma.detach(), torch.full((6,), 0.5 * 6**-0.5))
    assert float(model.fc1.weight_mu.detach().abs().max()) <= 5**-0.5
    assert not model.fc1.bias_mu.any()
    assert not model.fc2.weight_mu.any()
    assert not model.fc2.weight_sigma.any()
    assert torch.equal(model.fc1.weight_epsilon, noise)
    assert torch.equal(model.inlet.weight, others)
    method.close()
    assert_methods_take_steps(model, rows(4), found)
