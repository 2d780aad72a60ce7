"""The multilayer perceptron, alone and stacked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from types import MappingProxyType

import torch
from torch import Tensor

from supple.functional.initial import Distribution
from supple.lab.nn.architecture import Architecture, Place
from supple.lab.nn.layers import ReparameterizedLayerNorm
from supple.lab.nn.stacked import StackedLayerNorm, StackedLinear, initialize
from supple.methods import Reset
from supple.structure.description import Units
from supple.structure.stacked import Stacked


def _kept(which: str, name: str) -> str:
    """The buffer that has a parameter of a head that does not learn, "old" or "start"."""
    return f"{which}.{name}".replace(".", "_")


class Block(torch.nn.Module):
    """A hidden layer; :class:`supple.lab.nn.Architecture` says what it computes."""

    def __init__(
        self, architecture: Architecture, linear: torch.nn.Module, make_norm: Callable[[], torch.nn.Module]
    ) -> None:
        super().__init__()
        self.skip, self.layer_norm = architecture.skip, architecture.layer_norm
        self.linear = linear
        if self.layer_norm:
            self.norm = make_norm()
        self.activation = architecture.kind.module()

    def forward(self, x: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Output and activations, [..., B, hidden] each, which differ by a normalization after the activation.

        ``x`` is the output of the layer before, [..., B, inputs], and ``previous`` its activations; None for the first.
        """
        z = self.linear(x)
        if self.layer_norm == "before":
            z = self.norm(z)
        if self.skip == "before" and previous is not None:
            z = z + previous
        activations = self.activation(z)
        if self.skip == "after" and previous is not None:
            activations = activations + previous
        return (self.norm(activations) if self.layer_norm == "after" else activations), activations


class Perceptron:
    """The part of a network that does not depend on whether it is stacked; mixed into a ``torch.nn.Module``."""

    architecture: Architecture
    blocks: torch.nn.ModuleList
    output: torch.nn.Module
    seed: int
    injected = False
    _form: Mapping[str, torch.nn.Module] = MappingProxyType({})

    def _build(
        self,
        make_linear: Callable[[str, int, int], torch.nn.Module],
        make_norm: Callable[[], torch.nn.Module],
        seeds: Tensor,
    ) -> None:
        """Makes the layers, a linear one from its name, inputs and outputs, and draws their values."""
        device = torch.get_default_device()
        # Layers made on the meta device draw no values of their own, so torch's random numbers are not moved on.
        with torch.device("meta"):
            *hidden, output = (make_linear(name, *sizes) for name, sizes in self.architecture.linears.items())
            blocks = torch.nn.ModuleList(Block(self.architecture, linear, make_norm) for linear in hidden)
        assert isinstance(self, torch.nn.Module)
        if self.architecture.inject is not None:
            # Not among the modules, so that hooks and names are those of what learns.
            last = {f"blocks.{len(blocks) - 1}": copy.deepcopy(blocks[-1]), "output": copy.deepcopy(output)}
            self.__dict__["_form"] = last
        self.blocks = blocks.to_empty(device=device)
        self.output = output.to_empty(device=device)
        initialize(self, self.initial_distributions(), seeds)
        for name, parameter in self._head().items():
            for which in ("old", "start"):
                self.register_buffer(_kept(which, name), torch.zeros_like(parameter))

    def _apply_layers(self, x: Tensor) -> Tensor:
        activations = None
        *before, last = self.blocks
        for block in before:
            x, activations = block(x, activations)
        given: Tensor = self.output(last(x, activations)[0])
        if not self.injected:
            return given
        # In this order the difference is exactly 0 as long as nothing was learned.
        return self._frozen("old", x, activations) + (given - self._frozen("start", x, activations))

    def enter(self, task: int, optimizer: torch.optim.Optimizer) -> None:
        """Injects plasticity if it is time, at the start of task ``architecture.inject``.

        The last hidden layer and the output, the head, are frozen, and a fresh head h learns on top of them: the
        network goes on with old(x) + (h(x) - start(x)), where ``start`` is h as it was drawn. The optimizer forgets the
        old head. See :func:`supple.surgery.inject`, which does so to any network.
        """
        assert isinstance(self, torch.nn.Module)
        inject = self.architecture.inject
        if task == inject:
            self._keep("old")
            names = [*self._head()]
            seeds = self.seeds if isinstance(self, Stacked) else torch.tensor([self.seed])
            initialize(self, self.initial_distributions(), seeds, names, time=1)
            self._keep("start")
            Reset(self, optimizer, include=names, to="same").boundary()
        self.injected = inject is not None and task >= inject

    def _head(self) -> dict[str, torch.nn.Parameter]:
        """The parameters of the last hidden layer and of the output, where plasticity is injected into them."""
        assert isinstance(self, torch.nn.Module)
        places = tuple(f"{place}." for place in self._form)
        return {name: one for name, one in self.named_parameters() if name.startswith(places)}

    @torch.no_grad()
    def _keep(self, which: str) -> None:
        for name, parameter in self._head().items():
            getattr(self, _kept(which, name)).copy_(parameter)

    def _frozen(self, which: str, x: Tensor, previous: Tensor | None) -> Tensor:
        """What a frozen head gives."""
        for place, module in self._form.items():
            values = {name: getattr(self, _kept(which, f"{place}.{name}")) for name, _ in module.named_parameters()}
            found = torch.func.functional_call(module, values, (x,) if place == "output" else (x, previous))
            x = found if place == "output" else found[0]
        return x

    def _summary(self, *more: str) -> str:
        """Sizes, activation and whatever differs from the default, on one line."""
        architecture = self.architecture
        sizes = [architecture.inputs, *[architecture.hidden] * architecture.depth, architecture.outputs]
        options = [f"activation={architecture.activation!r}"]
        for field in fields(architecture):
            value = getattr(architecture, field.name)
            if field.name in ("skip", "layer_norm", "reparameterized", "inject") and value != field.default:
                options.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(['-'.join(map(str, sizes)), *options, *more])})"

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter of the network starts from, by its name."""
        return self.architecture.initial_distributions()

    def hidden_units(self, residual: bool = False) -> Units:
        """The hidden units, a group a layer; see :meth:`Architecture.hidden_units`."""
        return self.architecture.hidden_units(residual)


class MLP(Perceptron, torch.nn.Module):
    """Multilayer perceptron, with the options of the study.

    Its values are a function of the seed alone: torch's own random numbers are neither used nor moved on. Made under
    ``torch.device("meta")`` it has no values.

    Args:
        inputs: number of inputs.
        hidden: outputs of each hidden layer.
        outputs: number of outputs.
        depth: number of hidden layers.
        activation: relu, leaky_relu, elu, tanh, sigmoid, silu, gelu, crelu or fourier.
        skip: skip connections between hidden layers "after" or "before" the activation, or None.
        layer_norm: layer normalization "after" or "before" the activation, or None.
        reparameterized: the normalization's scale is 1 + weight, so that weight decay pulls it to 1.
        inject: at the start of which task :meth:`enter` injects plasticity; None: at none.
        seed: seed of the initial values, any 64-bit integer.

    Attributes:
        architecture: the sizes and options.

    Raises:
        ValueError: if an option is out of range; see :class:`Architecture`, which also says what each layer computes.

    Example:
        >>> MLP(hidden=10, layer_norm="after", seed=7)
        MLP(784-10-10-10-10, activation='relu', layer_norm='after', seed=7)
    """

    def __init__(
        self,
        inputs: int = 784,
        hidden: int = 100,
        outputs: int = 10,
        depth: int = 3,
        *,
        activation: str = "relu",
        skip: Place | None = None,
        layer_norm: Place | None = None,
        reparameterized: bool = False,
        inject: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.architecture = Architecture(
            inputs, hidden, outputs, depth, activation, skip, layer_norm, reparameterized, inject
        )
        self.seed = seed
        norm = ReparameterizedLayerNorm if reparameterized else torch.nn.LayerNorm
        self._build(
            lambda name, fan_in, fan_out: torch.nn.Linear(fan_in, fan_out),
            lambda: norm(self.architecture.norm_width),
            torch.tensor([seed], device="cpu"),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] to [B, outputs]."""
        return self._apply_layers(x)

    def __repr__(self) -> str:
        return self._summary(f"seed={self.seed}")


class StackedMLP(Perceptron, Stacked):
    """R multilayer perceptrons in one module, replicas, ordered seed-first.

    Every parameter has the name it has in :class:`MLP` and a leading dimension R; ``p[r]`` starts bit for bit as that
    of ``MLP(..., seed=seeds[r])``, whatever else is in the stack.

    Args:
        seeds: one seed a replica, int64 [R] or integers.
        inputs: number of inputs.
        hidden: outputs of each hidden layer.
        outputs: number of outputs.
        depth: number of hidden layers.
        activation: as in :class:`MLP`.
        skip: as in :class:`MLP`.
        layer_norm: as in :class:`MLP`.
        reparameterized: as in :class:`MLP`.
        inject: as in :class:`MLP`.

    Attributes:
        architecture: the sizes and options of each replica.
        replicas: R.
        seeds: int64 [R].

    Raises:
        ValueError: if an option is out of range, or the seeds are not one row of integers.

    Example:
        >>> StackedMLP([0, 0, 1, 1], hidden=10)
        StackedMLP(784-10-10-10-10, activation='relu', replicas=4)
    """

    def __init__(
        self,
        seeds: Sequence[int] | Tensor,
        inputs: int = 784,
        hidden: int = 100,
        outputs: int = 10,
        depth: int = 3,
        *,
        activation: str = "relu",
        skip: Place | None = None,
        layer_norm: Place | None = None,
        reparameterized: bool = False,
        inject: int | None = None,
    ) -> None:
        super().__init__(seeds)
        self.architecture = Architecture(
            inputs, hidden, outputs, depth, activation, skip, layer_norm, reparameterized, inject
        )
        distributions = self.architecture.initial_distributions()
        self._build(
            lambda name, fan_in, fan_out: StackedLinear(
                fan_in, fan_out, self.replicas, distributions[f"{name}.weight"]
            ),
            lambda: StackedLayerNorm(self.architecture.norm_width, self.replicas, reparameterized=reparameterized),
            self.seeds,
        )

    @classmethod
    def from_networks(cls, networks: Sequence[MLP]) -> StackedMLP:
        """Stacks copies of networks of one architecture, on their device and of their precision.

        A ValueError says that there are none, or that their architectures differ.
        """
        if not networks:
            raise ValueError("there is no network to stack; give one or more")
        for number, network in enumerate(networks):
            _same_architecture(f"network {number}", network.architecture, "network 0", networks[0].architecture)
        with torch.device("meta"):
            stack = cls([network.seed for network in networks], **asdict(networks[0].architecture))
        states = [network.state_dict() for network in networks]
        values = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        device = next(iter(values.values())).device
        seeds = torch.tensor([network.seed for network in networks], device=device)
        stack.load_state_dict({**values, "seeds": seeds}, assign=True)
        stack.injected = networks[0].injected
        return stack

    def replica(self, i: int) -> MLP:
        """Replica i as an ordinary network with a copy of its values, on the same device and of the same precision."""
        self._check_replica(i)
        with torch.device("meta"):
            network = MLP(**asdict(self.architecture), seed=int(self.seeds[i]))
        network.load_state_dict({name: p[i].detach().clone() for name, p in self._values().items()}, assign=True)
        network.injected = self.injected
        return network.train(self.training)

    def _values(self) -> dict[str, Tensor]:
        """What each replica has a row of."""
        return {name: value for name, value in self.state_dict(keep_vars=True).items() if name != "seeds"}

    @torch.no_grad()
    def load_replica(self, i: int, network: MLP) -> None:
        """Puts the values and the seed of an ordinary network of the same architecture in the place of replica i."""
        self._check_replica(i)
        _same_architecture("the network", network.architecture, "the stack", self.architecture)
        if network.injected != self.injected:
            raise ValueError("plasticity was injected into one of the network and the stack, but not into both")
        values = network.state_dict()
        for name, rows in self._values().items():
            rows[i].copy_(values[name])
        self.seeds[i] = network.seed

    def forward(self, x: Tensor) -> Tensor:
        """Applies each network, to [R, B, outputs].

        Args:
            x: [B, inputs], read by all replicas; or [S, B, inputs], where S divides R and replicas s * C to
                s * C + C - 1, with C = R / S, read batch s (S = R: each its own).
        """
        batches = len(x) if x.ndim == 3 else 1
        if x.ndim not in (2, 3) or x.shape[-1] != self.architecture.inputs or not batches or self.replicas % batches:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; it has to be [B, {self.architecture.inputs}] or "
                f"[S, B, {self.architecture.inputs}], where S divides the {self.replicas} replicas"
            )
        return self._apply_layers(x if x.ndim == 3 else x.unsqueeze(0))

    def _check_replica(self, i: int) -> None:
        if not 0 <= i < self.replicas:
            raise IndexError(f"there is no replica {i}; the stack has replicas 0 to {self.replicas - 1}")

    def __repr__(self) -> str:
        return self._summary(f"replicas={self.replicas}")


def _same_architecture(name: str, one: Architecture, other_name: str, other: Architecture) -> None:
    for field in fields(Architecture):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if here != there:
            raise ValueError(f"{name} has {field.name} {here!r}, {other_name} {there!r}; they have to be alike")
