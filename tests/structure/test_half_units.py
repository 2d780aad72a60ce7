"""That half a unit is left out: one with features that its own weights do not make, which would be cut off with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from traced_checks import assert_accounted, assert_whole
from traced_functions import by_function, linear
from traced_models import image, rows

from supple.structure.tracing import trace

FOREIGN = "features that their own weights do not make"
RESIDUAL = "as a residual stream or a recurrence does"
GROUPED = "grouped convolution"


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


class LongCell(nn.Module):
    """One step of a long short-term memory by hand, whose state and memory are inputs."""

    def __init__(self):
        super().__init__()
        self.gates, self.o = nn.Linear(10, 24), nn.Linear(6, 2)

    def forward(self, x, h, c):
        i, f, g, o = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return self.o(h), h, c


class Adaptive(nn.Module):
    """A condition scales, shifts and gates a residual stream, as in a diffusion transformer."""

    def __init__(self):
        super().__init__()
        self.ada, self.inner, self.outer, self.head = (
            nn.Linear(3, 12),
            nn.Linear(4, 8),
            nn.Linear(8, 4),
            nn.Linear(4, 2),
        )

    def forward(self, x, c):
        scale, shift, gate = self.ada(F.silu(c)).chunk(3, -1)
        h = F.layer_norm(x, (4,)) * (1 + scale) + shift
        return self.head(x + gate * self.outer(F.gelu(self.inner(h))))


class Fourier(nn.Module):
    """Layers of a Fourier neural operator, which transform what they read as a whole and position by position."""

    def __init__(self):
        super().__init__()
        self.inlet, self.outlet = nn.Linear(4, 6), nn.Linear(6, 2)
        self.own = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.spectral = nn.ParameterList(torch.randn(6, 6, 3, dtype=torch.cfloat) for _ in range(2))

    def forward(self, x):
        h = self.inlet(x)
        for own, spectral in zip(self.own, self.spectral, strict=True):
            modes = torch.einsum("bki,iok->bko", torch.fft.rfft(h.float(), dim=1), spectral.to(torch.cfloat))
            h = F.gelu(own(h) + torch.fft.irfft(modes, n=h.shape[1], dim=1).to(h.dtype))
        return self.outlet(h)


class Spline(nn.Module):
    """Layers of a Kolmogorov-Arnold network, with what is learned of each of its functions scaled."""

    def __init__(self):
        super().__init__()
        self.base = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 6)])
        self.spline = nn.ParameterList([torch.randn(6, 4, 3), torch.randn(6, 6, 3)])
        self.scaler = nn.ParameterList([torch.ones(6, 4), torch.ones(6, 6)])
        self.outlet = nn.Linear(6, 2)

    def forward(self, x):
        for base, spline, scaler in zip(self.base, self.spline, self.scaler, strict=True):
            basis = (-(x.unsqueeze(-1) - torch.linspace(-1, 1, 3).to(x)).square()).exp()
            x = base(F.silu(x)) + F.linear(basis.flatten(1), (spline * scaler.unsqueeze(-1)).flatten(1))
        return self.outlet(x)


class ChannelMixing(nn.Module):
    """The receptance of RWKV gates what a perceptron puts out."""

    def __init__(self):
        super().__init__()
        self.key, self.value, self.receptance = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x):
        x = x + self.receptance(x).sigmoid() * self.value(self.key(x).relu().square())
        return self.head(self.norm(x))


CLASSES = torch.tensor([3, 0, 4])
LEFT_OUT = {
    "an embedding whose padding has to stay 0": (
        *by_function(
            lambda self, h, c: self.o((self.w(h) + self.e(c)).relu()),
            (rows(4), CLASSES),
            **{"w": linear, "e": lambda: nn.Embedding(5, 6, padding_idx=0), "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"w": FOREIGN, "e": "looks its entries up"},
    ),
    "an embedding alone": (
        *by_function(
            lambda self, h, c: self.o(torch.cat([h, self.e(c).relu()], -1)),
            (rows(4), CLASSES),
            **{"e": lambda: nn.Embedding(5, 6), "o": lambda: linear(2, 13)},
        ),
        {"first": 7},
        {"e": "looks its entries up"},
    ),
    "an embedding that is read by its own table": (
        *by_function(
            lambda self, h, c: F.linear((self.w(h) + self.e(c)).relu(), self.e.weight),
            (rows(4), CLASSES),
            **{"w": linear, "e": lambda: nn.Embedding(5, 6)},
        ),
        {"first": 7},
        {"w": "used 2 times", "e": "used 2 times"},
    ),
    "an embedding added to an input": (
        *by_function(
            lambda self, h, x, c: self.o((x + self.e(c)).relu()) + self.p(h),
            (rows(4), rows(6), CLASSES),
            **{"e": lambda: nn.Embedding(5, 6), "o": lambda: linear(2, 6), "p": lambda: linear(2)},
        ),
        {"first": 7},
        {"e": "looks its entries up"},
    ),
    "codes of a codebook": (
        *by_function(
            lambda self, h: (lambda a: self.o(a - self.e(a.argmax(-1))))(self.a(h)),
            **{"a": linear, "e": lambda: nn.Embedding(6, 6), "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"a": "chooses positions by their values", "e": "looks its entries up"},
    ),
    "scale and shift side by side": (
        *by_function(
            lambda self, h, c: (lambda t: self.o((self.a(h) * t[..., 0] + t[..., 1]).relu()))(self.t(c).view(-1, 6, 2)),
            (rows(4), rows(3)),
            **{"a": linear, "t": lambda: linear(12, 3), "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"a": FOREIGN, "t": "spreads them over several dimensions"},
    ),
    "one of two halves is written over": (
        *by_function(
            lambda self, h, x: (lambda t: self.o(t.mul_(x[:, None])[:, 0]))(self.t(h).view(-1, 2, 6)),
            (rows(4), rows(6)),
            **{"t": lambda: linear(12), "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"t": "spreads them over several dimensions"},
    ),
    **{
        how: (
            *by_function(function, **dict.fromkeys("ab", linear), o=lambda: linear(2, 6)),
            {"first": 7},
            {"a": reason, "b": "mean in the model may mix them"},
        )
        for how, reason, function in (
            (
                "the mean of others is subtracted",
                FOREIGN,
                lambda self, h: self.o((self.a(h) - self.b(h).mean(-1, keepdim=True)).relu()),
            ),
            (
                "the mean of all is subtracted",
                "mean in the model may mix them",
                lambda self, h: (lambda a, b: self.o((a - torch.cat([a, b], -1).mean(-1, keepdim=True)).relu()))(
                    self.a(h), self.b(h)
                ),
            ),
        )
    },
    "the largest is subtracted": (
        *by_function(
            lambda self, h: (lambda a: self.o((a - a.amax(-1, keepdim=True)).relu()))(self.a(h)),
            **{"a": linear, "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"a": "amax in the model may mix them"},
    ),
    "a mean is used": (
        *by_function(
            lambda self, h: (lambda a: self.o((a - a.mean(-1, keepdim=True)).relu()) * a.mean(-1, keepdim=True))(
                self.a(h)
            ),
            **{"a": linear, "o": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"a": "mean in the model may mix them"},
    ),
    "fourier": (Fourier, rows(5, 4), {}, {"inlet": "may mix them", "own.0": FOREIGN, "own.1": FOREIGN}),
    "splines": (Spline, rows(4), {}, {"base.0": FOREIGN, "base.1": FOREIGN}),
    "attention and a layer side by side": (
        *by_function(
            lambda self, h: self.o(F.scaled_dot_product_attention(h, h, h) + self.a(h)),
            rows(5, 4),
            **{"a": lambda: linear(7), "o": linear},
        ),
        {},
        {"first": "attention", "a": FOREIGN},
    ),
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
    "cell of a long short-term memory": (
        *(LongCell, (rows(4), rows(6), rows(6)), {}),
        {"gates[6:12]": FOREIGN, "gates[18:24]": FOREIGN, "gates[0:6]": FOREIGN, "gates[12:18]": FOREIGN},
    ),
    "adaptive norms": (
        *(Adaptive, (rows(4), rows(3)), {"inner": 8}),
        {"ada[0:4]": FOREIGN, "ada[4:8]": FOREIGN, "ada[8:12]": RESIDUAL, "outer": RESIDUAL},
    ),
    "a statistic that is used": (
        *by_function(
            lambda self, h: (lambda a: self.o(h) * a.norm(dim=-1, keepdim=True) + self.p(a))(self.a(h)),
            **{"a": linear, "o": lambda: linear(2), "p": lambda: linear(2, 6)},
        ),
        {"first": 7},
        {"a": "linalg_vector_norm in the model may mix them"},
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
    assert_accounted(model, found)
    assert_whole(model, example, found)
