"""Any module as a population: R copies of it that are trained together."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only, tree_unflatten

from supple.functional.initial import Distribution, Each, Fixed
from supple.structure.description import Units
from supple.structure.find import units
from supple.structure.initial import initial_distributions
from supple.structure.stacked import Stacked
from supple.structure.tracing.run import arguments_of


class StackedModule(Stacked):
    """R networks of one kind, computed together by ``torch.func.vmap``; made by :func:`stack`.

    Parameters, buffers and modules have the names that they have in one network; parameters and buffers have a leading
    dimension R. What a network draws while it computes, as dropout does, is another draw in each replica, from torch's
    generator. A network that vmap cannot compute (its first forward pass tells, and a warning says so) is computed one
    replica after the other, by the same modules: what they keep in ordinary attributes is common to all replicas, and a
    parameter that a replica does not use has the gradient 0 there.

    Args:
        networks: the networks, one a replica; they are copied.
        seeds: one seed a replica, int64 [R] or integers.
        example: what one network takes in, for :func:`supple.units`.
    """

    vmapped = True

    def __init__(self, networks: Sequence[nn.Module], seeds: Sequence[int] | Tensor, example: Any = None) -> None:
        super().__init__(seeds)
        first = networks[0]
        for name in (*first._modules, *first._parameters, *first._buffers):
            if hasattr(self, name):
                raise ValueError(f"{type(first).__name__} has {name!r}, as the stack itself has; give it another name")
        self._example = example
        tensors = [dict(_tensors(network)) for network in networks]
        self._initial = _starts(networks)
        stacked: dict[int, Tensor] = {}
        for name, tensor in tensors[0].items():
            values = torch.stack([each[name].detach() for each in tensors])
            stacked[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if _trains(tensor) else values
        # One network whose tensors are those of all. Held in a dictionary, so that it is no module inside this one:
        # instead both have the same modules, parameters and buffers.
        one = copy.deepcopy(first, stacked)
        self.__dict__["_network"] = one
        for held in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[held] = one.__dict__[held]
        self.register_buffer("seeds", torch.as_tensor(seeds).to(next(iter(stacked.values())).device, torch.int64))
        self._together: dict[tuple[bool, bool], bool] = {}
        self._pads = False

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Applies each network to its own inputs.

        Args:
            inputs: what one network takes in, with a leading dimension in each tensor: [S, ...], where S divides R and
                replicas s * C to s * C + C - 1, with C = R / S, take entry s (S = 1: all take the same).
            keywords: keyword arguments, likewise.

        Returns:
            What one network gives out, each tensor with a leading dimension R.
        """
        given = tree_map_only(Tensor, self._for_each, (inputs, keywords))
        mode = (self.training, torch.is_grad_enabled())
        if mode not in self._together:
            self._together[mode] = self._try_together(tree_map_only(Tensor, self._for_each, copied((inputs, keywords))))
        if self._together[mode]:
            return self._compute_together(self._one, given)
        return tree_map(_joined, *self._compute_in_turn(self._one, given, range(self.replicas)))

    @property
    def together(self) -> bool:
        """Whether vmap could compute the networks, as far as they were computed."""
        return all(self._together.values())

    def losses(self, function: Callable[..., Tensor], *tensors: Any) -> Tensor:
        """Computes the loss of each network, to be summed before ``backward()``, so that each gets its own gradient.

        Args:
            function: the loss of one network, a scalar, such as ``torch.nn.functional.cross_entropy``.
            tensors: its arguments, outputs and targets, each tensor in them with a leading dimension as of
                :meth:`forward`.

        Returns:
            [R].

        Raises:
            ValueError: if the loss is not a scalar a network.
        """
        given = tree_map_only(Tensor, self._for_each, tensors)
        try:
            losses = torch.vmap(function, _dims(given), randomness="different")(*given)
        except Exception:
            # What vmap cannot compute; what is wrong with the loss itself shows here.
            losses = torch.stack([function(*entry(given, r)) for r in range(self.replicas)])
        if losses.shape != (self.replicas,):
            raise ValueError(f"the loss of one network has shape {tuple(losses.shape[1:])}; it has to be a scalar")
        return losses

    def replica(self, i: int) -> nn.Module:
        """Replica i as an ordinary network with a copy of its values."""
        if not 0 <= i < self.replicas:
            raise IndexError(f"there is no replica {i}; the stack has replicas 0 to {self.replicas - 1}")
        values: dict[int, Any] = {}
        for _, tensor in _tensors(self):
            value = tensor[i].detach().clone()
            values[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if _trains(tensor) else value
        network = self._copy(values)
        network._buffers.pop("seeds", None)  # of a compiled network the stack alone has it
        return network

    def hidden_units(self) -> Units:
        """The hidden units of one network, as :func:`supple.units` finds them with the example."""
        try:
            return units(self.replica(0), self._example)
        except ValueError as error:
            if self._example is not None:
                raise
            raise ValueError(
                f"{error}\nOf a stack: stack(make, seeds, example=...), an input of one network"
            ) from error

    def initial_distributions(self) -> dict[str, Distribution]:
        """What each parameter starts from, by name, as the networks told before training."""
        return self._initial

    def train(self, mode: bool = True) -> StackedModule:
        """Sets training mode, or evaluation mode, of all modules."""
        self._one.train(mode)
        return self

    @property
    def training(self) -> bool:
        """Whether the networks are in training mode."""
        return "_network" not in self.__dict__ or self._one.training

    @training.setter
    def training(self, mode: bool) -> None:
        """Sets it of the network as a whole, but of no module inside."""
        if "_network" in self.__dict__:
            self._one.training = mode

    def extra_repr(self) -> str:
        """The number of replicas."""
        return f"replicas={self.replicas}"

    @property
    def _one(self) -> nn.Module:
        network: nn.Module = self.__dict__["_network"]
        return network

    def _copy(self, values: dict[int, Any]) -> nn.Module:
        """One network with other tensors by the ids of its own, and without what it left in attributes within vmap."""
        for module in self._one.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value):
                    values[id(value)] = None
        return copy.deepcopy(self._one, values)

    def _for_each(self, value: Tensor) -> Tensor:
        """A tensor [S, ...] as [R, ...]."""
        entries = len(value) if value.ndim else 0
        if not entries or self.replicas % entries:
            raise ValueError(
                f"a tensor given to {self.replicas} networks has shape {tuple(value.shape)}; its first dimension "
                f"counts networks, and has to divide {self.replicas} (1: all take the same, as x.unsqueeze(0))"
            )
        if entries == 1:
            return value.expand(self.replicas, *value.shape[1:])
        return value if entries == self.replicas else value.repeat_interleave(self.replicas // entries, dim=0)

    def _state(self, one: nn.Module) -> dict[str, Tensor]:
        """Parameters and buffers by all of their names; those that share a tensor get the same."""
        return {name: tensor for name, tensor in _tensors(one) if name != "seeds"}

    def _compute_together(self, one: nn.Module, given: Any) -> Any:
        state = self._state(one)

        form: list[Any] = []

        def compute(state: dict[str, Tensor], given: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
            before = dict(state)
            leaves, spec = tree_flatten(functional_call(one, state, *given, tie_weights=False))
            form[:] = spec, [_TENSOR if isinstance(leaf, Tensor) else _plain(leaf) for leaf in leaves]
            # What is changed in place is changed; what is put in the place of a buffer is written back.
            replaced = {name: tensor for name, tensor in state.items() if tensor is not before[name]}
            return [leaf for leaf in leaves if isinstance(leaf, Tensor)], replaced

        with ExitStack() as ways:
            if not self.seeds.is_cuda:
                # Of attention's kernels for CPUs, vmap knows the one of plain products only.
                ways.enter_context(sdpa_kernel(SDPBackend.MATH))
            if self._pads:
                ways.enter_context(_PaddingApart())
            found, replaced = torch.vmap(compute, (0, _dims(given)), randomness="different")(state, given)
        for name, tensor in replaced.items():
            state[name].copy_(tensor)
        spec, rest = form
        tensors = iter(found)
        return tree_unflatten([next(tensors) if one is _TENSOR else one for one in rest], spec)

    def _compute_in_turn(self, one: nn.Module, given: Any, replicas: Iterable[int]) -> list[Any]:
        whole = self._state(one)
        # Gradients of what is unbound are stacked once, those of single rows would be added up.
        rows = {name: tensor.unbind() if tensor.requires_grad else tensor for name, tensor in whole.items()}
        outputs = []
        for r in replicas:
            state = {name: row[r] for name, row in rows.items()}
            before = dict(state)
            self.turn[:] = [r]
            try:
                # A network may change its input in place, which all replicas share.
                outputs.append(functional_call(one, state, *copied(entry(given, r)), tie_weights=False))
            finally:
                self.turn.clear()
            for name, tensor in state.items():
                if tensor is not before[name]:
                    whole[name][r].copy_(tensor)
        return outputs

    def _try_together(self, given: Any) -> bool:
        """Whether vmap can compute the networks, found out with copies of the modules, whose hooks read nothing."""
        one = self._copy({})
        devices = [self.seeds.device] if self.seeds.is_cuda else []
        with torch.random.fork_rng(devices), _PaddingApart() as apart:
            try:
                self._compute_together(one, given)
                self._pads |= apart.met
            except Exception as error:
                # An input that does not fit is refused as one network refuses it.
                self._compute_in_turn(one, given, [0])
                reason = str(error).partition("\n")[0]
                if False not in self._together.values():
                    warnings.warn(
                        f"{self.replicas} networks ({type(one).__name__}) are computed one after the other, which "
                        f"takes longer than together: torch.func.vmap cannot compute them ({reason})",
                        UserWarning,
                        stacklevel=5,
                    )
                return False
        return True


_EMBEDDING = inspect.signature(F.embedding)


class _PaddingApart(TorchFunctionMode):
    """Keeps gradients from the rows of padding in embeddings, which vmap does for the first network only; ``met`` tells
    whether there are any.
    """

    met = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.embedding:
            given = _EMBEDDING.bind(*args, **kwargs).arguments
            padding = given.pop("padding_idx", None)
            if padding is not None:
                self.met = True
                looked_up = function(**given)
                padded = given["input"] == padding % len(given["weight"])
                return torch.where(padded.unsqueeze(-1), looked_up.detach(), looked_up)
        return function(*args, **kwargs)


def stack(make: Callable[[int], nn.Module], seeds: Sequence[int] | Tensor, example: Any = None) -> StackedModule:
    """Makes R networks of any kind and stacks them into one module, to be trained together.

    Every method of supple acts on it, with settings a replica, and so do the optimizers of :mod:`supple.optim`. A
    replica learns as the same network does alone.

    Args:
        make: makes one network from a seed, a ``torch.nn.Module``. It is called once for each distinct seed, after
            ``torch.manual_seed(seed)``; torch's generator is left as it was.
        seeds: one seed a replica, int64 [R] or integers, those that are alike one behind the other: with C settings a
            seed, ``[s for s in seeds for _ in range(C)]``.
        example: what one network takes in, for methods on hidden units; not needed of a ``torch.nn.Sequential`` and of
            what has ``hidden_units()``. See :func:`supple.units`.

    Returns:
        The networks, as one module that takes in and gives out tensors with a leading dimension of replicas.

    Raises:
        TypeError: if ``make`` gives no module.
        ValueError: if the networks differ in more than values, share a parameter, have lazy parameters, tensors of
            their own that are neither parameters nor buffers, or what a stack would lose: hooks on gradients, a state
            beside parameters and buffers.

    Example:
        >>> from torch import nn
        >>> from supple.lab import stack
        >>> from supple.optim import SGDW
        >>> make = lambda seed: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> networks = stack(make, seeds=[0, 0, 1, 1])
        >>> optimizer = SGDW(networks.parameters(), lr=[0.1, 0.2, 0.1, 0.2])
        >>> method = supple.CBP(networks, optimizer, replacement_rate=[1e-3, 1e-3, 1e-4, 1e-4])
        >>> x, y = torch.randn(2, 16, 4), torch.randint(3, (2, 16))  # a batch a seed
        >>> losses = networks.losses(nn.functional.cross_entropy, networks(x), y)
        >>> losses.sum().backward()
        >>> optimizer.step()
        >>> method.step()
        >>> losses.shape, networks.get_parameter("0.weight").shape
        (torch.Size([4]), torch.Size([4, 8, 4]))
    """
    made: dict[int, nn.Module] = {}
    listed = Stacked(seeds).seeds.tolist()
    for seed in dict.fromkeys(listed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made[seed] = make(seed)
        check_stackable(made, seed)
    return StackedModule([made[seed] for seed in listed], seeds, example)


def untrainable(network: nn.Module) -> str:
    """Why a network cannot be trained here at all, in words; empty where it can."""
    if isinstance(network, torch.jit.ScriptModule):
        return "torch.jit compiled it; give the module that it was made from"
    for name, parameter in network.named_parameters():
        if is_lazy(parameter):
            return f"{name} is lazy and has no shape yet; run one batch where it is made"
    return ""


def unstackable(network: nn.Module) -> str:
    """What of a network would be lost in a stack, in words; empty where there is nothing."""
    kind = type(network).__name__
    if type(network).get_extra_state is not nn.Module.get_extra_state:
        return f"{kind} has a state of its own beside parameters and buffers"
    for name, parameter in network.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"{name} has a hook on its gradient"
    for path, module in network.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            return f"{path or kind} has a hook on its gradient"
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.sparse:
            return f"{path or kind} has sparse gradients; make it with sparse=False"
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                return (
                    f"{name} of {path or kind} is computed anew for each pass, as torch.nn.utils.weight_norm and prune "
                    "do; torch.nn.utils.parametrizations can be stacked"
                )
    return ""


_TENSOR = object()
"""Stands where a tensor goes."""


def _plain(leaf: Any) -> Any:
    """What is no tensor in an output and the same for all networks, as nothing that holds tensors can be."""
    if leaf is not None and not isinstance(leaf, bool | int | float | str):
        raise TypeError(f"a network gives out {type(leaf).__name__}, which is no tensor, tuple, list or dict")
    return leaf


def _joined(*leaves: Any) -> Any:
    if isinstance(leaves[0], Tensor):
        return torch.stack(leaves)
    if any(_plain(leaf) != leaves[0] for leaf in leaves):
        raise ValueError(f"stacked networks give out {leaves[0]!r} and others, which are no tensors")
    return leaves[0]


def _dims(given: Any) -> Any:
    return tree_map(lambda value: 0 if isinstance(value, Tensor) else None, given)


def entry(given: Any, place: int) -> Any:
    """One entry along the leading dimension of all tensors in tuples, lists and dicts; the rest as it is."""
    return tree_map_only(Tensor, lambda value: value[place], given)


def copied(given: Any) -> Any:
    """The same with copies of all tensors in tuples, lists and dicts."""
    return tree_map_only(Tensor, torch.clone, given)


def moved(given: Any, device: torch.device | str) -> Any:
    """The same with all tensors in tuples, lists and dicts on a device."""
    return tree_map_only(Tensor, lambda value: value.to(device), given)


def applied(network: nn.Module, inputs: Any) -> Any:
    """Applies one network, or a stack of them, to the inputs of a batch: to a copy, which it may change in place."""
    arguments, keywords = arguments_of(copied(inputs))
    return network(*arguments, **keywords)


def stacked(*leaves: Any) -> Any:
    """One argument of several networks [S, ...]; ValueError where what is no tensor is not the same for all."""
    if isinstance(leaves[0], Tensor):
        return torch.stack(leaves)
    if any(leaf != leaves[0] for leaf in leaves[1:]):
        raise ValueError(f"{leaves[0]!r} is no tensor, and is something else for another seed")
    return leaves[0]


def _tensors(network: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def _starts(networks: Sequence[nn.Module]) -> dict[str, Distribution]:
    """What parameters start from, of those of which each network tells it."""
    told = {network: initial_distributions(network) for network in dict.fromkeys(networks)}
    found: dict[str, Distribution] = {}
    for name in told[networks[0]]:
        starts: list[Any] = [told[network][name].distribution for network in networks]
        keys = [tuple(one.values.flatten().tolist()) if isinstance(one, Fixed) else one for one in starts]
        different = dict(zip(keys, starts, strict=True))
        if None not in different:
            number = {key: place for place, key in enumerate(different)}
            which = torch.tensor([number[key] for key in keys])
            found[name] = starts[0] if len(different) == 1 else Each(tuple(different.values()), which)
    return found


def _trains(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def check_stackable(made: Mapping[int, nn.Module], seed: int) -> None:
    """Refuses the network of a seed that cannot be stacked with the first; ValueError, or TypeError if it is none."""
    (start, first), network = next(iter(made.items())), made[seed]
    if not isinstance(network, nn.Module) or isinstance(network, Stacked):
        raise TypeError(f"make({seed}) gave {type(network).__name__}; it has to give one network, a torch.nn.Module")
    if why := untrainable(network) or unstackable(network):
        raise ValueError(f"make({seed}) gave a network that cannot be stacked: {why}")
    if not any(True for _ in network.parameters()):
        raise ValueError(f"make({seed}) gave {type(network).__name__}, which has no parameters to train")
    if network is first:
        if seed != start:
            raise ValueError(f"make({seed}) gave the same network as make({start}); it has to make a new one each time")
        return
    here, there = dict(_tensors(network)), dict(_tensors(first))
    ours, theirs = ({n: type(m).__name__ for n, m in one.named_modules()} for one in (network, first))
    shared = {id(tensor) for tensor in there.values() if _trains(tensor)}
    for name in {**theirs, **ours}:
        _same(seed, start, name or "the network", ours.get(name, "missing"), theirs.get(name, "missing"))
    for name in {**there, **here}:
        _same(seed, start, name, _kind(here.get(name)), _kind(there.get(name)))
        if id(here[name]) in shared:
            raise ValueError(f"make({seed}) and make({start}) share {name}; give each network parameters of its own")
    loose = dict(first.named_modules())
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            other = vars(loose[path]).get(name)
            if isinstance(value, Tensor) and not (isinstance(other, Tensor) and torch.equal(value, other)):
                raise ValueError(
                    f"{name} of {path or type(module).__name__} is a tensor that differs from network to network and "
                    "is neither a parameter nor a buffer; register it with register_buffer"
                )


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    frozen = ", frozen" if _trains(tensor) and not tensor.requires_grad else ""
    return f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}{frozen}"


def _same(seed: int, start: int, name: str, here: str, there: str) -> None:
    if here != there:
        raise ValueError(
            f"networks of one stack differ in values only, but {name} is {here} in make({seed}) and {there} in "
            f"make({start})"
        )
