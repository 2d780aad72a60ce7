"""What is found in a Sequential: that zeroing it silences the unit and nothing else."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import supple
from supple.lab.nn import MLP


def mlp():
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.0), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def nested():
    return nn.Sequential(nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Identity(), nn.Sequential(nn.Linear(6, 3)))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    )


def one_dimensional():
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.GroupNorm(1, 3), nn.SiLU(), nn.Flatten(), nn.Linear(3 * 6, 2))


def norm_before():
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))


MODELS = {
    "mlp": (mlp, (5,), [("0", 6), ("3", 4)]),
    "nested": (nested, (5,), [("0.0", 6)]),
    "convolutional": (convolutional, (2, 8, 8), [("0", 4), ("4", 3), ("8", 5)]),
    "one dimensional": (one_dimensional, (2, 8), [("0", 3)]),
    "norm before": (norm_before, (5,), [("0", 6)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_zeroing_what_leaves_a_unit_is_as_zeroing_what_the_reader_receives(name):
    make, shape, expected = MODELS[name]
    torch.manual_seed(0)
    model = make().double().eval()
    x = torch.randn(4, *shape, dtype=torch.float64)
    found = supple.units(model)
    assert [(group.name, group.size) for group in found] == expected
    assert not found.excluded
    untouched = model(x)
    for group in found:
        for unit in range(group.size):
            cut = make().double().eval()
            cut.load_state_dict(model.state_dict())
            for consumer in group.consumers:
                with torch.no_grad():
                    consumer.weight.view(cut.get_parameter(consumer.weight.tensor), group.size)[unit] = 0
            place = group.feature_after_norm or group.feature
            assert place.where == "input"

            def silence(module, inputs, group=group, unit=unit, place=place):
                silenced = inputs[0].clone()
                place.view(silenced, group.size)[unit] = 0
                return (silenced,)

            handle = model.get_submodule(place.module).register_forward_pre_hook(silence)
            torch.testing.assert_close(cut(x), model(x), rtol=1e-12, atol=1e-12)
            handle.remove()
    assert torch.equal(untouched, model(x))


def test_incoming_weights_and_bias_are_the_units_own():
    """Setting them to 0 leaves the unit's features constant and the other units' as they were."""
    torch.manual_seed(1)
    model = convolutional().double().eval()
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    for group in supple.units(model):
        seen = []
        module = model.get_submodule(group.feature.module)
        handle = module.register_forward_pre_hook(lambda m, inputs, seen=seen: seen.append(inputs[0]))
        model(x)
        with torch.no_grad():
            for part in (*group.incoming, *group.bias):
                part.view(model.get_parameter(part.tensor), group.size)[1] = 0
        model(x)
        handle.remove()
        before, after = (group.feature.view(features, group.size).flatten(1) for features in seen)
        assert float(after[1].detach().std()) < 1e-12
        others = [unit for unit in range(group.size) if unit != 1]
        torch.testing.assert_close(after[others], before[others], rtol=1e-12, atol=1e-12)


def test_features_are_read_before_a_norm_that_follows_the_activation():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.LayerNorm(6), nn.Dropout(), nn.Linear(6, 2))
    (group,) = supple.units(model)
    assert (group.feature.module, group.feature.where) == ("2", "input")
    assert (group.feature_after_norm.module, group.feature_after_norm.where) == ("4", "input")
    (group,) = supple.units(norm_before())
    assert (group.feature.module, group.feature.where) == ("3", "input")
    assert group.feature_after_norm is None
    assert [group.norms[0].scale.tensor, group.norms[0].shift.tensor] == ["1.weight", "1.bias"]


def test_an_activation_used_twice_counts_at_both_places():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 6), relu, nn.Linear(6, 5), relu, nn.LayerNorm(5), nn.Linear(5, 2))
    assert [group.feature.module for group in supple.units(model)] == ["2", "4"]


def test_batch_norm_state_belongs_to_the_unit():
    norm = supple.units(convolutional())[0].norms[0]
    parts = (norm.scale, norm.shift, norm.running_mean, norm.running_var)
    assert [part.tensor for part in parts] == ["1.weight", "1.bias", "1.running_mean", "1.running_var"]


def test_layers_without_bias_or_affine_norm():
    model = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.LayerNorm(6, elementwise_affine=False), nn.ReLU(), nn.Linear(6, 2, bias=False)
    )
    (group,) = supple.units(model)
    assert group.bias == ()
    assert group.norms[0].scale is None
    assert group.consumers[0].bias is None


def test_asking_leaves_a_parametrization_as_it_is():
    """Spectral normalization iterates whenever its weight is asked for in training mode."""
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 6)), nn.Linear(6, 5), nn.Linear(5, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    supple.units(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_models_are_refused_with_the_remedy():
    class Custom(nn.Module):
        pass

    with pytest.raises(ValueError, match="cannot find the hidden units of a Custom") as error:
        supple.units(Custom())
    assert "supple.UnitGroup" in str(error.value)
    with pytest.raises(ValueError, match="no hidden units"):
        supple.units(nn.Sequential(nn.Linear(3, 2)))


class Nothing(nn.Module):
    def hidden_units(self):
        return supple.Units([], [supple.Excluded("fc", "residual=True includes it")])


def test_a_network_may_say_it_itself():
    model = MLP(4, 6, 2, 2)
    assert supple.units(model).groups == model.hidden_units().groups
    with pytest.raises(ValueError, match="fc: residual=True includes it"):
        supple.units(Nothing())


class Sized(nn.Module):
    """A model whose attribute happens to have the name."""

    def __init__(self):
        super().__init__()
        self.hidden_units = 64


class SizedChain(nn.Sequential):
    hidden_units = 6


class Listing(nn.Module):
    def hidden_units(self):
        return ["fc1", "fc2"]


def test_an_attribute_named_hidden_units_is_not_asked():
    with pytest.raises(ValueError, match="cannot find the hidden units of a Sized"):
        supple.units(Sized())
    (group,) = supple.units(SizedChain(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    assert group.size == 6


def test_hidden_units_that_gives_something_else():
    with pytest.raises(TypeError, match=r"Listing.hidden_units\(\) gave a list; it has to give supple.Units"):
        supple.units(Listing())
