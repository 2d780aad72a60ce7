"""Continual backpropagation against a loop over units with explicit ages, in real training."""

import math

import numpy as np
import pytest
import reference
import torch
from torch import nn
from unit_networks import CASES, batch, make

import supple
from supple import Consumer, Feature, Slice, UnitGroup
from supple.lab.nn import StackedMLP

UTILITIES = ["contribution", "magnitude", "activation", "gradient"]
every_utility = pytest.mark.parametrize("utility", UTILITIES)


def train(case, method_of, check, steps, lr=0.05):
    """Trains, and hands each step's features to ``check`` before and after the method's step."""
    optimizer = torch.optim.SGD(case.model.parameters(), lr=lr, momentum=0.5)
    method = method_of(case.model, optimizer)
    recorder = reference.Recorder(case.model, case.layers)
    for step in range(1, steps + 1):
        x, y = batch(case, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(case.model(x), y).backward()
        optimizer.step()
        check(step, recorder.take(), method)
    return method


def equal(model, expected):
    for name, value in reference.arrays(model).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", CASES)
@every_utility
def test_training_equals_a_loop_over_units(name, utility):
    case = make(name)
    maturity, rate = 4, 0.13
    ages = [reference.Ages(layer.size, maturity, rate) for layer in case.layers]
    total = 0

    def check(step, features, method):
        nonlocal total
        expected = reference.arrays(case.model)
        # Utilities of a layer are read when its turn comes, after the layers before it were acted on.
        for layer, account in zip(case.layers, ages, strict=True):
            utilities = reference.layer_utilities(
                utility, layer, features[layer.name], expected, reference.gradients(case.model)
            )
            chosen = account.choose(utilities, reference.tie_words("CBP", layer.name, step, layer.size))
            for unit in chosen:
                reference.replaced(expected, layer, unit, "CBP", method.distributions, step)
            total += len(chosen)
        method.step()
        equal(case.model, expected)
        assert int(method.reinitialized.total) == total

    def method_of(model, optimizer):
        settings = {"maturity": maturity, "replacement_rate": rate, "utility": utility, "seed": 0}
        return supple.CBP(model, optimizer, **settings, **case.arguments)

    train(case, method_of, check, steps=30)
    assert total >= 10


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["sequential", "convolutional", "mlp crelu, norm after", "two readers"])
@every_utility
def test_moving_average_equals_the_weighted_history_of_each_unit(name, utility):
    case = make(name)
    maturity, rate, decay = 3, 0.1, 0.8
    ages = [reference.Ages(layer.size, maturity, rate) for layer in case.layers]
    averages = [reference.Averages(layer.size, decay) for layer in case.layers]

    def check(step, features, method):
        expected = reference.arrays(case.model)
        for layer, account, average in zip(case.layers, ages, averages, strict=True):
            utilities = reference.layer_utilities(
                utility, layer, features[layer.name], expected, reference.gradients(case.model)
            )
            words = reference.tie_words("CBP", layer.name, step, layer.size)
            for unit in account.choose(average.add(utilities), words):
                average.forget(unit)
                reference.replaced(expected, layer, unit, "CBP", method.distributions, step)
        method.step()
        equal(case.model, expected)

    def method_of(model, optimizer):
        return supple.CBP(
            model,
            optimizer,
            maturity=maturity,
            replacement_rate=rate,
            utility=utility,
            decay=decay,
            seed=0,
            **case.arguments,
        )

    assert int(train(case, method_of, check, steps=30).reinitialized.total) >= 10


class History:
    """What each output of each unit was on average at each step of the unit's life, the last step first."""

    def __init__(self, layer, decay):
        self.layer, self.decay, self.means = layer, decay, [[] for _ in range(layer.size)]

    def outputs(self, features, unit):
        """Rows of numbers, one for each entry of the features that is the unit's."""
        (passed,) = features
        taken = np.moveaxis(np.take(passed, self.layer.read(unit), axis=self.layer.dim), self.layer.dim, 0)
        return taken.reshape(len(taken), -1).tolist()

    def distance(self, features, unit):
        """How far from their mean the outputs are, on average."""
        rows = self.outputs(features, unit)
        self.means[unit].insert(0, [reference.mean(row) for row in rows])
        ages, distances = range(len(self.means[unit])), []
        for entry, row in enumerate(rows):
            terms = [(1 - self.decay) * self.decay**age * self.means[unit][age][entry] for age in ages]
            centre = math.fsum(terms) / (1 - self.decay ** len(terms))
            distances += [abs(value - centre) for value in row]
        return reference.mean(distances)


OF_THE_PROGRAM = {
    "adaptation": lambda distance, out, into: 1 / into,
    "zero_contribution": lambda distance, out, into: distance * out,
    "adaptable_contribution": lambda distance, out, into: distance * out / into,
    "feature_by_input": lambda distance, out, into: distance / into,
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("decay", [0.0, 0.8])
@pytest.mark.parametrize("utility", OF_THE_PROGRAM)
def test_utilities_of_the_program_of_2024_equal_a_loop_over_units(name, utility, decay):
    case = make(name)
    maturity, rate = 3, 0.1
    ages = [reference.Ages(layer.size, maturity, rate) for layer in case.layers]
    averages = [reference.Averages(layer.size, decay) for layer in case.layers]
    histories = [History(layer, decay) for layer in case.layers]

    def check(step, features, method):
        expected = reference.arrays(case.model)
        for layer, account, average, history in zip(case.layers, ages, averages, histories, strict=True):
            utilities = []
            for unit in range(layer.size):
                columns = {name: read(unit) for name, read in layer.readers.items()}
                out = [abs(w) for name, at in columns.items() for w in expected[name][:, at].ravel().tolist()]
                into = [abs(w) for name in layer.incoming for w in expected[name][unit].ravel().tolist()]
                distance = history.distance(features[layer.name], unit)
                utilities.append(OF_THE_PROGRAM[utility](distance, reference.mean(out), reference.mean(into)))
            words = reference.tie_words("CBP", layer.name, step, layer.size)
            for unit in account.choose(average.add(utilities), words):
                average.forget(unit)
                history.means[unit].clear()
                reference.replaced(expected, layer, unit, "CBP", method.distributions, step)
        method.step()
        equal(case.model, expected)

    def method_of(model, optimizer):
        settings = {"maturity": maturity, "replacement_rate": rate, "utility": utility, "decay": decay, "seed": 0}
        return supple.CBP(model, optimizer, **settings, **case.arguments)

    assert int(train(case, method_of, check, steps=20).reinitialized.total) >= 4


def test_random_utilities_replace_any_unit():
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    method, chosen = supple.CBP(model, maturity=0, replacement_rate=0.25, utility="random"), []
    for _ in range(400):
        before = model[0].weight.clone()
        method.step()
        chosen += (model[0].weight != before).any(dim=1).nonzero().flatten().tolist()
    counts = [chosen.count(unit) for unit in range(4)]
    assert sum(counts) == 400
    assert all(abs(count - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5 for count in counts)


@pytest.mark.parametrize("name", [name for name in CASES if "skip" not in name])
@pytest.mark.parametrize("layer", [0, -1])
def test_a_replaced_unit_is_silent(name, layer):
    """The output is that of the network with the unit's features set to 0 where the next layers receive them."""
    case = make(name)
    optimizer = torch.optim.SGD(case.model.parameters(), lr=0.05)
    group = list(case.arguments.get("units") or supple.units(case.model))[layer]
    method = supple.CBP(case.model, optimizer, maturity=2, replacement_rate=0.5, units=[group])
    for step in (1, 2, 3):
        x, y = batch(case, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(case.model(x), y).backward()
        optimizer.step()
        method.step()
    chosen = method.state_dict()["born"][0][0] == 3
    assert int(chosen.sum()) == int(method.reinitialized.total) == group.size // 2
    case.model.eval()
    x, _ = batch(case, 9)
    output = case.model(x)
    place = group.feature_after_norm or group.feature
    module = case.model.get_submodule(place.module)

    def silence(activations):
        activations = activations.clone()
        place.view(activations, group.size)[chosen] = 0
        return activations

    if place.where == "input":
        module.register_forward_pre_hook(lambda m, inputs: (silence(inputs[0]),))
    else:
        module.register_forward_hook(lambda m, inputs, out: silence(out))
    torch.testing.assert_close(case.model(x), output, rtol=1e-12, atol=1e-12)
    assert bool(output.isfinite().all())


# What a replaced unit gave on average goes into the bias of the layer that reads it.


def constant_units(layers, *, first):
    """A network whose units of the first layer do not depend on the input."""
    torch.manual_seed(1)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.linspace(0.3, 1.7, len(model[0].bias)))
    initial = {"0.weight": supple.Normal(0.0, 1.0), "0.bias": supple.Constant(0.0)}
    return model, initial, first


CONSTANT = {
    "linear": lambda: constant_units([nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)], first=(3,)),
    "conv": lambda: constant_units([nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2)], first=(2, 6, 6)),
    "flattened": lambda: constant_units(
        [nn.Conv1d(2, 3, 3), nn.Tanh(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 2)], first=(2, 6)
    ),
}


@pytest.mark.parametrize("kind", CONSTANT)
@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_replacing_constant_units_leaves_the_output_as_it_is(kind, decay):
    model, initial, shape = CONSTANT[kind]()
    method = supple.CBP(model, maturity=4, replacement_rate=0.7, decay=decay, absorb_mean=True, initial=initial)
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = model(x).detach()
    for _ in range(5):
        model(x).sum().backward()
        method.step()
    assert int(method.reinitialized.last) >= 2
    torch.testing.assert_close(model(x).detach(), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_mean_output_over_a_batch_stays_as_it_is(utility):
    """Also for units that vary: the reading layer is linear, so its mean over the batch is kept."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    method = supple.CBP(model, maturity=0, replacement_rate=0.5, utility=utility, absorb_mean=True)
    x = torch.randn(9, 3, dtype=torch.float64)
    before = model(x).mean(dim=0).detach()
    model(x).sum().backward()
    method.step()
    assert int(method.reinitialized.last) == 3
    torch.testing.assert_close(model(x).mean(dim=0).detach(), before, rtol=1e-12, atol=1e-12)


def test_absorbed_moving_average_equals_the_weighted_history():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    decay = 0.7
    method = supple.CBP(model, maturity=5, replacement_rate=1, decay=decay, absorb_mean=True)
    means = []
    for step in range(6):
        x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        means.append(model[:2](x).mean(dim=0).detach())
        model(x).sum().backward()
        weight, bias = model[2].weight.detach().clone(), model[2].bias.detach().clone()
        method.step()
    weights = [(1 - decay) * decay**i / (1 - decay**6) for i in range(6)]
    assert math.fsum(weights) == pytest.approx(1)
    average = sum(w * mean for w, mean in zip(weights, reversed(means), strict=True))
    torch.testing.assert_close(model[2].bias.detach(), bias + weight @ average, rtol=1e-12, atol=1e-12)
    assert not model[2].weight.any()


class Transposed(nn.Module):
    """A reading layer whose weight is [units, outputs]."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.out = nn.ConvTranspose1d(4, 2, 1)

    def forward(self, x):
        return self.out(self.body(x).unsqueeze(-1)).squeeze(-1)


def test_a_reading_layer_with_its_units_in_the_first_dimension():
    torch.manual_seed(0)
    model = Transposed().double()
    with torch.no_grad():
        model.body.weight.zero_()
        model.body.bias.fill_(0.5)
    group = UnitGroup(
        "body",
        4,
        Feature("body", "output", Slice("", dim=-1)),
        incoming=(Slice("body.weight"),),
        bias=(Slice("body.bias"),),
        consumers=(Consumer(Slice("out.weight", dim=0), "out.bias"),),
    )
    initial = {"body.weight": supple.Normal(0.0, 1.0), "body.bias": supple.Constant(0.0)}
    method = supple.CBP(model, maturity=0, replacement_rate=0.5, absorb_mean=True, units=[group], initial=initial)
    x = torch.randn(5, 3, dtype=torch.float64)
    before = model(x).detach()
    model(x).sum().backward()
    method.step()
    assert int(method.reinitialized.last) == 2
    torch.testing.assert_close(model(x).detach(), before, rtol=1e-12, atol=1e-12)


def test_absorbing_without_a_forward_pass_is_an_error():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    method = supple.CBP(model, maturity=0, replacement_rate=0.5, utility="magnitude", absorb_mean=True)
    model.eval()
    model(torch.ones(1, 3)).sum().backward()
    with pytest.raises(RuntimeError, match="no forward pass of 0 in training mode"):
        method.step()


# How many.


def test_drawn_numbers_average_to_the_rate_of_each_replica():
    seeds, rates = list(range(300)), [0.02, 0.1, 0.25] * 100
    model = StackedMLP(seeds, 2, 4, 2, 2)
    method = supple.CBP(model, maturity=0, replacement_rate=rates, utility="magnitude", counting="draw")
    steps = 40
    for _ in range(steps):
        method.step()
    share = method.reinitialized.total.double() / (steps * 2 * 4)  # two layers of four units, all eligible
    for setting, rate in enumerate(rates[:3]):
        mine = share[setting::3]
        chance = rate * 4 % 1
        error = (chance * (1 - chance) / (100 * steps * 2)) ** 0.5 / 4
        assert float(mine.mean()) == pytest.approx(rate, abs=4 * error)
        if chance:
            assert float(mine.std()) > 0


def test_units_whose_utility_is_not_a_number_are_replaced_last():
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    method = supple.CBP(model, maturity=0, replacement_rate=0.75, utility="magnitude")
    with torch.no_grad():
        model[2].weight[0, 1] = math.nan
    method.step()
    assert model[2].weight.detach().isnan().tolist() == [[False, True, False, False]]
    assert int(method.reinitialized.last) == 3
