"""A model that was trained already is noticed, and one that was only initialized in another way is not."""

import warnings

import pytest
import torch
from torch import nn

from supple.functional.initial import Constant, Normal
from supple.structure.initial import initial_distributions

pytestmark = pytest.mark.filterwarnings("error:The model looks trained")


def trained(steps=100):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 100), nn.LayerNorm(100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = torch.randn(256, 50), torch.randint(10, (256,))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, optimizer


def test_a_trained_model_is_noticed():
    model, optimizer = trained()
    with pytest.warns(
        UserWarning, match="(?s)looks trained already:.*the optimizer has made steps on 6 parameters.*Construct"
    ):
        found = initial_distributions(model, optimizer=optimizer)
    with pytest.warns(UserWarning, match="1.weight follows neither the rule of torch.nn.LayerNorm .constant 1. nor"):
        initial_distributions(model)
    assert "trained already?" in found["1.weight"].source
    for name in ("0.weight", "1.weight", "1.bias"):
        with pytest.raises(
            ValueError, match=f"(?s)initialized from is unknown:.*{name}: unknown: .*State it: pass initial="
        ):
            found.require([name])


def test_a_fresh_model_with_its_optimizer_is_not_taken_for_trained():
    model, optimizer = trained(steps=0)
    assert set(initial_distributions(model, optimizer=optimizer).require()) == set(dict(model.named_parameters()))


def test_biases_that_moved_one_way_are_noticed():
    """As Adam moves them; nobody draws a bias from an interval beside 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    for layer, bounds in zip(model[::2], [(0.1279, 0.1695), (-0.0122, 0.1216), (0.2, 0.3)], strict=True):
        nn.init.normal_(layer.weight, std=0.05)
        nn.init.uniform_(layer.bias, *bounds)
    with pytest.warns(UserWarning, match="looks trained"):
        found = initial_distributions(model)
    assert all(entry.distribution is None for entry in found.values())


def test_what_is_overridden_gives_no_warning():
    model, _ = trained()
    given = {nn.Linear: Normal(0, 0.1), nn.LayerNorm: {"weight": Constant(1), "bias": Constant(0)}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {initial.source for initial in initial_distributions(model, given).values()} == {"override"}


def test_running_statistics_show_training_and_estimates_are_given_up():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40))
    nn.init.normal_(model[0].weight, 0.0, 0.37)
    assert initial_distributions(model)["0.weight"].source.startswith("values: normal, estimated")
    model(torch.randn(8, 40))
    with pytest.warns(UserWarning, match="1 has counted 1 batches"):
        found = initial_distributions(model)
    assert found["0.weight"].distribution is None
    assert found["0.bias"].source == "rule of torch.nn.Linear"


@pytest.mark.parametrize("fill", [
    lambda w: nn.init.normal_(w, 0, 0.0577),  # near the spread of the rule
    lambda w: nn.init.normal_(w, 0, 0.3),
    lambda w: nn.init.uniform_(w, -0.5, 0.5),
    nn.init.orthogonal_,
    nn.init.eye_,
])  # fmt: skip
def test_other_initializations_are_not_taken_for_training(fill):
    torch.manual_seed(0)
    model = nn.Linear(100, 100)
    fill(model.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "trained" not in initial_distributions(model)["weight"].source


NETWORKS = {
    "default": lambda w: None,
    "orthogonal": lambda w: nn.init.orthogonal_(w, 2**0.5),
    "Kaiming normal": nn.init.kaiming_normal_,
    "normal": lambda w: nn.init.normal_(w, 0, 0.02),
}


def learned(fill, seed, steps, norm):
    """A network of the size usual in reinforcement learning, and the same one trained with Adam."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 64), norm(64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    for layer in (model[0], model[3], model[5]):
        fill(layer.weight)
        if fill is not NETWORKS["default"]:
            nn.init.zeros_(layer.bias)
    target, optimizer = nn.Linear(8, 4), torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        x = torch.randn(32, 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target(x).argmax(dim=1)).backward()
        optimizer.step()
    return model


def refused(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = initial_distributions(model)
    return any(initial.distribution is None for initial in found.values())


@pytest.mark.one_in(4)
@pytest.mark.parametrize("norm", [nn.Identity, nn.LayerNorm])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousand_steps_are_noticed(name, norm):
    assert refused(learned(NETWORKS[name], 0, 1000, norm))
    assert not refused(learned(NETWORKS[name], 0, 0, norm))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_power_and_the_rate_of_false_alarms(name):
    """Of 30 trained networks 25 are noticed at least, and of 300 fresh ones none is refused."""
    assert sum(refused(learned(NETWORKS[name], seed, 1000, nn.Identity)) for seed in range(30)) >= 25
    assert not any(refused(learned(NETWORKS[name], seed, 0, nn.Identity)) for seed in range(300))
