"""One change of a network's layers: prepared, carried out, told to the optimizer, and taken back where it fails."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.functional.initial import Distribution, Fixed, sample
from supple.functional.sharding import is_sharded
from supple.methods.arguments import is_normalization
from supple.methods.optimizer_parts import members, unwrapped_optimizer
from supple.structure.description import Slice, UnitGroup, Units
from supple.structure.find import units as find_units
from supple.structure.initial import initial_distributions
from supple.structure.overrides import Overrides
from supple.structure.stacked import Stacked
from supple.structure.wrapping import unwrapped

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (nn.Linear, *CONVOLUTIONS)

New = Callable[[Tensor, str, int], Tensor]
"""Makes new weights from the old ones [out, copies, units, repeat, ...], their name, and a number of their own."""


class Operation:
    """One change of a network: prepared on its parts, and taken back as a whole where it fails."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None, example: Any, units: Units | None
    ) -> None:
        check(model, optimizer)
        if units is None and callable(getattr(type(model), "hidden_units", None)):
            raise ValueError(
                f"a {type(model).__name__} says its hidden units itself, and would go on to say those that it had; "
                "networks of supple.lab.nn take these changes as options: activation=..., layer_norm=..."
            )
        self.model, self.optimizer, self.example = model, optimizer, example
        self.units = find_units(model, example) if units is None else units
        self._placed: list[tuple[str, nn.Module]] = []
        self._added: list[tuple[nn.Parameter, list[nn.Parameter]]] = []
        self._widened: dict[str, list[tuple[Slice, int, New, bool]]] = {}

    def producer(self, group: UnitGroup) -> Any:
        """Finds the layer that makes the units.

        Args:
            group: the units.

        Returns:
            The module.

        Raises:
            ValueError: if it is not one that can be changed.
        """
        layer: Any = dict(self.model.named_modules()).get(group.name)
        whole = len(group.incoming) == 1 and group.incoming[0].tensor == f"{group.name}.weight"
        if not isinstance(layer, _LAYERS) or not whole or layer.weight.shape[0] != group.size:
            raise self.refused(group, "they are not all that one Linear or Conv gives, as in gated layers")
        return layer

    def dim(self, group: UnitGroup) -> int:
        """Says which dimension of what the layer gives counts units.

        Args:
            group: the units.

        Returns:
            A negative number, as an example may have no batch.
        """
        layer = self.producer(group)
        return -layer.weight.ndim + 1 if isinstance(layer, CONVOLUTIONS) else -1

    def place(self, group: UnitGroup) -> str:
        """Finds the module whose output goes to the activation function: the layer, or its normalization.

        Args:
            group: the units.

        Returns:
            Its name.

        Raises:
            ValueError: if there is something between the activation function and the next layer that would not fit.
        """
        self.producer(group)
        place = group.name
        for norm in group.norms:
            named = [part.tensor for part in (norm.scale, norm.shift, norm.running_mean) if part is not None]
            place = named[0].rpartition(".")[0] if named else ""
            if group.feature_after_norm is not None or not is_normalization(self.model.get_submodule(place)):
                raise self.refused(
                    group, f"their activation function has parameters, or {place or 'a norm'} follows it"
                )
        return place

    def put_behind(self, place: str, name: str, module: nn.Module) -> None:
        """Puts a module behind another one.

        Args:
            place: name of the other one.
            name: what the module is called there.
            module: the module.
        """
        layer = self.model.get_submodule(place)
        self._placed.append((place, nn.Sequential(OrderedDict((("layer", layer), (name, module))))))

    def add(self, beside: nn.Parameter, module: nn.Module) -> None:
        """Adds a module's parameters to a group of the optimizer.

        Args:
            beside: a parameter of that group.
            module: the module.
        """
        self._added.append((beside, list(module.parameters())))

    def widen(self, group: UnitGroup, new: New, anew: bool = False) -> None:
        """Doubles the weights that read the units.

        Args:
            group: the units.
            new: makes the weights of a half.
            anew: whether those of the first half are new ones, too.

        Raises:
            ValueError: if a layer that reads the units cannot be changed.
        """
        for consumer in group.consumers:
            name = consumer.weight.tensor
            reader = self.model.get_submodule(name.rpartition(".")[0])
            if not isinstance(reader, _LAYERS) or getattr(reader, "groups", 1) != 1:
                raise self.refused(group, f"{name} reads them, and only Linear and Conv can be widened")
            self._widened.setdefault(name, []).append((consumer.weight, group.size, new, anew))

    def done(self) -> nn.Module:
        """Carries it out, tries the network where there is an example, and tells the optimizer.

        Returns:
            The network.

        Raises:
            ValueError: if the changed network does not run on the example; it is as it was then.
        """
        readers = {name: self._reader(name) for name in self._widened}
        widened = {name: self._wider(reader.weight, name) for name, reader in readers.items()}
        undo: list[Callable[[], object]] = []
        for name, reader in readers.items():
            size = "in_features" if isinstance(reader, nn.Linear) else "in_channels"
            undo += [_setter(reader, "weight", reader.weight), _setter(reader, size, getattr(reader, size))]
            reader.weight = widened[name][1]
            setattr(reader, size, reader.weight.shape[1])
        for place, module in self._placed:
            undo.append(put(self.model, place, module))
        for module in self.model.modules():
            # Their fast path computes what they are made of, whatever stands there.
            if isinstance(module, nn.TransformerEncoderLayer):
                undo.append(_setter(module, "activation_relu_or_gelu", module.activation_relu_or_gelu))
                module.activation_relu_or_gelu = 0
            elif isinstance(module, nn.TransformerEncoder):
                undo.append(_setter(module, "use_nested_tensor", module.use_nested_tensor))
                module.use_nested_tensor = False
        try:
            self._try()
        except ValueError:
            for one in reversed(undo):
                one()
            raise
        for name, (old, new) in widened.items():
            exchange(self.optimizer, old, new, partial(self._spread_remembered, name))
        for beside, added in self._added:
            for group in [] if self.optimizer is None else unwrapped_optimizer(self.optimizer).param_groups:
                if any(p is beside for p in group["params"]):
                    group["params"] += added
        return self.model

    def _try(self) -> None:
        """Runs a copy of the changed network on the example; a ValueError if it does not run."""
        if self.example is None:
            return
        try:
            find_units(self.model, self.example)
        except ValueError as error:
            if "has no hidden units that can be replaced" in str(error):
                return
            raise ValueError(
                f"the changed {type(self.model).__name__} does not run on the example, so that it is left as it was. "
                "Where it counts on the sizes of layers, let it take them from what it gets, as flatten(1) does, or "
                f"leave the layer out: units=supple.Units([...]).\n{error}"
            ) from error

    def _reader(self, name: str) -> Any:
        return self.model.get_submodule(name.rpartition(".")[0])

    def _wider(self, weight: nn.Parameter, name: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A weight that reads units, and the one that takes its place."""
        new = self._spread(weight.detach(), name)
        return weight, nn.Parameter(new.contiguous(), requires_grad=weight.requires_grad)

    def _spread_remembered(self, name: str, tensor: Tensor) -> Tensor:
        """Doubles what is remembered of the entries that read units; new ones have what the others have on average."""
        return self._spread(tensor, name, _like_others(tensor))

    def _spread(self, tensor: Tensor, name: str, fill: float | None = None) -> Tensor:
        """Doubles the entries that read units; of what is remembered of a weight, new ones are ``fill``."""
        # From the last on, so that the others stay where they are.
        for part, size, new, anew in sorted(self._widened[name], key=lambda one: -one[0].start):
            dim, length = part.dim % tensor.ndim, part.copies * size * part.repeat
            rest = tensor.shape[dim] - part.start - length
            before, block, behind = tensor.split([part.start, length, rest], dim=dim)
            block = block.unflatten(dim, (part.copies, size, part.repeat))
            halves = [block if not half and not anew else new(block, name, 2 * part.start + half) for half in (0, 1)]
            if fill is not None:
                halves = [one if one is block else torch.full_like(block, fill) for one in halves]
            tensor = torch.cat((before, torch.cat(halves, dim=dim + 1).flatten(dim, dim + 2), behind), dim=dim)
        return tensor

    def refused(self, group: UnitGroup, reason: str) -> ValueError:
        """Says that units cannot be changed, and how to leave them out.

        Args:
            group: the units.
            reason: why.

        Returns:
            The error.
        """
        return ValueError(
            f"the units of {group.name} cannot be changed: {reason}. Leave the layer out: "
            f"units=supple.Units([one for one in supple.units(model, example) if one.name != {group.name!r}])"
        )


def check(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Raises a ValueError if a network cannot be changed as a whole.

    Args:
        model: the network.
        optimizer: its optimizer, or None.
    """
    kind = type(model).__name__
    if unwrapped(model)[0] is not model:
        raise ValueError(f"model is a {kind}; change the network inside of it, and wrap or compile it after that")
    if isinstance(model, Stacked):
        raise ValueError(
            f"a {kind} is many networks in one; networks of supple.lab.nn take these changes as options, such as "
            'activation="crelu", activation="fourier" or layer_norm="before"'
        )
    if any(map(is_sharded, model.parameters())):
        raise ValueError(f"the parameters of the {kind} are sharded; change it before fully_shard")
    inner = None if optimizer is None else unwrapped_optimizer(optimizer)
    if isinstance(inner, torch.optim.LBFGS):
        raise ValueError("LBFGS goes on with the weights that it was made for; make it after the change")
    groups = [] if inner is None else inner.param_groups
    if groups and {id(p) for group in groups for p in group["params"]}.isdisjoint(map(id, model.parameters())):
        raise ValueError(f"the {type(optimizer).__name__} holds no parameter of the {kind}; give the one that does")


def distributions(model: nn.Module, names: Collection[str], initial: Overrides | None) -> dict[str, Distribution]:
    """What new weights are drawn from: what is stated or told by the values, else PyTorch's rule for the layer.

    Args:
        model: the network.
        names: the parameters.
        initial: what is stated.

    Returns:
        A distribution by name.

    Raises:
        ValueError: if one is not known.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The model looks trained already")
        found = initial_distributions(model, initial)
    drawn: dict[str, Distribution] = {}
    for name in names:
        entry = found[name]
        told = entry.source == "override" or not isinstance(entry.distribution, Fixed | None)
        distribution = entry.distribution if told else entry.rule
        if distribution is None or isinstance(distribution, Fixed):
            raise ValueError(
                f"it is not known what {name} is drawn from ({entry.source}); say so: "
                f"initial={{{name!r}: supple.Normal(0.0, 0.02)}}"
            )
        drawn[name] = distribution
    return drawn


def draw(distribution: Distribution, seed: int, purpose: str, like: Tensor) -> Tensor:
    """Draws new weights.

    Args:
        distribution: what from.
        seed: the seed.
        purpose: what the weights are for; other weights for other words.
        like: a tensor whose shape, device and type they get.

    Returns:
        The weights.
    """
    key = random.purpose("surgery", purpose)
    return sample(distribution, torch.tensor([seed]), key, 0, like.shape)[0].to(like)


def put(model: nn.Module, path: str, module: nn.Module) -> Callable[[], object]:
    """Puts a module in the place of another.

    Args:
        model: the network.
        path: name of the other module.
        module: the module.

    Returns:
        What puts the other one back.
    """
    holder, _, name = path.rpartition(".")
    modules = model.get_submodule(holder)._modules
    old = modules[name]
    modules[name] = module
    return lambda: modules.__setitem__(name, old)


def exchange(
    optimizer: torch.optim.Optimizer | None,
    old: nn.Parameter,
    new: nn.Parameter,
    remembered: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Gives an optimizer a parameter in the place of another.

    Args:
        optimizer: the optimizer, or None.
        old: the parameter that it has.
        new: the one that it gets.
        remembered: from what it remembers of each entry of the old one to that of the new one; None: it forgets it. It
            also forgets what is not of entries, such as the sums over rows and columns of Adafactor.
    """
    for one in [] if optimizer is None else members(unwrapped_optimizer(optimizer)):
        for group in one.param_groups:
            group["params"] = [new if p is old else p for p in group["params"]]
        state = one.state.pop(old, {})
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        of_entries = {key: one for key, one in tensors.items() if one.numel() > 1 or one.shape == old.shape}
        if state and remembered is not None and all(value.shape == old.shape for value in of_entries.values()):
            one.state[new] = {**state, **{key: remembered(value) for key, value in of_entries.items()}}


def _setter(owner: object, name: str, value: object) -> Callable[[], object]:
    return lambda: setattr(owner, name, value)


def _like_others(tensor: Tensor) -> float:
    """What stands for the history of new entries: the mean of second moments, which are not negative, else 0.

    A second moment of 0, of an optimizer that has run for long, would make the first steps of an entry far too long.
    """
    return float(tensor.mean()) if bool((tensor >= 0).all()) else 0.0
