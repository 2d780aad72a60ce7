"""Small models in the style of well-known ones, each with the hidden units that have to be found, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from traced_networks import VGG, BottleneckNet, ConvNeXt, FunctionalMLP, LeNet, MobileNet, ResNet18
from traced_sequences import (
    GPT,
    ActorCritic,
    CReLU,
    Dueling,
    Gated,
    Mixer,
    Normed,
    Recurrent,
    SqueezeExcite,
    Translator,
    UNet,
    ViT,
)

RESIDUAL = "residual stream"
ATTENTION = "attention"


@dataclass
class Case:
    """A model, an example of its input, and what is to be found: (units, readers) by layer, and reasons by layer."""

    make: Callable[[], nn.Module]
    example: Any
    groups: dict[str, tuple[int, list[str]]]
    excluded: dict[str, str] = field(default_factory=dict)
    initial: dict[str, Any] = field(default_factory=dict)


def image(channels=2, size=8):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(1))


def rows(*shape):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))


def tokens(length=5, vocabulary=11):
    return torch.randint(0, vocabulary, (3, length), generator=torch.Generator().manual_seed(3))


def blocks(prefix, norm, width, mlp="mlp.fc1", fc2="mlp.fc2"):
    return {f"{prefix}.{k}.{mlp}": (width, [f"{prefix}.{k}.{fc2}"]) for k in range(norm)}


def convolutions(dims):
    """A convolution and a transposed one, of 1 or 3 dimensions, read by a linear layer."""
    conv, transposed = {1: (nn.Conv1d, nn.ConvTranspose1d), 3: (nn.Conv3d, nn.ConvTranspose3d)}[dims]
    pool = {1: nn.AvgPool1d, 3: nn.AvgPool3d}[dims]
    return nn.Sequential(
        *(conv(2, 3, 2), nn.ReLU(), transposed(3, 4, 2, stride=2), nn.Softplus(), pool(2), nn.Flatten()),
        nn.Linear(4 * 3**dims, 2),
    )


CASES: dict[str, Case] = {
    **{
        f"{dims}d": Case(lambda dims=dims: convolutions(dims), rows(2, *[4] * dims), {"0": (3, ["2"]), "2": (4, ["6"])})
        for dims in (1, 3)
    },
    "mlp": Case(FunctionalMLP, rows(4), {"fc1": (6, ["fc2"]), "fc2": (5, ["fc3"])}),
    "lenet": Case(
        LeNet,
        image(),
        {"conv1": (3, ["conv2"]), "conv2": (4, ["fc1"]), "fc1": (7, ["fc2"]), "fc2": (5, ["fc3"])},
        {"fc3": "_log_softmax in the model may mix them"},
    ),
    "vgg": Case(
        VGG,
        image(),
        {
            "features.0": (3, ["features.4"]),
            "features.4": (4, ["features.7"]),
            "features.7": (5, ["classifier.0"]),
            "classifier.0": (6, ["classifier.3"]),
        },
    ),
    "resnet 18": Case(
        ResNet18,
        image(),
        {
            f"layer{stage}.{block}.conv1": (stage + 2, [f"layer{stage}.{block}.conv2"])
            for stage in range(1, 5)
            for block in range(2)
        },
        {
            "conv1": RESIDUAL,
            **{f"layer{stage}.{block}.conv2": RESIDUAL for stage in range(1, 5) for block in range(2)},
            **{f"layer{stage}.0.shortcut.0": RESIDUAL for stage in range(2, 5)},
        },
    ),
    "resnet bottleneck": Case(
        BottleneckNet,
        image(),
        {
            f"blocks.{k}.{name}": (2, [f"blocks.{k}.{reader}"])
            for k in range(2)
            for name, reader in (("conv1", "conv2"), ("conv2", "conv3"))
        },
        {f"blocks.{name}": RESIDUAL for name in ("0.conv3", "0.downsample.0", "1.conv3")},
    ),
    "mobilenet": Case(
        MobileNet,
        image(),
        {"stem.0": (4, ["first.conv.0"]), "last.0": (6, ["classifier"])},
        {
            "first.conv.0": "first.conv.3, which reads them, is a grouped convolution (groups=8)",
            "first.conv.3": "it is a grouped convolution (groups=8)",
            "first.conv.6": RESIDUAL,
            "second.conv.0": "second.conv.3, which reads them, is a grouped convolution (groups=8)",
            "second.conv.3": "it is a grouped convolution (groups=8)",
            "second.conv.6": RESIDUAL,
        },
    ),
    "convnext": Case(
        ConvNeXt,
        image(),
        {"block.pwconv1": (12, ["block.pwconv2"])},
        {
            "stem": "grouped convolution",
            "block.dwconv": "it is a grouped convolution (groups=4)",
            "block.pwconv2": RESIDUAL,
        },
    ),
    "vit": Case(
        ViT,
        image(),
        blocks("blocks", 2, 12),
        {
            "patch": "cat in the model puts other features in their place",
            **{f"blocks.{k}.attn.qkv": ATTENTION for k in range(2)},
            **{f"blocks.{k}.attn.proj": RESIDUAL for k in range(2)},
            **{f"blocks.{k}.mlp.fc2": RESIDUAL for k in range(2)},
        },
    ),
    "gpt": Case(
        GPT,
        tokens(),
        blocks("h", 2, 12),
        {
            **{f"h.{k}.attn.qkv": ATTENTION for k in range(2)},
            **{f"h.{k}.attn.proj": RESIDUAL for k in range(2)},
            **{f"h.{k}.mlp.fc2": RESIDUAL for k in range(2)},
        },
    ),
    "encoder-decoder": Case(
        Translator,
        (tokens(), tokens(4)),
        {
            f"transformer.{side}.layers.0.linear1": (6, [f"transformer.{side}.layers.0.linear2"])
            for side in ("encoder", "decoder")
        },
        {
            **{f"transformer.{side}.layers.0.linear2": RESIDUAL for side in ("encoder", "decoder")},
            **{
                f"transformer.{module}.in_proj_weight": ATTENTION
                for module in (
                    "encoder.layers.0.self_attn",
                    "decoder.layers.0.self_attn",
                    "decoder.layers.0.multihead_attn",
                )
            },
            **{
                f"transformer.{module}.out_proj": RESIDUAL
                for module in (
                    "encoder.layers.0.self_attn",
                    "decoder.layers.0.self_attn",
                    "decoder.layers.0.multihead_attn",
                )
            },
        },
    ),
    "lstm": Case(
        lambda: Recurrent(nn.LSTM),
        rows(5, 4),
        {"fc1": (6, ["fc2"])},
        {"inlet": "they go into rnn, a recurrent layer (lstm)", "rnn": "it is a recurrent layer (lstm)"},
    ),
    "gru": Case(
        lambda: Recurrent(nn.GRU),
        rows(5, 4),
        {"fc1": (6, ["fc2"])},
        {"inlet": "they go into rnn, a recurrent layer (gru)", "rnn": "it is a recurrent layer (gru)"},
    ),
    "u-net": Case(
        UNet,
        image(),
        {
            "enc1.0": (3, ["enc1.3"]),
            "enc1.3": (3, ["enc2.0", "dec.0"]),
            "enc2.0": (4, ["enc2.3"]),
            "enc2.3": (4, ["up"]),
            "up": (3, ["dec.0"]),
            "dec.0": (5, ["dec.3"]),
            "dec.3": (5, ["out"]),
        },
    ),
    "actor-critic": Case(ActorCritic, rows(4), {"torso.0": (6, ["torso.2"]), "torso.2": (5, ["policy", "value"])}),
    "dueling": Case(
        Dueling,
        image(),
        {
            "conv.0": (3, ["conv.2"]),
            "conv.2": (4, ["advantage.0", "value.0"]),
            "value.0": (5, ["value.2"]),
            "advantage.0": (6, ["advantage.2"]),
        },
        {"value.2": "add in the model applies one to many others", "advantage.2": "mean in the model may mix them"},
    ),
    "gated": Case(
        Gated,
        rows(4),
        {"gate * up": (6, ["down"]), "both": (7, ["back"]), "glu": (4, ["end"])},
        {"inlet": RESIDUAL, "down": RESIDUAL, "back": RESIDUAL},
    ),
    "normed": Case(
        Normed,
        rows(4),
        {"fc1": (6, ["fc2"]), "conv": (3, ["head"])},
        {"fc2": "convolution in conv takes them for positions"},
    ),
    "crelu": Case(
        CReLU,
        rows(4),
        {"fc1": (3, ["mid"]), "mid[0:4]": (4, ["head"])},
        {"mid[4:6]": "cannot be read"},
    ),
    "squeeze and excite": Case(
        SqueezeExcite,
        image(),
        {"fc1": (2, ["fc2"])},
        {"conv": "with features that are computed from them", "fc2": "features that are computed from them"},
    ),
    "mixer": Case(
        Mixer,
        rows(5, 4),
        {"token.0": (6, ["token.2"]), "channel.0": (7, ["channel.2"])},
        {"token.2": RESIDUAL, "channel.2": RESIDUAL},
    ),
}
