"""The multilayer perceptron's architecture: its sizes and options, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from supple.functional.initial import Constant, Distribution
from supple.lab.nn.layers import ACTIVATIONS, Activation
from supple.structure.description import Consumer, Excluded, Feature, Norm, Slice, UnitGroup, Units

Place = Literal["after", "before"]
"""Where something stands: after or before the activation."""


@dataclass(frozen=True)
class Architecture:
    """Sizes and options of a multilayer perceptron.

    Hidden layer k maps x, the previous layer's output, to z = linear(x), then z = norm(z) with ``layer_norm="before"``,
    then z = z + previous with ``skip="before"``; a = activation(z), then a = a + previous with ``skip="after"``; and
    gives norm(a) with ``layer_norm="after"``, else a. ``previous`` is the a of the layer before; the first has none.

    Args:
        inputs: number of inputs.
        hidden: outputs of each hidden layer; with activation "crelu" half as many units and their negated twins, with
            "fourier" half as many, the sine of each and then the cosine.
        outputs: number of outputs.
        depth: number of hidden layers.
        activation: one of :data:`supple.lab.nn.ACTIVATIONS`.
        skip: skip connections between hidden layers, added after or before the activation; None: none.
        layer_norm: layer normalization (eps 1e-5) after or before the activation; None: none.
        reparameterized: the normalization's scale is 1 + weight.
        inject: at the start of which task, counted from 0, plasticity is injected; None: at none.

    Raises:
        ValueError: if a size is not positive, an option is unknown, or two options exclude each other.

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212.
    """

    inputs: int = 784
    hidden: int = 100
    outputs: int = 10
    depth: int = 3
    activation: str = "relu"
    skip: Place | None = None
    layer_norm: Place | None = None
    reparameterized: bool = False
    inject: int | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "hidden", "outputs", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be 1 or more")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; it has to be one of {', '.join(ACTIVATIONS)}")
        for name in ("skip", "layer_norm"):
            if getattr(self, name) not in (None, "after", "before"):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it has to be None, 'after' or 'before'")
        if self.hidden % self.kind.copies:
            raise ValueError(f"hidden is {self.hidden}; with activation {self.activation!r} it has to be even")
        if self.skip == "before" and self.kind.copies > 1:
            raise ValueError(
                f"skip is 'before', but preactivations of activation {self.activation!r} are half as wide as the layer "
                "before; use skip='after' or skip=None"
            )
        if self.skip and self.depth == 1:
            raise ValueError(f"skip is {self.skip!r}, but there is one hidden layer; use depth 2 or more, or skip=None")
        if self.reparameterized and not self.layer_norm:
            raise ValueError(
                "reparameterized=True says how a layer norm stores its scale; set layer_norm too, or leave it out"
            )

        if self.inject is not None and self.inject < 1:
            raise ValueError(f"inject is {self.inject}; it has to be 1 or more, since in the first task all is fresh")

    @property
    def kind(self) -> Activation:
        """The activation and what goes with it."""
        return ACTIVATIONS[self.activation]

    @property
    def units(self) -> int:
        """Units of each hidden layer."""
        return self.hidden // self.kind.copies

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name and sizes (inputs, outputs) of each linear layer, in order."""
        hidden = {f"blocks.{k}.linear": (self.hidden if k else self.inputs, self.units) for k in range(self.depth)}
        return {**hidden, "output": (self.hidden, self.outputs)}

    @property
    def norm_width(self) -> int:
        """Width that layer normalization acts on."""
        return self.units if self.layer_norm == "before" else self.hidden

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        norms = 2 * self.norm_width * self.depth if self.layer_norm else 0
        first, others = (self.inputs + 1) * self.units, (self.depth - 1) * (self.hidden + 1) * self.units
        return first + others + (self.hidden + 1) * self.outputs + norms

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the matrix products of a training step, for each example.

        Every layer has three products: forward, gradient of the weights, and gradient of the input, which the first
        layer does not need. Everything else (activations, loss, biases, optimizer, methods) is left out.
        """
        products = [fan_in * fan_out for fan_in, fan_out in self.linears.values()]
        return 3 * sum(products) - products[0]

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter of the network starts from, by its name."""
        found: dict[str, Distribution] = {}
        for name, sizes in self.linears.items():
            found[f"{name}.weight"] = self.kind.weights(*sizes)
            found[f"{name}.bias"] = Constant(0.0)
        if self.layer_norm:
            for k in range(self.depth):
                found[f"blocks.{k}.norm.weight"] = Constant(0.0 if self.reparameterized else 1.0)
                found[f"blocks.{k}.norm.bias"] = Constant(0.0)
        return found

    def hidden_units(self, residual: bool = False) -> Units:
        """The hidden units, a group a layer; layers left out are in its ``excluded``.

        With ``residual`` the layers are included whose features also flow past the next layer through a skip
        connection; zeroing the weights that leave such a unit does not silence it.
        """
        layers = list(self.linears)
        groups, excluded = [], []
        for k, (layer, reader) in enumerate(pairwise(layers)):
            if self.skip and reader != "output" and not residual:
                reason = f"its features also flow past {reader} through the skip connection; residual=True includes it"
                excluded.append(Excluded(layer, reason))
            else:
                groups.append(self._group(k, layer, reader))
        return Units(groups, excluded)

    def _group(self, k: int, layer: str, reader: str) -> UnitGroup:
        copies, norm = self.kind.copies, f"blocks.{k}.norm"
        layout = Slice("", dim=-1, copies=copies)
        if self.skip == "after" and k:
            feature = Feature(norm if self.layer_norm == "after" else reader, "input", layout)
        else:
            feature = Feature(f"blocks.{k}.activation", "output", layout)
        norm_copies = self.norm_width // self.units
        return UnitGroup(
            name=layer,
            size=self.units,
            feature=feature,
            incoming=(Slice(f"{layer}.weight"),),
            bias=(Slice(f"{layer}.bias"),),
            consumers=(Consumer(Slice(f"{reader}.weight", dim=1, copies=copies), f"{reader}.bias"),),
            norms=(
                (Norm(Slice(f"{norm}.weight", copies=norm_copies), Slice(f"{norm}.bias", copies=norm_copies)),)
                if self.layer_norm
                else ()
            ),
            feature_after_norm=Feature(norm, "output", layout) if self.layer_norm == "after" else None,
        )
