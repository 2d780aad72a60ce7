"""The methods as the paper states them, in plain Python: loops, lists and numpy, one weight or unit at a time.

Nothing here uses the package's own utility, selection, schedule or bookkeeping. The one thing taken from it is the
random numbers (:mod:`supple.functional.random`, :mod:`supple.functional.initial`), which have tests of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from supple.functional import initial, random


def mean(values):
    return math.fsum(values) / len(values)


# Weights.


def weight_utilities(kind, weights, gradients):
    """A list of utilities from lists of weights and gradients."""
    if kind == "gradient":
        return [abs(w * g) for w, g in zip(weights, gradients, strict=True)]
    assert kind == "magnitude"
    return [abs(w) for w in weights]


def below_threshold(utilities, factor):
    """Places whose utility is at most ``factor`` times the mean; none where the factor is 0."""
    if factor == 0:
        return []
    bound = factor * mean(utilities)
    return [place for place, utility in enumerate(utilities) if utility <= bound]


def lowest(utilities, count, words):
    """Places of the ``count`` lowest utilities; of equal ones those that come first in the order of random words."""
    shuffled = sorted(range(len(utilities)), key=lambda place: words[place])
    return sorted(shuffled, key=lambda place: utilities[place])[:count]


def share_of(size, factor, uniform):
    """floor(factor * size), plus one where the uniform number falls below what is left."""
    whole = math.floor(factor * size)
    return whole + (uniform < factor * size - whole)


# Units.


def unit_utility(kind, features, outgoing, gradients):
    """Utility of one unit.

    Args:
        kind: the utility.
        features: all its outputs, over examples and positions.
        outgoing: all weights that leave it.
        gradients: their gradients.
    """
    if kind == "activation":
        return mean([abs(h) for h in features])
    if kind == "magnitude":
        return mean([abs(w) for w in outgoing])
    if kind == "contribution":
        return mean([abs(h) for h in features]) * mean([abs(w) for w in outgoing])
    assert kind == "gradient"
    return abs(math.fsum(w * g for w, g in zip(outgoing, gradients, strict=True)))


def same(unit):
    """Where a unit lies, if one entry is one unit."""
    return [unit]


@dataclass
class Layer:
    """One hidden layer, described by hand.

    Args:
        name: the module that makes the units.
        size: number of units.
        module: where features are read.
        where: "input" or "output" of that module.
        dim: which dimension of the features counts units.
        read: entries of that dimension that are one unit's.
        readers: weight -> which of its columns are one unit's.
        resets: parameter or buffer -> (its entries that are one unit's, the value that they get).
        incoming: parameters whose row of a unit is drawn again.
    """

    name: str
    size: int
    module: str
    where: str
    readers: dict[str, Callable[[int], list[int]]]
    dim: int = -1
    read: Callable[[int], list[int]] = same
    resets: dict[str, tuple[Callable[[int], list[int]], float]] = field(default_factory=dict)
    incoming: tuple[str, ...] = ()

    def __post_init__(self):
        self.incoming = self.incoming or (f"{self.name}.weight",)
        self.resets = {f"{self.name}.bias": (same, 0.0), **self.resets}


class Recorder:
    """Keeps the features of the training step's forward passes."""

    def __init__(self, model, layers):
        self.features = {}
        for layer in layers:
            module = model.get_submodule(layer.module)

            def keep(module, inputs, output, layer=layer):
                if module.training and torch.is_grad_enabled():
                    value = inputs[0] if layer.where == "input" else output
                    self.features.setdefault(layer.name, []).append(value.detach().double().numpy())

            module.register_forward_hook(keep)

    def take(self):
        taken, self.features = self.features, {}
        return taken


def layer_utilities(kind, layer, features, parameters, gradients):
    """Utilities of all units of a layer, one by one.

    Args:
        kind: the utility.
        layer: the layer.
        features: arrays, one a forward pass; the first dimension counts examples.
        parameters: arrays by name.
        gradients: arrays by name.
    """
    found = []
    for unit in range(layer.size):
        values = [
            value
            for passed in (features if kind in ("activation", "contribution") else ())
            for value in np.take(passed, layer.read(unit), axis=layer.dim).ravel().tolist()
        ]
        columns = {name: read(unit) for name, read in layer.readers.items()}
        outgoing = [w for name, at in columns.items() for w in parameters[name][:, at].ravel().tolist()]
        theirs = [g for name, at in columns.items() for g in gradients[name][:, at].ravel().tolist()]
        found.append(unit_utility(kind, values, outgoing, theirs))
    return found


class Ages:
    """Continual backpropagation's account of one layer: an age a unit, and an accumulator."""

    def __init__(self, size, maturity, rate):
        self.age = [0] * size
        self.maturity, self.rate = maturity, rate
        self.accumulator = 0.0

    def count(self):
        """How many to replace, and which are old enough; one step."""
        self.age = [age + 1 for age in self.age]
        eligible = [unit for unit, age in enumerate(self.age) if age > self.maturity]
        self.accumulator += self.rate * len(eligible)
        count = math.floor(self.accumulator)
        self.accumulator -= count
        return count, eligible

    def choose(self, utilities, words):
        """The units to replace in this step."""
        count, eligible = self.count()
        order = lowest(utilities, len(utilities), words)
        chosen = [unit for unit in order if unit in eligible][:count]
        for unit in chosen:
            self.age[unit] = 0
        return chosen


class Averages:
    """A moving average with bias correction, from the whole history of each unit."""

    def __init__(self, size, decay):
        self.history = [[] for _ in range(size)]
        self.decay = decay

    def add(self, utilities):
        averaged = []
        for history, utility in zip(self.history, utilities, strict=True):
            history.insert(0, utility)
            terms = [(1 - self.decay) * self.decay**i * past for i, past in enumerate(history)]
            averaged.append(math.fsum(terms) / (1 - self.decay ** len(history)))
        return averaged

    def forget(self, unit):
        self.history[unit] = []


def arrays(model):
    """Copies of all parameters and buffers by name."""
    return {name: value.detach().double().numpy().copy() for name, value in model.state_dict().items()}


def gradients(model):
    return {name: p.grad.double().numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


def tie_words(method, name, step, count, seed=0):
    """The random words that decide among equal utilities of a parameter, or of a layer of units."""
    return random.words(torch.tensor([seed]), random.purpose(method, "ties", name), step, count)[0].tolist()


def replaced(values, layer, unit, method, distributions, step, seed=0):
    """Puts a replaced unit's new values into a dict of arrays."""
    for name in layer.incoming:
        where = random.purpose(method, "incoming", name)
        shape = torch.Size(values[name].shape)
        drawn = initial.sample(distributions[name], torch.tensor([seed]), where, step, shape)[0]
        values[name][unit] = drawn.double().numpy()[unit]
    for name, (read, value) in layer.resets.items():
        if name in values:
            values[name][read(unit)] = value
    for name, read in layer.readers.items():
        values[name][:, read(unit)] = 0.0
