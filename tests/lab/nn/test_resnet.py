"""The residual network against loops over places and channels, and against published numbers."""

import math

import pytest
import torch

import supple
from supple.lab.nn import ResNet, activations


def convolved(x, layer):
    """A convolution by its definition; x [channels][rows][columns]."""
    (stride, _), (padding, _) = layer.stride, layer.padding
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    side, size = len(x[0]), len(weight[0][0])

    def at(image, row, column):
        return image[row][column] if 0 <= row < side and 0 <= column < side else 0.0

    places = range(0, side + 2 * padding - size + 1, stride)
    return [
        [
            [
                shift
                + sum(
                    kernel[c][i][j] * at(x[c], row + i - padding, column + j - padding)
                    for c in range(len(x)) for i in range(size) for j in range(size)
                )
                for column in places
            ]
            for row in places
        ]
        for kernel, shift in zip(weight, bias, strict=True)
    ]  # fmt: skip


def each(function, *images):
    return [[[function(*values) for values in zip(*rows, strict=True)] for rows in zip(*some, strict=True)]
            for some in zip(*images, strict=True)]  # fmt: skip


def normalized(x, layer):
    values = zip(
        x, *(t.tolist() for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)), strict=True
    )
    return [
        [[(value - mean) / math.sqrt(var + layer.eps) * scale + shift for value in row] for row in image]
        for image, mean, var, scale, shift in values
    ]


def output_of(network, image):
    x = each(lambda v: max(v, 0.0), normalized(convolved(image, network.stem), network.norm))
    for block in network.blocks:
        inner = each(lambda v: max(v, 0.0), normalized(convolved(x, block.conv1), block.norm1))
        inner = normalized(convolved(inner, block.conv2), block.norm2)
        past = (
            normalized(convolved(x, block.shortcut[0]), block.shortcut[1])
            if len(list(block.shortcut.children()))
            else x
        )
        x = each(lambda one, other: max(one + other, 0.0), inner, past)
    means = [sum(map(sum, one)) / sum(map(len, one)) for one in x]
    rows = zip(network.output.weight.tolist(), network.output.bias.tolist(), strict=True)
    return [shift + sum(w * m for w, m in zip(row, means, strict=True)) for row, shift in rows]


def test_output_of_loops():
    network = ResNet(3, channels=2, width=2, depth=1, seed=4).double()
    torch.manual_seed(1)
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    network(x)
    network.eval()
    expected = torch.tensor([output_of(network, image.tolist()) for image in x], dtype=torch.float64)
    torch.testing.assert_close(network(x), expected)


def test_sizes_are_those_of_resnet18():
    """11,173,962 is what ResNet-18 for CIFAR-10 has without the convolutions' 4,800 biases."""
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(10).parameters()) == 11_173_962 + 4800
        assert [tuple(block.conv2.weight.shape[:1]) for block in ResNet(10).blocks] == [
            (64,), (64,), (128,), (128,), (256,), (256,), (512,), (512,)
        ]  # fmt: skip
    assert ResNet(4, channels=1, width=2)(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_initial_values_are_those_stated():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = ResNet(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            fan_in = module.in_channels * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.08), name
            assert not module.bias.any()
        elif isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()
            assert not module.running_mean.any()
            assert (module.running_var == 1).all()
    assert network.output.weight.std().item() == pytest.approx(math.sqrt(1 / 512), rel=0.02)
    again, other = ResNet(seed=5), ResNet(seed=6)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert not torch.equal(network.stem.weight, other.stem.weight)
    assert network.initial_distributions().keys() == dict(network.named_parameters()).keys()


def test_hidden_units_are_found_and_measured_where_they_are():
    network = ResNet(5, width=4, depth=2, seed=1)
    x = torch.randn(3, 3, 16, 16)
    inner = [group.name for group in supple.units(network, x) if group.name.endswith("conv1")]
    assert inner == [f"blocks.{k}.conv1" for k in range(8)]
    found = activations(network, x)
    assert [tuple(one.shape) for one in found.hidden] == [
        (3, width, side, side) for width, side in ((4, 16), (8, 8), (16, 4), (32, 2)) for _ in range(2)
    ]
    torch.testing.assert_close(network.output(found.last), network.eval()(x))


@pytest.mark.parametrize("name", ["outputs", "channels", "width", "depth"])
def test_sizes_that_mean_nothing(name):
    with pytest.raises(ValueError, match=f"{name} is 0; it has to be 1 or more"):
        ResNet(**{name: 0})


def test_it_says_what_it_is():
    assert repr(ResNet(4, width=2, depth=1, seed=9)) == "ResNet(outputs=4, channels=3, width=2, depth=1, seed=9)"
