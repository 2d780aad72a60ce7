"""The vision transformer against loops, against PyTorch's own transformer layers, and against its stated values."""

import math
import re

import pytest
import torch
from torch import nn

import supple
from supple.lab.nn import ViT, transformer
from supple.lab.nn.layers import dropout
from supple.structure.tracing import trace

SMALL = {"outputs": 5, "image_size": 8, "channels": 2, "depth": 2, "heads": 3, "width": 12, "hidden": 20}


def trained_like(**options):
    """A small network in float64, every parameter moved away from where it starts."""
    network = ViT(**{**SMALL, **options}).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4)
    return network


def pictures(count=3):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


# Loops over lists of numbers, from Dosovitskiy et al. (2021), equations 1 to 4, and Vaswani et al. (2017).


def linear(x, weight, bias):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def normalize(x, scale, shift):
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(variance + 1e-6) * s + t for v, s, t in zip(x, scale, shift, strict=True)]


def gelu(v):
    return v * (1 + math.erf(v / math.sqrt(2))) / 2


def attend(tokens, heads, inward, inward_bias, outward, outward_bias):
    width = len(tokens[0])
    size = width // heads
    projected = [linear(token, inward, inward_bias) for token in tokens]
    mixed = [[] for _ in tokens]
    for head in range(heads):
        at = range(head * size, (head + 1) * size)
        for i, here in enumerate(projected):
            fits = [sum(here[j] * there[width + j] for j in at) / math.sqrt(size) for there in projected]
            shares = [math.exp(fit - max(fits)) for fit in fits]
            mixed[i] += [
                sum(share * there[2 * width + j] for share, there in zip(shares, projected, strict=True)) / sum(shares)
                for j in at
            ]
    return [linear(token, outward, outward_bias) for token in mixed]


def looped(network, image, heads=3, patch=4, reparameterized=False):
    p = {name: parameter.tolist() for name, parameter in network.named_parameters()}

    def norm(name, token):
        scale = [1 + w for w in p[f"{name}.weight"]] if reparameterized else p[f"{name}.weight"]
        return normalize(token, scale, p[f"{name}.bias"])

    tokens = [list(p["class_token"][0][0])]
    for top in range(0, len(image[0]), patch):
        for left in range(0, len(image[0][0]), patch):
            token = []
            for kernel, bias in zip(p["patches.weight"], p["patches.bias"], strict=True):
                total = bias
                for colour, square in enumerate(kernel):
                    for row, line in enumerate(square):
                        for column, weight in enumerate(line):
                            total += weight * image[colour][top + row][left + column]
                token.append(total)
            tokens.append(token)
    tokens = [
        [a + b for a, b in zip(token, at, strict=True)] for token, at in zip(tokens, p["positions"][0], strict=True)
    ]
    for k in range(len(network.blocks)):
        b = f"blocks.{k}"
        weights = [
            p[f"{b}.attention.{side}_projection.{kind}"] for side in ("in", "out") for kind in ("weight", "bias")
        ]
        mixed = attend([norm(f"{b}.norm1", token) for token in tokens], heads, *weights)
        tokens = [[a + c for a, c in zip(token, new, strict=True)] for token, new in zip(tokens, mixed, strict=True)]
        for i, token in enumerate(tokens):
            inner = linear(norm(f"{b}.norm2", token), p[f"{b}.mlp.linear1.weight"], p[f"{b}.mlp.linear1.bias"])
            outer = linear([gelu(v) for v in inner], p[f"{b}.mlp.linear2.weight"], p[f"{b}.mlp.linear2.bias"])
            tokens[i] = [a + c for a, c in zip(token, outer, strict=True)]
    return linear(norm("norm", tokens[0]), p["output.weight"], p["output.bias"])


@pytest.mark.parametrize("reparameterized", [False, True])
def test_output_of_loops(reparameterized):
    network, images = trained_like(reparameterized=reparameterized), pictures(2)
    expected = [looped(network, image, reparameterized=reparameterized) for image in images.tolist()]
    torch.testing.assert_close(network(images), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", [0, 1])
def test_blocks_and_their_gradients_are_those_of_torch(k):
    block = trained_like(dropout=0.0).blocks[k].train()
    layer = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    names = {"self_attn.in_proj_": "attention.in_projection.", "self_attn.out_proj": "attention.out_projection"}
    names |= {"linear1": "mlp.linear1", "linear2": "mlp.linear2"}

    def ours(name):
        for theirs, mine in names.items():
            name = name.replace(theirs, mine)
        return name

    values = dict(block.named_parameters())
    layer.load_state_dict({name: values[ours(name)].detach() for name in layer.state_dict()})
    x = torch.randn(4, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x), layer(x))
    for module in (block, layer):
        (module(x) ** 3).mean().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(values[ours(name)].grad, parameter.grad)


def stated(width, hidden, patch_width):
    """(kind, standard deviation, largest magnitude) by the parameter's name, from the study."""
    uniform = {
        "attention.in_projection.weight": math.sqrt(6 / (4 * width)),
        "attention.out_projection.weight": 1 / math.sqrt(width),
        "mlp.linear1": 1 / math.sqrt(width),
        "mlp.linear2": 1 / math.sqrt(hidden),
    }
    return {
        **{name: (bound / math.sqrt(3), bound) for name, bound in uniform.items()},
        "positions": (0.02, 0.02 * 5.4),
        "patches.weight": (math.sqrt(1 / patch_width), 2.0),
    }


def test_initial_values_are_those_stated():
    network = ViT(20, image_size=32, depth=2, heads=4, width=96, hidden=384, seed=11)
    drawn = stated(96, 384, 48)
    for name, parameter in network.named_parameters():
        values = parameter.detach().double().flatten()
        short = re.sub(r"^blocks\.\d+\.", "", name)
        key = next((key for key in drawn if short.startswith(key)), None)
        if key is None:
            constant = 1.0 if "norm" in short and short.endswith("weight") else 0.0
            assert (values == constant).all(), name
            continue
        std, bound = drawn[key]
        assert values.abs().max() <= bound, name
        # Five standard errors, those of a normal distribution being the larger.
        assert abs(values.mean()) < 5 * std / math.sqrt(len(values)), name
        assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * len(values)), name
        fourth = ((values / values.std()) ** 4).mean()
        if len(values) > 5000:
            assert abs(fourth - (3 if short in ("positions", "patches.weight") else 1.8)) < 0.3, name


def test_parameters_of_the_study():
    with torch.device("meta"):
        network = ViT()
    block = 4 * 384 + 3 * 384 * 385 + 384 * 385 + 1536 * 385 + 384 * 1537
    expected = 384 * 49 + 384 + 65 * 384 + 8 * block + 2 * 384 + 100 * 385
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert all(parameter.is_meta for parameter in network.parameters())


def test_initial_values_are_a_function_of_the_seed_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, other = ViT(**SMALL, seed=7), ViT(**SMALL, seed=8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = ViT(**SMALL, seed=7)
    for (name, a), b, c in zip(one.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        constant = isinstance(one.initial_distributions()[name], supple.Constant)
        assert torch.equal(a, c) == constant, name


def test_stated_distributions_cover_every_parameter():
    for reparameterized in (False, True):
        network = ViT(**SMALL, reparameterized=reparameterized)
        found = supple.initial_distributions(network)
        assert set(found) == set(network.initial_distributions())
        assert all(initial.source == "own rule of ViT" for initial in found.values())
        assert found["blocks.1.norm2.weight"].distribution == supple.Constant(0.0 if reparameterized else 1.0)
        supple.SWR(network)


def test_reparameterized_is_the_regular_one_under_the_change_of_variables():
    regular = trained_like(dropout=0.0)
    other = trained_like(dropout=0.0, reparameterized=True)
    state = regular.state_dict()
    scales = [name for name in state if "norm" in name and name.endswith("weight")]
    assert len(scales) == 5
    other.load_state_dict({name: value - 1 if name in scales else value for name, value in state.items()})
    images = pictures()
    torch.testing.assert_close(regular(images), other(images), rtol=1e-12, atol=1e-12)
    for network in (regular, other):
        network(images).pow(2).sum().backward()
    gradients = dict(other.named_parameters())
    for name, parameter in regular.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad)


@pytest.mark.parametrize(("reparameterized", "goal"), [(False, 0.0), (True, 1.0)])
def test_decay_pulls_the_scale(reparameterized, goal):
    network = trained_like(reparameterized=reparameterized)
    norm = network.blocks[0].norm1
    before = (norm.scale if reparameterized else norm.weight).detach().clone()
    method = supple.L2(network, l2=0.5)
    for _ in range(20):
        method.step()
    after = (norm.scale if reparameterized else norm.weight).detach()
    torch.testing.assert_close(after, goal + (before - goal) / 2**20)


def test_hidden_units_are_those_that_tracing_finds():
    network = ViT(**SMALL)
    own, found = supple.units(network), trace(network, torch.zeros(2, 2, 8, 8))
    assert own.groups == found.groups
    assert [group.name for group in own] == ["blocks.0.mlp.linear1", "blocks.1.mlp.linear1"]
    assert {item.name for item in own.excluded} == {item.name for item in found.excluded}


def test_features_at_every_mlp():
    network, seen = trained_like(), []
    for block in network.blocks:
        block.activation.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    network(pictures())
    assert [output.shape for _, output in seen] == [(3, 5, 20)] * 2
    for inputs, output in seen:
        torch.testing.assert_close(output, nn.functional.gelu(inputs))


def test_dropout_is_for_training_and_comes_from_torchs_generator(monkeypatch):
    network, images = trained_like(dropout=0.3), pictures()
    asked = []
    attention = nn.functional.scaled_dot_product_attention

    def watched(*args, dropout_p):
        asked.append(dropout_p)
        return attention(*args, dropout_p=dropout_p)

    def dropped(weights, p):  # a CPU has no fused attention with dropout
        asked.append(p)
        return dropout(weights, p)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(transformer, "dropout", dropped)
    still = network(images)
    assert torch.equal(network(images), still)
    network.train()
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(network(images))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert asked == [0.0] * 4 + [0.3] * 6
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.3}
    torch.testing.assert_close(trained_like(dropout=0.0).train()(images), still)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth is 0; it has to be 1 or more"),
        ({"patch_size": 3}, "patch_size is 3, which does not divide image_size, 8"),
        ({"heads": 5}, "heads is 5, which does not divide width, 12"),
        ({"dropout": 1.0}, r"dropout is 1\.0; it has to be at least 0 and below 1"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        ViT(**{**SMALL, **change})


def test_it_says_what_it_is():
    assert repr(ViT(**SMALL, reparameterized=True, seed=3)) == (
        "ViT(outputs=5, image_size=8, channels=2, patch_size=4, depth=2, heads=3, width=12, hidden=20, dropout=0.1, "
        "reparameterized=True, seed=3)"
    )
