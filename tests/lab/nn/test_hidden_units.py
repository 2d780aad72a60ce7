import copy

import numpy as np
import pytest
import torch
from mlp_reference import VARIANTS, forward, name_of

from supple.lab.nn import MLP, StackedMLP

SMALL = {"inputs": 7, "hidden": 10, "outputs": 4, "depth": 3}
SEEDS = [5, 8]
DOUBLE = {"dtype": torch.float64}


def disturbed(**variant):
    """A stack of two in double precision with no parameter at a special value."""
    stack = StackedMLP(SEEDS, **SMALL, **variant).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, **DOUBLE)
    return stack


def leading(model):
    return 1 if isinstance(model, StackedMLP) else 0


def unit(view, u, model):
    return view[:, u] if leading(model) else view[u]


def capture(model, feature, size, x):
    """The features at a place of the model, units in front."""
    seen = []
    module = model.get_submodule(feature.module)
    if feature.where == "input":
        handle = module.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    else:
        handle = module.register_forward_hook(lambda m, inputs, output: seen.append(output))
    with torch.no_grad():
        model(x)
    handle.remove()
    assert len(seen) == 1
    return feature.view(seen[0], size, leading(model))


def silenced(model, group, u, x):
    """The model's output with what each consumer receives from unit u set to 0."""
    feature = group.feature_after_norm or group.feature
    module = model.get_submodule(feature.module)

    def zero(activations):
        activations = activations.clone()
        unit(feature.view(activations, group.size, leading(model)), u, model).zero_()
        return activations

    if feature.where == "input":
        handle = module.register_forward_pre_hook(lambda m, inputs: (zero(inputs[0]),))
    else:
        handle = module.register_forward_hook(lambda m, inputs, output: zero(output))
    out = model(x)
    handle.remove()
    return out


@pytest.mark.one_in(5)
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_replacing_a_unit_through_its_slices_silences_it_and_nothing_else(variant):
    stack = disturbed(**variant)
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(1), **DOUBLE)
    for original in (stack, stack.replica(1)):
        parameters = dict(original.named_parameters())
        for group in original.hidden_units():
            u = group.size - 2
            changed = copy.deepcopy(original)
            tensors = dict(changed.named_parameters())
            with torch.no_grad():
                for consumer in group.consumers:
                    view = consumer.weight.view(tensors[consumer.weight.tensor], group.size, leading(original))
                    unit(view, u, original).zero_()
                # A normalization of the units mixes them, so the rest is undisturbed only without one.
                for part in (*group.incoming, *group.bias) if not group.norms else ():
                    unit(part.view(tensors[part.tensor], group.size, leading(original)), u, original).normal_()
            assert len(tensors) == len(parameters)
            out = changed(x)
            torch.testing.assert_close(out, silenced(original, group, u, x), rtol=1e-10, atol=1e-11)
            assert not torch.allclose(out, original(x), rtol=1e-6)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_features_are_what_the_next_layer_or_its_normalization_receives(variant):
    stack = disturbed(**variant)
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(1), **DOUBLE)
    copies = 2 if variant["activation"] in ("crelu", "fourier") else 1
    groups = stack.hidden_units(residual=True)
    assert [group.name for group in groups] == [f"blocks.{k}.linear" for k in range(3)]
    for r in range(2):
        network = stack.replica(r)
        values = {name: p.detach().numpy() for name, p in network.named_parameters()}
        _, layers = forward(values, x.numpy(), depth=3, **variant)
        for group, (activations, outputs) in zip(groups, layers, strict=True):
            assert group.size * copies == 10
            assert (group.feature_after_norm is not None) == (variant["layer_norm"] == "after")
            for feature, expected in ((group.feature, activations), (group.feature_after_norm, outputs)):
                if feature is None:
                    continue
                expected = expected.reshape(6, copies, group.size).transpose(2, 0, 1)[..., None]
                mine = capture(network, feature, group.size, x)
                np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-9, atol=1e-10)
                torch.testing.assert_close(capture(stack, feature, group.size, x)[r], mine, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
@pytest.mark.parametrize("place", ["after", "before"])
def test_norm_slices_are_the_units_own(activation, place):
    stack = disturbed(activation=activation, layer_norm=place)
    x = torch.randn(6, 7, **DOUBLE)
    for group in stack.hidden_units():
        changed = copy.deepcopy(stack)
        (norm,) = group.norms
        tensors = dict(changed.named_parameters())
        with torch.no_grad():
            for part in (norm.scale, norm.shift):
                part.view(tensors[part.tensor], group.size, 1)[:, 3].zero_()
        # Behind the normalization (and the activation: relu(0) = 0) this unit gives 0, and the others what they gave.
        feature = group.feature_after_norm or group.feature
        before, after = (capture(model, feature, group.size, x) for model in (stack, changed))
        others = [u for u in range(group.size) if u != 3]
        assert not after[:, 3].any()
        assert before[:, 3].any()
        assert torch.equal(after[:, others], before[:, others])


@pytest.mark.parametrize("skip", ["after", "before"])
def test_layers_whose_features_flow_past_the_next_are_left_out_with_the_reason(skip):
    network = MLP(**SMALL, skip=skip)
    units = network.hidden_units()
    assert [group.name for group in units] == ["blocks.2.linear"]
    assert [item.name for item in units.excluded] == ["blocks.0.linear", "blocks.1.linear"]
    assert all("skip" in item.reason and "residual=True" in item.reason for item in units.excluded)
    assert not network.hidden_units(residual=True).excluded


@pytest.mark.one_in(5)
@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_every_name_exists_and_weights_have_one_place(variant):
    for model in (MLP(**SMALL, **variant), StackedMLP(SEEDS, **SMALL, **variant)):
        modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
        covered = dict.fromkeys(parameters, 0)
        for group in model.hidden_units(residual=True):
            slices = [*group.incoming, *group.bias, *(consumer.weight for consumer in group.consumers)]
            slices += [part for norm in group.norms for part in (norm.scale, norm.shift)]
            for part in slices:
                covered[part.tensor] += part.view(parameters[part.tensor], group.size, leading(model)).numel()
            for feature in (group.feature, group.feature_after_norm):
                assert feature is None or feature.module in modules
            assert all(consumer.bias in parameters for consumer in group.consumers)
        # Every weight between hidden layers enters a unit and leaves one; the ends do one of both.
        for name, parameter in parameters.items():
            between = name in ("blocks.1.linear.weight", "blocks.2.linear.weight")
            expected = 0 if name == "output.bias" else parameter.numel() * (2 if between else 1)
            assert covered[name] == expected, name
