"""Small models in the style of well-known ones, each with the hidden units that have to be found, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

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


class FunctionalMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = torch.tanh_(self.fc2(F.dropout(x, 0.0)))
        return self.fc3(x)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 7), nn.Linear(7, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.view(x.size(0), -1)))
        return F.log_softmax(self.fc3(F.relu(self.fc2(x))), dim=-1)


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        layers, before = [], 2
        for width in (3, "pool", 4, 5, "pool"):
            if width == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                before = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(20, 6), nn.ReLU(True), nn.Dropout(0.0), nn.Linear(6, 3))

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class BasicBlock(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, 1, 1, bias=False), nn.BatchNorm2d(3)
        blocks, before = [], 3
        for stage, width in enumerate((3, 4, 5, 6)):
            blocks.append(nn.Sequential(BasicBlock(before, width, 1 if stage == 0 else 2), BasicBlock(width, width, 1)))
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = blocks
        self.linear = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.linear(x.view(x.size(0), -1))


class Bottleneck(nn.Module):
    def __init__(self, before, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if before != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(before, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)) + identity)


class BottleneckNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Bottleneck(2, 2), Bottleneck(8, 2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, width, residual):
        super().__init__()
        self.residual = residual
        self.conv = nn.Sequential(
            *(nn.Conv2d(width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU6(inplace=True)),
            *(nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width, bias=False), nn.BatchNorm2d(2 * width)),
            *(nn.ReLU6(inplace=True), nn.Conv2d(2 * width, width, 1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6())
        self.first, self.second = InvertedResidual(4, False), InvertedResidual(4, True)
        self.last = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6())
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        x = self.last(self.second(self.first(self.stem(x))))
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(2, 4, 2, 2), ConvNeXtBlock(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).mean([-2, -1]))


class Attention(nn.Module):
    """Self-attention in the style of nanoGPT."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class HandAttention(Attention):
    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        scores = scores.masked_fill(torch.ones(t, t).tril() == 0, float("-inf")) if self.causal else scores
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width, attention, causal):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = attention(width, 2, causal)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 3 * width), "fc2": nn.Linear(3 * width, width)})

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.ln2(x))))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(2, 4, 4, 4)
        self.cls, self.position = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(0.02 * torch.randn(1, 5, 4))
        self.blocks = nn.ModuleList([Block(4, HandAttention, False) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 4), nn.Embedding(5, 4)
        self.h = nn.ModuleList([Block(4, Attention, True) for _ in range(2)])
        self.ln_f, self.lm_head = nn.LayerNorm(4), nn.Linear(4, 11, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class Translator(nn.Module):
    """Encoder and decoder of torch.nn."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.transformer = nn.Transformer(4, 2, 1, 1, dim_feedforward=6, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, 11)

    def forward(self, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.out(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inlet = nn.Linear(4, 5)
        self.rnn = kind(5, 3, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        out, _ = self.rnn(torch.relu(self.inlet(x)))
        return self.fc2(torch.relu(self.fc1(out[:, -1])))


class HandRecurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.cell, self.head = nn.Linear(4, 5), nn.Linear(10, 5), nn.Linear(5, 2)

    def forward(self, x):
        state = torch.zeros(x.shape[0], 5)
        for step in self.inner(x).relu().unbind(1):
            state = torch.tanh(self.cell(torch.cat([step, state], -1)))
        return self.head(state)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc1, self.enc2 = self.twice(2, 3), self.twice(3, 4)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.dec, self.out = self.twice(6, 5), nn.Conv2d(5, 1, 1)

    def twice(self, before, width):
        return nn.Sequential(
            *(nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(1, width), nn.ReLU(inplace=True)),
        )

    def forward(self, x):
        skip = self.enc1(x)
        x = self.up(self.enc2(F.max_pool2d(skip, 2)))
        return self.out(self.dec(torch.cat([skip, x], dim=1)))


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.torso = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        self.policy, self.value = nn.Linear(5, 2), nn.Linear(5, 1)

    def forward(self, x):
        features = self.torso(x)
        return {"logits": self.policy(features), "value": self.value(features).squeeze(-1)}


class Dueling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(2, 3, 4, 2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten())
        self.value = nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 1))
        self.advantage = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        features = self.conv(x)
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(1, keepdim=True)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Gated(nn.Module):
    """The gated MLP of LLaMA, and one whose gate and value come from one weight, as in PaLM."""

    def __init__(self):
        super().__init__()
        self.inlet, self.norm, self.last = nn.Linear(4, 5), RMSNorm(5), RMSNorm(5)
        self.gate, self.up, self.down = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(6, 5)
        self.both, self.back = nn.Linear(5, 14), nn.Linear(7, 5)
        self.glu, self.end = nn.Linear(5, 8), nn.Linear(4, 2)

    def forward(self, x):
        x = self.inlet(x)
        y = self.norm(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        gate, value = self.both(self.last(x)).chunk(2, dim=-1)
        return self.end(F.glu(self.glu(x + self.back(F.gelu(gate) * value))))


class Normed(nn.Module):
    """Normalization behind the activation, as in the study, and of other kinds."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm1 = nn.Linear(4, 6), nn.LayerNorm(6)
        self.fc2, self.norm2 = nn.Linear(6, 5), nn.RMSNorm(5)
        self.conv, self.norm3 = nn.Conv1d(1, 3, 3, padding=1), nn.InstanceNorm1d(3, affine=True)
        self.norm4, self.head = nn.BatchNorm1d(15), nn.Linear(15, 2)

    def forward(self, x):
        x = self.norm1(F.relu(self.fc1(x)))
        x = F.silu(self.norm2(self.fc2(x)))
        return self.head(self.norm4(self.norm3(self.conv(x.unsqueeze(1)).relu()).flatten(1)))


class CReLU(nn.Module):
    """Units and their negated twins, functional linear layers, and a layer that reads a part of another."""

    def __init__(self):
        super().__init__()
        self.fc1, self.mid, self.head = nn.Linear(4, 3), nn.Linear(10, 6), nn.Linear(4, 2)
        self.side = nn.Parameter(torch.randn(2, 2))

    def forward(self, x):
        hidden = self.fc1(x)
        hidden = self.mid(torch.cat([x, hidden.relu(), (-hidden).relu()], dim=-1)).tanh()
        return self.head(hidden[:, :4]) + hidden[:, 4:] @ self.side


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(2, 4, 3), nn.Linear(4, 2), nn.Linear(2, 4)
        self.last = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        x = self.conv(x).relu()
        scale = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3))).relu()))
        return self.last(x * scale[:, :, None, None]).amax((2, 3))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(4), nn.LayerNorm(4)
        self.token = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.channel = nn.Sequential(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 4))

    def forward(self, x):
        x = x + self.token(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.norm2(x))


def blocks(prefix, norm, width, mlp="mlp.fc1", fc2="mlp.fc2"):
    return {f"{prefix}.{k}.{mlp}": (width, [f"{prefix}.{k}.{fc2}"]) for k in range(norm)}


CASES: dict[str, Case] = {
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
        {"inlet": "mean in norm may mix them", "down": RESIDUAL, "back": RESIDUAL},
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
        {"mid[4:6]": "cannot be read", "head": RESIDUAL, "side": RESIDUAL},
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
