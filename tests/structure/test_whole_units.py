"""That a unit is whole: what its own weights make is all there is in it, so that nothing else is cut off with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced_checks import assert_methods_take_steps, assert_replacing_silences, features, readers
from traced_models import image, rows

from supple.structure.tracing import trace

FOREIGN = "features that their own weights do not make"
COMPUTED = "features that are computed from them"
RESIDUAL = "as a residual stream does"
GROUPED = "grouped convolution"


class Model(nn.Module):
    """A function of modules and inputs, behind a layer of hidden units."""

    def __init__(self, function, **modules):
        super().__init__()
        self.first = nn.Linear(4, 7)
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = function

    def forward(self, x, *others):
        return self.function(self, self.first(x).relu(), *others)


def linear(outputs=6, inputs=7):
    return nn.Linear(inputs, outputs)


@torch.no_grad()
def assert_whole(model, example, found):
    """Without incoming weights, whatever the biases, nothing of the input is left in a unit."""
    model.double().eval()
    example = tuple(x.double() for x in example) if isinstance(example, tuple) else example.double()
    for group in found:
        start = {name: value.clone() for name, value in model.state_dict().items()}
        unit = group.size - 1
        for part in group.incoming:
            part.view(model.get_parameter(part.tensor), group.size)[unit] = 0
        for part in group.bias:
            view = part.view(model.get_parameter(part.tensor), group.size)
            view[unit] = torch.rand(view.shape[1:], dtype=view.dtype) + 0.5
        feature = features(model, group, example)[unit]
        spread = float(feature.amax() - feature.amin())
        assert spread < 1e-9, f"{group.name} holds features that its own weights do not make: {spread}"
        model.load_state_dict(start)


class Depthwise(nn.Module):
    """A depthwise convolution, times what squeeze and excitation makes of it, as in MobileNetV3 and RegNetY."""

    def __init__(self, expand=False):
        super().__init__()
        self.expand = nn.Conv2d(2, 6, 1) if expand else None
        width = 6 if expand else 2
        self.dw = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.squeeze, self.excite = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)
        self.project, self.head = nn.Conv2d(width, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        h = F.hardswish(self.norm(self.dw(x if self.expand is None else self.expand(x).relu())))
        gate = F.hardsigmoid(self.excite(self.squeeze(h.mean((2, 3), keepdim=True)).relu()))
        return self.head(self.project(h * gate).relu().mean((2, 3)))


class Ghost(nn.Module):
    """Half of the channels are computed from the other half, each from one, as in GhostNet."""

    def __init__(self):
        super().__init__()
        self.primary, self.cheap = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.project, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        h = self.primary(x).relu()
        h = torch.cat([h, self.cheap(h).relu()], 1)
        return self.head(self.project(h).relu().mean((2, 3)))


class Cell(nn.Module):
    """A gated recurrent unit by hand, whose state is an input."""

    def __init__(self):
        super().__init__()
        self.z, self.r, self.n = (nn.Linear(10, 6) for _ in range(3))
        self.o = nn.Linear(6, 3)

    def forward(self, x, h):
        both = torch.cat([x, h], -1)
        z, r = self.z(both).sigmoid(), self.r(both).sigmoid()
        n = self.n(torch.cat([x, r * h], -1)).tanh()
        h = (1 - z) * h + z * n
        return self.o(h), h


class TokenMixing(nn.Module):
    """The receptance of RWKV gates what the sequence is summed to."""

    def __init__(self):
        super().__init__()
        self.key, self.value, self.receptance, self.output = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        k, v, r = self.key(x).exp(), self.value(x), self.receptance(x).sigmoid()
        return self.output(r * ((k * v).cumsum(1) / k.cumsum(1)))


class ChannelMixing(nn.Module):
    """The receptance of RWKV gates what a perceptron puts out."""

    def __init__(self):
        super().__init__()
        self.key, self.value, self.receptance = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        x = x + self.receptance(x).sigmoid() * self.value(self.key(x).relu().square())
        return self.head(self.norm(x))


def by_function(function, example=None, **modules):
    def make():
        torch.manual_seed(0)
        return Model(function, **{name: make() for name, make in modules.items()})

    return make, rows(4) if example is None else example


LEFT_OUT = {
    "squeeze and excite": (Depthwise, image(), {"squeeze": 3, "project": 4}, {"dw": GROUPED, "excite": FOREIGN}),
    "behind an expansion": (
        *(lambda: Depthwise(expand=True), image(), {"squeeze": 3, "project": 4}),
        {"expand": GROUPED, "dw": GROUPED, "excite": FOREIGN},
    ),
    "ghost": (Ghost, image(), {"project": 4}, {"primary": GROUPED, "cheap": GROUPED}),
    "state as an input": (Cell, (rows(4), rows(6)), {}, {"z": FOREIGN, "r": FOREIGN, "n": RESIDUAL}),
    "rwkv": (ChannelMixing, rows(5, 4), {"key": 6}, {"value": RESIDUAL, "receptance": RESIDUAL}),
    "gate on attention": (
        *by_function(
            lambda self, h: self.o(
                F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h)) * self.gate(h).sigmoid()
            ),
            rows(5, 4),
            **dict.fromkeys(("q", "k", "v", "gate"), linear),
            o=lambda: linear(2, 6),
        ),
        {"first": 7},
        {**dict.fromkeys("qkv", "attention"), "gate": FOREIGN},
    ),
    "gate on a residual stream": (
        *by_function(
            lambda self, h: self.o((h + self.inner(h).tanh()) * self.gate(h).sigmoid()),
            **{name: lambda: linear(7) for name in ("inner", "gate")},
            o=linear,
        ),
        {},
        {"first": RESIDUAL, "inner": RESIDUAL, "gate": FOREIGN},
    ),
    "gate on a recurrent state": (
        *by_function(
            lambda self, h: self.o(self.lstm(h)[0] * self.gate(h).sigmoid()),
            rows(5, 4),
            lstm=lambda: nn.LSTM(7, 6, batch_first=True),
            gate=linear,
            o=lambda: linear(2, 6),
        ),
        {},
        {"first": "recurrent layer (lstm)", "lstm": "recurrent layer (lstm)", "gate": FOREIGN},
    ),
    "gate on the input": (
        *by_function(
            lambda self, h, x: self.o(x * self.gate(h).sigmoid()),
            (rows(4), rows(6)),
            gate=linear,
            o=lambda: linear(2, 6),
        ),
        {"first": 7},
        {"gate": FOREIGN},
    ),
    "mask of the input": (
        *by_function(
            lambda self, h, x: self.o(self.a(h).masked_fill(x > 0, 0.0)),
            (rows(4), rows(6)),
            a=linear,
            o=lambda: linear(2, 6),
        ),
        {"first": 7},
        {"a": FOREIGN},
    ),
    "an input added": (
        *by_function(
            lambda self, h, x: self.o((self.a(h) + x).relu()), (rows(4), rows(6)), a=linear, o=lambda: linear(2, 6)
        ),
        {"first": 7},
        {"a": FOREIGN},
    ),
    "scale and shift that are inputs": (
        *by_function(
            lambda self, h, scale, shift: self.o((self.a(h) * scale + shift).relu()),
            (rows(4), rows(6), rows(6)),
            a=linear,
            o=lambda: linear(2, 6),
        ),
        {"first": 7},
        {"a": FOREIGN},
    ),
    "half of a product": (
        *by_function(
            lambda self, h: self.o((self.a(h) * self.b(h)).chunk(2, -1)[0]),
            **dict.fromkeys("ab", linear),
            o=lambda: linear(2, 3),
        ),
        {"first": 7, "a[0:3] * b[0:3]": 3},
        {"a[3:6]": "no Linear or Conv reads them", "b[3:6]": "no Linear or Conv reads them"},
    ),
}


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


TIMED = (image(), rows(5))
PAIR = (rows(4), rows(4) + 1)
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
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_half_units_are_left_out(name):
    make, example, groups, excluded = LEFT_OUT[name]
    model = make()
    found = trace(model, example)
    assert {group.name: group.size for group in found} == groups
    reasons = {item.name: item.reason for item in found.excluded}
    assert set(reasons) >= set(excluded)
    for layer, reason in excluded.items():
        assert reason in reasons[layer], layer
    assert_whole(model, example, found)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_units_are_found(name):
    make, example, groups = WHOLE[name]
    model = make()
    found = trace(model, example)
    assert {group.name: (group.size, readers(group)) for group in found} == groups
    assert_methods_take_steps(model, example, found)
    model = make()
    model.tells = False
    if name != "norms":  # there units see each other
        assert_whole(model, example, found)
        assert_replacing_silences(model, example, found)
