"""Networks that are a function of some modules and inputs, behind a layer of hidden units."""

from __future__ import annotations

import torch
from torch import nn
from traced_models import rows


class Model(nn.Module):
    """A function of modules and of inputs, the first of them behind a layer of hidden units."""

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


def by_function(function, example=None, **modules):
    def make():
        torch.manual_seed(0)
        return Model(function, **{name: make() for name, make in modules.items()})

    return make, rows(4) if example is None else example
