import math

import numpy as np
import pytest
import torch
from mlp_reference import VARIANTS, forward, name_of

from supple.functional import initial, random
from supple.functional.initial import Constant
from supple.lab.nn import ACTIVATIONS, MLP, CReLU, Fourier, ReparameterizedLayerNorm, StackedMLP

SMALL = {"inputs": 7, "hidden": 10, "outputs": 4, "depth": 3}


def disturb(network, seed=0):
    """Double precision, and noise on every parameter, so that no bias or shift is 0 and no scale 1."""
    generator = torch.Generator().manual_seed(seed)
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return network


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_forward_is_the_written_out_formula(variant):
    network = disturb(MLP(**SMALL, **variant, seed=3))
    x = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = {name: p.detach().numpy() for name, p in network.named_parameters()}
    expected, _ = forward(values, x.numpy(), depth=3, **variant)
    np.testing.assert_allclose(network(x).detach().numpy(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_depth_counts_hidden_layers(depth):
    network = MLP(6, 8, 3, depth)
    assert [tuple(p.shape) for name, p in network.named_parameters() if name.endswith("weight")] == [
        (8, 6),
        *[(8, 8)] * (depth - 1),
        (3, 8),
    ]
    assert network(torch.zeros(2, 6)).shape == (2, 3)


@pytest.mark.parametrize("variant", VARIANTS[::7], ids=name_of)
def test_every_parameter_has_an_initial_distribution_and_starts_from_it(variant):
    network = MLP(**SMALL, **variant, seed=11)
    distributions = network.initial_distributions()
    assert set(distributions) == {name for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        index = torch.tensor([0, parameter.numel() // 2, parameter.numel() - 1])
        drawn = initial.sample_at(distributions[name], torch.tensor(11), random.purpose("initial", name), 0, index)
        assert torch.equal(parameter.detach().flatten()[index], drawn)
        if "weight" not in name or "norm" in name:
            assert isinstance(distributions[name], Constant)


def test_modules_agree_with_the_network_on_initial_distributions():
    stack = StackedMLP([0, 1], **SMALL, activation="gelu", layer_norm="before", reparameterized=True)
    whole = stack.initial_distributions()
    parts = {
        f"{name}.{parameter}": distribution
        for name, module in stack.named_modules()
        if name and hasattr(module, "initial_distributions")
        for parameter, distribution in module.initial_distributions().items()
    }
    assert parts == whole


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_initial_weights_have_the_published_moments(activation):
    stack = StackedMLP(list(range(40)), inputs=100, hidden=50, outputs=30, depth=2, activation=activation)
    fans = {"blocks.0.linear": (100, 50), "blocks.1.linear": (50, 50), "output": (50, 30)}
    if activation in ("crelu", "fourier"):
        fans |= {"blocks.0.linear": (100, 25), "blocks.1.linear": (50, 25)}
    for name, parameter in stack.named_parameters():
        values = parameter.detach().double().flatten()
        layer, _, kind = name.rpartition(".")
        if kind == "bias":
            assert not values.any()
            continue
        fan_in, fan_out = fans[layer]
        assert parameter.shape == (40, fan_out, fan_in)
        xavier = activation in ("gelu", "silu")
        std = math.sqrt(2 / (fan_in + fan_out)) if xavier else torch.nn.init.calculate_gain("relu") / math.sqrt(fan_in)
        n = len(values)
        assert abs(values.mean()) < 5 * std / math.sqrt(n)
        assert abs(values.var() / std**2 - 1) < 5 * math.sqrt(2 / n)
        assert abs((values / std).pow(4).mean() - 3) < 5 * math.sqrt(96 / n)


def test_a_network_is_a_function_of_its_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = MLP(hidden=4, seed=1), MLP(hidden=4, seed=1), MLP(hidden=4, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.output.weight, same.output.weight)
    assert not torch.equal(one.output.weight, other.output.weight)
    assert not torch.equal(one.blocks[1].linear.weight, one.blocks[2].linear.weight)


def test_a_network_on_the_meta_device_has_shapes_only():
    with torch.device("meta"):
        network, stack = MLP(), StackedMLP([0, 1])
    assert all(p.is_meta for p in [*network.parameters(), *stack.parameters()])
    assert stack.output.weight.shape == (2, 10, 100)


def test_reparameterized_norm_is_the_regular_one_of_scale_one_plus_weight():
    regular = disturb(MLP(**SMALL, layer_norm="after"))
    other = MLP(**SMALL, layer_norm="after", reparameterized=True).double()
    state = regular.state_dict()
    other.load_state_dict({name: v - 1 if "norm.weight" in name else v for name, v in state.items()})
    x = torch.randn(6, 7, dtype=torch.float64)
    torch.testing.assert_close(other(x), regular(x), rtol=1e-13, atol=1e-13)
    fresh = MLP(**SMALL, layer_norm="after", reparameterized=True)
    assert all(not p.any() for name, p in fresh.named_parameters() if "norm" in name)


def test_reparameterized_norm_keeps_what_layer_norm_offers():
    x = torch.randn(2, 3, 4)
    norm = ReparameterizedLayerNorm((3, 4))
    torch.testing.assert_close(norm(x), torch.nn.LayerNorm((3, 4))(x))
    assert torch.equal(norm.scale, torch.ones(3, 4))
    plain = ReparameterizedLayerNorm(4, elementwise_affine=False)
    torch.testing.assert_close(plain(x), torch.nn.LayerNorm(4)(x))
    assert plain.scale is None
    assert plain.initial_distributions() == {}
    assert ReparameterizedLayerNorm(4, bias=False).initial_distributions() == {"weight": Constant(0.0)}


def test_fourier_features_are_sines_and_then_cosines():
    z = torch.tensor([[0.0, 2.0]])
    expected = [0.0, math.sin(2.0), 1.0, math.cos(2.0)]
    torch.testing.assert_close(Fourier()(z), torch.tensor([expected]))


def test_crelu_puts_each_negated_twin_behind_all_units():
    z = torch.tensor([[1.0, -2.0, 0.0]])
    assert CReLU()(z).tolist() == [[1.0, 0.0, 0.0, 0.0, 2.0, 0.0]]


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_saturated_values_are_where_the_activation_flattens_out(name):
    kind = ACTIVATIONS[name]
    z = torch.linspace(-60, 60, 2001, dtype=torch.float64, requires_grad=True)
    out = kind.module()(z.unsqueeze(-1))
    (slope,) = torch.autograd.grad(out.sum(), z)
    assert out.shape[-1] == kind.copies
    if name in ("leaky_relu", "crelu"):  # Never flat: leaky ReLU is 0 at 0 only, CReLU loses no information.
        assert kind.shape.saturated == (0.0,)
        assert not (slope == 0)[z != 0].any()
        return
    if name == "fourier":  # Where the sine is flat, the cosine is not.
        assert kind.shape.saturated == ()
        return
    flat = {round(value, 6) + 0.0 for value in out[slope.abs() < 1e-9].flatten().tolist()}
    assert flat == set(kind.shape.saturated)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activation": "swish"}, ["swish", "relu", "crelu", "gelu"]),
        ({"hidden": 0}, ["hidden", "0"]),
        ({"depth": 0}, ["depth"]),
        ({"skip": "around"}, ["skip", "around", "after", "before"]),
        ({"layer_norm": "both"}, ["layer_norm", "both", "after", "before"]),
        ({"activation": "crelu", "hidden": 5}, ["hidden", "5", "even"]),
        ({"activation": "crelu", "skip": "before"}, ["skip", "crelu", "after"]),
        ({"skip": "after", "depth": 1}, ["skip", "depth"]),
        ({"reparameterized": True}, ["reparameterized", "layer_norm"]),
    ],
)
def test_meaningless_options_are_named(options, words):
    for make in (MLP, lambda **rest: StackedMLP([0], **rest)):
        with pytest.raises(ValueError, match=words[0]) as error:
            make(**options)
        assert all(word in str(error.value) for word in words)


def test_repr_shows_sizes_and_what_is_not_default():
    assert repr(MLP(hidden=10, seed=7)) == "MLP(784-10-10-10-10, activation='relu', seed=7)"
    stack = StackedMLP([0, 1], 6, 4, 3, 1, activation="tanh", layer_norm="before", reparameterized=True)
    assert repr(stack) == (
        "StackedMLP(6-4-3, activation='tanh', layer_norm='before', reparameterized=True, replicas=2)"
    )
