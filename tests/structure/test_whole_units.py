"""That whole units are found: of products and sums of layers, of several inputs, with statistics and with norms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced_checks import (
    assert_accounted,
    assert_methods_take_steps,
    assert_replacing_silences,
    assert_whole,
    readers,
)
from traced_functions import by_function, linear
from traced_models import image, rows

import supple
from supple.methods.features import FeatureReader
from supple.structure.tracing import trace


class TimeMixing(nn.Module):
    """Each channel is gated, and summed up over time with weights of its own, as in RWKV with one head a channel."""

    def __init__(self):
        super().__init__()
        self.key, self.value, self.receptance = (nn.Linear(4, 6) for _ in range(3))
        self.output = nn.Linear(6, 2)

    def forward(self, x):
        k, v, r = self.key(x).exp(), self.value(x), self.receptance(x).sigmoid()
        return self.output(r * ((k * v).cumsum(1) / k.cumsum(1)))


class Diffusion(nn.Module):
    """A block that is told the time, which scales, shifts or is added."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv1, self.norm, self.conv2 = nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(6, 6), nn.Conv2d(6, 2, 3)
        self.time = nn.Linear(5, 12 if how == "film" else 6)

    def forward(self, x, t):
        h, t = self.conv1(x), self.time(F.silu(t))[:, :, None, None]
        if self.how == "added":
            h = self.norm(h + t)
        else:
            scale, shift = t.chunk(2, dim=1)
            h = self.norm(h) * (1 + scale) + shift
        return self.conv2(F.silu(h))


class Siamese(nn.Module):
    """One encoder for two inputs."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.encoder = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh())
        self.head = nn.Linear(10 if how == "joined" else 5, 2)

    def forward(self, x, y):
        a, b = self.encoder(x), self.encoder(y)
        if self.how == "joined":
            return self.head(torch.cat([a, b], -1))
        return self.head((a - b).abs()) if self.how == "difference" else self.head(a) @ self.head(b).T


class Statistics(nn.Module):
    """Keeps and gives out what can be said of its units, and learns from it."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)
        self.register_buffer("fired", torch.zeros(6, dtype=torch.int64))
        self.tells = True

    def forward(self, x):
        h = self.a(x).relu()
        y = self.b(h)
        loss = (y - x).square()
        self.active = (h > 0).float().mean().detach()
        self.often = (h > 0).float().mean(0).detach()
        self.fired += (h > 0).any(0)
        if not self.tells:
            return y
        if self.how == "a loss":
            return y, loss.mean() + 1e-3 * h.abs().sum(-1).mean()
        if self.how == "a loss an example":
            return y, (loss.sum(-1) + 1e-3 * h.norm(p=1, dim=-1)).mean()
        if self.how == "numbers":
            return {"y": y, "sizes": h.mean(-1), "units": h.abs().amax(0), "most": h.argmax(-1)}
        return (h.mean(0).clamp(min=1e-3).log() * 0.05).sum() + loss.mean()


class Autoencoder(nn.Module):
    """A variational one, whose loss is computed where it runs."""

    def __init__(self):
        super().__init__()
        self.inner, self.mean, self.spread = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.outer, self.out = nn.Linear(3, 5), nn.Linear(5, 4)
        self.tells = True

    def forward(self, x):
        h = self.inner(x).relu()
        mean, spread = self.mean(h), self.spread(h)
        z = mean + torch.randn_like(mean) * (0.5 * spread).exp() * self.training
        divergence = -0.5 * (1 + spread - mean.square() - spread.exp()).sum(-1)
        y = self.out(self.outer(z).relu())
        return (y, ((y - x).square().sum(-1) + divergence).mean()) if self.tells else y


class Norms(nn.Module):
    """Units that are divided by their size, in the ways in which people write it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 6), *(nn.Linear(6, 6) for _ in range(4)), nn.Linear(6, 2)])
        self.scale, self.shifted = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        a, b, c, d, e, f = self.layers
        x = a(x)
        x = b((self.scale * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).relu())
        x = c(x / (x.norm(dim=-1, keepdim=True) + 1e-6))
        x = d(F.normalize(x, dim=-1))
        x = e(x * x.square().mean(-1, keepdim=True).add(1e-6).pow(-0.5))
        return f(x * (1 / x.square().mean(-1, keepdim=True).sqrt()))


class NormsWithMean(nn.Module):
    """Units from which their mean is subtracted and that are divided by their spread, as people write it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 6), *(nn.Linear(6, 6) for _ in range(3)), nn.Linear(6, 2)])
        self.scale, self.shift = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        a, b, c, d, e = self.layers
        x = a(x)
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        x = b(((x - mean) / torch.sqrt(var + 1e-5) * self.scale + self.shift).relu())
        x = x - x.mean(-1).unsqueeze(-1)
        x = c((x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)).relu())
        x = d((x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-5))
        var, mean = torch.var_mean(x.relu(), -1, keepdim=True)
        return e((x.relu() - mean) * (var + 1e-5) ** -0.5)


class ChannelNorm(nn.Module):
    """A normalization of channels that come first, as in ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 2, 3)
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x):
        h = self.a(x)
        mean = h.mean(1, keepdim=True)
        h = (h - mean) / torch.sqrt((h - mean).pow(2).mean(1, keepdim=True) + 1e-6)
        return self.b((self.weight[:, None, None] * h + self.bias[:, None, None]).relu())


class Modulated(nn.Module):
    """Scale and shift of each channel, computed or looked up for a condition, and cut apart."""

    def __init__(self, apart, condition):
        super().__init__()
        self.apart = apart
        self.conv, self.norm, self.out = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 2, 3)
        self.condition = condition()

    def forward(self, x, c):
        scale, shift = self.apart(self.condition(c))
        return self.out((self.norm(self.conv(x)) * (1 + scale) + shift).relu())


APART = {
    "view, index": lambda t: (t.view(-1, 2, 6, 1, 1)[:, 0], t.view(-1, 2, 6, 1, 1)[:, 1]),
    "view, unbind": lambda t: t.view(len(t), 2, -1)[..., None, None].unbind(1),
    "unflatten, chunk": lambda t: (h.squeeze(1)[:, :, None, None] for h in t.unflatten(1, (2, 6)).chunk(2, 1)),
    "view, split, reshape": lambda t: (h.reshape(-1, 6, 1, 1) for h in t.reshape(-1, 2, 3, 2).clone().split(1, dim=1)),
    "view, view, unbind": lambda t: t.view(-1, 4, 3).contiguous().view(-1, 2, 6, 1, 1).unbind(1),
}


TIMED = (image(), rows(5))
PAIR = (rows(4), rows(4) + 1)
CLASSES = torch.tensor([3, 0, 4])
WHOLE = {
    "bilinear": (
        *by_function(lambda self, h: self.o(self.a(h) * self.b(h)), a=linear, b=linear, o=lambda: linear(2, 6)),
        {"first": (7, ["a", "b"]), "a * b": (6, ["o"])},
    ),
    "three factors": (
        *by_function(
            lambda self, h: self.o(self.a(h) * self.b(h).tanh() * self.c(h).sigmoid()),
            **dict.fromkeys("abc", linear),
            o=lambda: linear(2, 6),
        ),
        {"first": (7, ["a", "b", "c"]), "a * b * c": (6, ["o"])},
    ),
    "two inputs": (
        *by_function(
            lambda self, h, c: self.o((self.w(h) + self.u(c)).relu()),
            (rows(4), rows(3)),
            **{"w": linear, "u": lambda: linear(6, 3), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "w + u": (6, ["o"])},
    ),
    "largest of two": (
        *by_function(
            lambda self, h: self.o(torch.maximum(self.a(h), self.b(h))), a=linear, b=linear, o=lambda: linear(2, 6)
        ),
        {"first": (7, ["a", "b"]), "a + b": (6, ["o"])},
    ),
    "an embedding is added": (
        *by_function(
            lambda self, h, c: self.o((self.w(h) + self.e(c)).relu()),
            (rows(4), CLASSES),
            **{"w": linear, "e": lambda: nn.Embedding(5, 6), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "w + e": (6, ["o"])},
    ),
    "embeddings are added to each step": (
        *by_function(
            lambda self, h, c: self.o((self.e(c) + self.f(c) + self.w(h)).tanh()),
            (rows(5, 4), CLASSES[:, None].expand(-1, 5)),
            **{"w": linear, **dict.fromkeys("ef", lambda: nn.Embedding(5, 6)), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "e + f + w": (6, ["o"])},
    ),
    "an embedding gates": (
        *by_function(
            lambda self, h, c: self.o(self.w(h) * self.e(c).sigmoid()),
            (rows(4), CLASSES),
            **{"w": linear, "e": lambda: nn.Embedding(5, 6), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "w * e": (6, ["o"])},
    ),
    "a row of a table is added": (
        *by_function(
            lambda self, h, c: self.o((self.w(h) + self.table[c]).relu()),
            (rows(4), CLASSES),
            **{"w": linear, "table": lambda: nn.Parameter(torch.randn(5, 6)), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "w + table": (6, ["o"])},
    ),
    "positions are added": (
        *by_function(
            lambda self, h: self.o((self.w(h) + self.e(torch.arange(h.shape[1]))).relu()),
            rows(5, 4),
            **{"w": linear, "e": lambda: nn.Embedding(5, 6), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["w"]), "w": (6, ["o"])},
    ),
    **{
        f"modulated, {how}": (
            lambda apart=apart: Modulated(apart, lambda: nn.Linear(3, 12)),
            (image(), rows(3)),
            {"condition[0:6] + condition[6:12] * conv": (6, ["out"])},
        )
        for how, apart in APART.items()
    },
    "modulated by a table": (
        lambda: Modulated(APART["view, unbind"], lambda: nn.Embedding(5, 12)),
        (image(), CLASSES),
        {"condition[0:6] + condition[6:12] * conv": (6, ["out"])},
    ),
    "modulated": (
        *by_function(
            lambda self, h, c: self.o((self.a(h) * self.scale(c) + self.shift(c)).relu()),
            (rows(4), rows(3)),
            **{"a": linear, "scale": lambda: linear(6, 3), "shift": lambda: linear(6, 3), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["a"]), "a * scale + shift": (6, ["o"])},
    ),
    "attention is projected, then gated": (
        *by_function(
            lambda self, h: self.o(self.p(F.scaled_dot_product_attention(h, h, h)) * self.gate(h).sigmoid()),
            rows(5, 4),
            **{"p": linear, "gate": linear, "o": lambda: linear(2, 6)},
        ),
        {"p * gate": (6, ["o"])},
    ),
    "gated sums": (
        *by_function(
            lambda self, h, c: self.o((self.f(h) + self.u(c)).tanh() * (self.g(h) + self.v(c)).sigmoid()),
            (rows(4), rows(3)),
            **{"f": linear, "g": linear, "u": lambda: linear(6, 3), "v": lambda: linear(6, 3)},
            o=lambda: linear(2, 6),
        ),
        {"first": (7, ["f", "g"]), "f + u * g + v": (6, ["o"])},
    ),
    "an adapter": (
        *by_function(
            lambda self, h: self.o((self.a(h) + self.up(self.down(h))).relu()),
            **{"a": linear, "down": lambda: linear(2), "up": lambda: linear(6, 2), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["a", "down"]), "a + up": (6, ["o"]), "down": (2, ["up"])},
    ),
    "gated, for two inputs": (
        *by_function(
            lambda self, h, x: self.o((F.glu(self.a(h)) - F.glu(self.a(self.first(x)))).abs()),
            (rows(4), rows(4) + 1),
            **{"a": lambda: linear(12), "o": lambda: linear(2, 6)},
        ),
        {"first": (7, ["a"]), "a[0:6] * a[6:12]": (6, ["o"])},
    ),
    "channels with a memory": (TimeMixing, rows(5, 4), {"key * value * receptance": (6, ["output"])}),
    "time is added": (lambda: Diffusion("added"), TIMED, {"conv1 + time": (6, ["conv2"])}),
    "time scales and shifts": (
        *(lambda: Diffusion("film"), TIMED),
        {"conv1 * time[0:6] + time[6:12]": (6, ["conv2"])},
    ),
    **{
        f"siamese, {how}": (
            *(lambda how=how: Siamese(how), PAIR),
            {"encoder.0": (6, ["encoder.3"]), "encoder.3": (5, ["head"])},
        )
        for how in ("joined", "difference", "read apart")
    },
    **{
        how: (lambda how=how: Statistics(how), rows(4), {"a": (6, ["b"])})
        for how in ("a loss", "a loss an example", "numbers", "logs")
    },
    "variational": (
        *(Autoencoder, rows(4)),
        {"inner": (6, ["mean", "spread"]), "mean + spread": (3, ["outer"]), "outer": (5, ["out"])},
    ),
    "norms": (Norms, rows(4), {f"layers.{k}": (6, [f"layers.{k + 1}"]) for k in range(5)}),
    "norms with a mean": (NormsWithMean, rows(4), {f"layers.{k}": (6, [f"layers.{k + 1}"]) for k in range(4)}),
    "norm of channels": (ChannelNorm, image(), {"a": (6, ["b"])}),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_units_are_found(name):
    make, example, groups = WHOLE[name]
    model = make()
    found = trace(model, example)
    assert {group.name: (group.size, readers(group)) for group in found} == groups
    assert_accounted(model, found)
    assert_methods_take_steps(model, example, found)
    model = make()
    model.tells = False
    if not name.startswith("norm"):  # there units see each other
        assert_whole(model, example, found)
        assert_replacing_silences(model, example, found)


def test_features_of_all_inputs_of_a_layer_count():
    model = Siamese("joined").double()
    one, other = (x.double() for x in PAIR)
    for group, layers in zip(supple.units(model, (one, other)), (model.encoder[:3], model.encoder), strict=True):
        reader = FeatureReader(model, group.feature, group.size, False, torch.abs)
        reader.look(slice(None), True)
        expected = torch.cat([layers(x).detach().abs() for x in (one, other)]).mean(0)
        reader.take()
        model(one, other)
        torch.testing.assert_close(reader.take().mean((0, 2, 3)), expected)
        reader.close()
