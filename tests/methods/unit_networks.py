"""Networks for the unit methods, each with its hidden layers described by hand for the reference."""

from dataclasses import dataclass

import torch
from reference import Layer
from torch import nn

import supple
from supple import Consumer, Feature, Slice, UnitGroup
from supple.lab.nn import MLP


@dataclass
class Case:
    """A network, its layers, and how a method is told of them."""

    model: nn.Module
    layers: list[Layer]
    shape: tuple[int, ...]
    arguments: dict


def block(width):
    """Entries that belong to a unit where each has ``width`` neighbours."""
    return lambda unit: list(range(unit * width, (unit + 1) * width))


def twins(size):
    """Entries that belong to a unit and to its negated twin."""
    return lambda unit: [unit, unit + size]


def one(unit):
    return [unit]


def sequential():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    layers = [Layer("0", 8, "2", "input", {"2.weight": one}), Layer("2", 5, "4", "input", {"4.weight": one})]
    return Case(model, layers, (6,), {})


def convolutional():
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    resets = {"1.weight": (one, 1.0), "1.bias": (one, 0.0), "1.running_mean": (one, 0.0), "1.running_var": (one, 1.0)}
    layers = [
        Layer("0", 6, "4", "input", {"4.weight": one}, dim=1, resets=resets),
        Layer("4", 4, "7", "input", {"7.weight": block(4)}, read=block(4)),
    ]
    return Case(model, layers, (2, 8, 8), {})


def norm_after(features):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 3))
    place = {"before_norm": ("1", "output"), "after_norm": ("2", "output")}[features]
    resets = {"2.weight": (one, 1.0), "2.bias": (one, 0.0)}
    return Case(model, [Layer("0", 8, *place, {"3.weight": one}, resets=resets)], (6,), {"features": features})


def norm_before():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    resets = {"1.weight": (one, 1.0), "1.bias": (one, 0.0)}
    return Case(model, [Layer("0", 8, "2", "output", {"3.weight": one}, resets=resets)], (6,), {})


def perceptron(**options):
    model = MLP(6, 8, 3, 3, seed=4, **options)
    copies = 2 if options.get("activation") == "crelu" else 1
    size = 8 // copies
    read = twins(size) if copies == 2 else one
    layers = []
    for k, reader in enumerate(["blocks.1.linear", "blocks.2.linear", "output"]):
        resets, where = {}, (f"blocks.{k}.activation", "output")
        if options.get("skip") == "after" and k:
            where = (reader, "input")
        if options.get("layer_norm"):
            entries = one if options["layer_norm"] == "before" else read
            start = 0.0 if options.get("reparameterized") else 1.0
            resets = {f"blocks.{k}.norm.weight": (entries, start), f"blocks.{k}.norm.bias": (entries, 0.0)}
            if options.get("skip") == "after" and options["layer_norm"] == "after" and k:
                where = (f"blocks.{k}.norm", "input")
        layers.append(Layer(f"blocks.{k}.linear", size, *where, {f"{reader}.weight": read}, read=read, resets=resets))
    arguments = {"units": model.hidden_units(residual=True)} if options.get("skip") else {}
    return Case(model, layers, (6,), arguments)


class TwoReaders(nn.Module):
    """Five units that two layers read, one of them beside an input of its own."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 5)
        self.act = nn.Sigmoid()
        self.one = nn.Linear(5, 2)
        self.two = nn.Linear(6 + 5, 3)

    def forward(self, x):
        features = self.act(self.body(x))
        return torch.cat([self.one(features), self.two(torch.cat([x, features], dim=1))], dim=1)


def two_readers():
    group = UnitGroup(
        name="body",
        size=5,
        feature=Feature("act", "output", Slice("", dim=-1)),
        incoming=(Slice("body.weight"),),
        bias=(Slice("body.bias"),),
        consumers=(
            Consumer(Slice("one.weight", dim=1), "one.bias"),
            Consumer(Slice("two.weight", dim=1, start=6), "two.bias"),
        ),
    )
    readers = {"one.weight": one, "two.weight": lambda unit: [6 + unit]}
    return Case(TwoReaders(), [Layer("body", 5, "act", "output", readers)], (6,), {"units": supple.Units([group])})


CASES = {
    "sequential": sequential,
    "convolutional": convolutional,
    "norm after, read before": lambda: norm_after("before_norm"),
    "norm after, read after": lambda: norm_after("after_norm"),
    "norm before": norm_before,
    "mlp": perceptron,
    "mlp crelu": lambda: perceptron(activation="crelu"),
    "mlp crelu, norm after": lambda: perceptron(activation="crelu", layer_norm="after"),
    "mlp crelu, norm before": lambda: perceptron(activation="crelu", layer_norm="before"),
    "mlp norm after": lambda: perceptron(layer_norm="after"),
    "mlp norm before, reparameterized": lambda: perceptron(layer_norm="before", reparameterized=True),
    "mlp skip after": lambda: perceptron(skip="after"),
    "mlp skip before, norm after": lambda: perceptron(skip="before", layer_norm="after"),
    "mlp skip after, norm after": lambda: perceptron(skip="after", layer_norm="after"),
    "two readers": two_readers,
}


def make(name):
    """A case in double precision, the same each time."""
    torch.manual_seed(3)
    case = CASES[name]()
    case.model.double()
    return case


def batch(case, step, size=7):
    """Inputs and labels of a step, the same each time."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(size, *case.shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (size,), generator=generator)
