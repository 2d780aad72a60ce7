"""Reading the features of hidden units while the network computes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.utils.hooks import RemovableHandle

from supple.functional.sharding import is_sharded
from supple.functional.utility import precise
from supple.structure.description import Feature
from supple.structure.stacked import Stacked


class FeatureReader:
    """Means of what a group of units puts out, over all examples since they were last taken.

    Forward passes are read in training mode and with gradients enabled only, so evaluating the network in between does
    not count. Several passes before a step (gradient accumulation) count as one large batch. What gradient
    checkpointing computes a second time, during the backward pass, counts only where the first time did not. A pass of
    no examples, as of an expert that no token chose, counts as none. A copy of the network (``copy.deepcopy``, an
    average of weights) reads nothing.

    Hooks read all replicas, and the rows that are wanted are taken from the means. What hooks do is part of a compiled
    network, which is compiled again for each other thing they do; so they depend on ``enabled`` alone, and on whether
    there was a pass since the means were taken.

    Args:
        model: the network.
        feature: where the features are read.
        units: number of units.
        stacked: whether activations have a replica dimension in front.
        reduce: what is averaged, a function of the features [R, n, ...] of the same shape: magnitude or value; None:
            passes are only counted.

    Attributes:
        on_gradient: what to call in the backward pass as soon as the gradient of what was read is known; None: nothing.
        centre: (share [R, n, 1, 1], offset [R, n, copies, repeat]): offset + share * the mean over a forward pass is
            subtracted from what is read before ``reduce``; None: nothing is.
        enabled: whether hooks read forward passes.
        rows: the replicas whose means are wanted.
        ran: whether there was a forward pass that counts, enabled or not.
    """

    def __init__(
        self,
        model: nn.Module,
        feature: Feature,
        units: int,
        stacked: bool,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.on_gradient: Callable[[], None] | None = None
        self.centre: tuple[Tensor, Tensor] | None = None
        self.enabled = self.ran = False
        self.rows: slice | Tensor = slice(None)
        self.feature, self._units, self._stacked, self._reduce = feature, units, stacked, reduce
        self._replicas = model.replicas if isinstance(model, Stacked) else 1
        self._vmapped, self._turn = (model.vmapped, model.turn) if isinstance(model, Stacked) else (False, [])
        self._sum: Tensor | None = None
        self._examples: int | Tensor = 0
        self._read_forward = False
        module = model.get_submodule(feature.module)
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"features are to be read at the {feature.where} of module {feature.module!r}, which torch.jit "
                "compiled, so that hooks cannot see them; train the module that it was made from (torch.compile can be "
                "used), or read them at another module: supple.Feature(module, where, layout) in units=..."
            )
        self._handle: RemovableHandle
        if feature.where == "input":
            self._handle = module.register_forward_pre_hook(self._before, with_kwargs=True)
        else:
            self._handle = module.register_forward_hook(self._after)

    @property
    def shape(self) -> torch.Size:
        """Of the means, [rows, n, copies, repeat]."""
        rows = len(range(self._replicas)[self.rows] if isinstance(self.rows, slice) else self.rows)
        return torch.Size((rows, self._units, self.feature.layout.copies, self.feature.layout.repeat))

    def look(self, rows: slice | Tensor, enabled: bool) -> None:
        """Says what to read from now on; what has been read and not taken is dropped."""
        self.take_sum()
        self.rows, self.enabled, self.ran = rows, enabled, False

    def _before(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._read(module, self.feature.argument(inputs, keywords))

    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._read(module, output)

    def _read(self, module: nn.Module, activations: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        known = isinstance(activations, Tensor)
        anything = not known or activations.numel() > 0
        if anything:
            self.ran = True
        if not self.enabled:
            return
        # A compiled network recomputes in graphs of its own, which call no hooks.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            if self._read_forward:
                return
        else:
            self._read_forward = True
        dim = 0
        if known and self._vmapped and _functorch.is_batchedtensor(activations):
            dim = _functorch.maybe_get_bdim(activations)
            activations = _functorch.get_unwrapped(activations)
        if self.on_gradient is not None and known and activations.requires_grad:
            if self._turn:
                raise RuntimeError(
                    'order="in_backward" acts on all replicas at once, but these networks are computed one after the '
                    "other, since torch.func.vmap cannot compute them; leave order out"
                )
            activations.register_hook(self._reached)
        if self._reduce is None:
            self._examples += anything
            return
        if not known:
            raise TypeError(
                f"features are read at the {self.feature.where} of module {self.feature.module!r}, which is a "
                f"{type(activations).__name__}, not a tensor; read them at the input or output of a module that takes "
                "in or gives out a tensor: supple.Feature(module, where, layout) in units=..."
            )
        if not torch.compiler.is_compiling() and _functorch.is_functorch_wrapped_tensor(activations):
            self._refuse_vmap(activations)
        one = self._turn or not self._stacked
        activations = activations.detach().unsqueeze(0) if one else activations.detach().movedim(dim, 0)
        self._add(activations, self._turn or slice(None))

    def _reached(self, gradient: Tensor) -> None:
        if self.on_gradient is not None:
            self.on_gradient()

    def _refuse_vmap(self, activations: Tensor) -> None:
        """Raises a RuntimeError if activations are of one call of many that ``torch.func.vmap`` makes at once."""
        while _functorch.is_functorch_wrapped_tensor(activations):
            if _functorch.is_batchedtensor(activations):
                raise RuntimeError(
                    f"module {self.feature.module!r} runs inside torch.func.vmap, where features of the batch cannot "
                    "be read. Compute what is vmapped in evaluation mode (model.eval()), which is not read, and call "
                    "the model once a step in training mode without vmap; or use a method that reads no features, such "
                    "as SWR"
                )
            activations = _functorch.get_unwrapped(activations)

    def record(self, activations: Tensor) -> None:
        """Takes the activations of one forward pass into account, and computes only with the replicas that are wanted.

        Args:
            activations: what the module takes in or gives out; [R, B, ...] for a stacked network, else [B, ...].
        """
        self.ran = True
        if self._reduce is None:
            self._examples += 1
            return
        self._add(activations[self.rows] if self._stacked else activations.unsqueeze(0), self.rows)

    def _add(self, activations: Tensor, rows: Any) -> None:
        """Adds to the sums, activations [R, B, ...] of all replicas or [rows, B, ...] of those that are wanted.

        Where replicas take turns, they are [1, B, ...] of one, and each has a number of examples of its own.
        """
        assert self._reduce is not None
        # No position is no example either.
        examples = min(activations.shape[1], activations.numel())
        layout = self.feature.layout
        features = precise(self.feature.view(activations, self._units, leading=1))
        dim = layout.dim % (activations.ndim - 1) + 2
        others = [d for d in range(2, features.ndim) if d not in (dim, dim + 1)]
        # The mean, but 0 where there is nothing.
        averaged = math.prod([features.shape[d] for d in others])
        if self.centre is not None:
            share, offset = (one[rows] for one in self.centre)
            mean = features.sum(dim=others, keepdim=True) / max(averaged, 1)
            shape = [1 if d in others else size for d, size in enumerate(mean.shape)]
            features = features - (offset + share * mean.view(offset.shape)).view(shape)
        features = self._reduce(features)
        mean = features.sum(dim=others) / max(averaged, 1) if others else features
        total = mean * examples
        number: int | Tensor = examples
        if self._turn:
            one = torch.zeros(self._replicas, 1, 1, 1, dtype=torch.bool, device=total.device)
            one[self._turn] = True
            total, number = torch.where(one, total, 0), one * examples
        self._sum = total if self._sum is None else self._sum + total
        self._examples = self._examples + number

    def take(self) -> Tensor | None:
        """The means since they were last taken, and starts again."""
        total, examples = self.take_sum()
        return None if total is None or not self.ran else total / examples

    def take_sum(self) -> tuple[Tensor | None, int | Tensor]:
        """The sum over all examples since they were last taken, and their number, and starts again."""
        total, examples = self._sum, self._examples
        self._sum, self._examples, self._read_forward = None, 0, False
        if isinstance(examples, Tensor) and examples.ndim:
            examples = examples[self.rows]
        # As many as there are replicas: read by hooks, or all are wanted anyway.
        return total if total is None or len(total) < self._replicas else total[self.rows], examples

    def put_sum(self, total: Tensor, examples: int | Tensor) -> None:
        """Puts back what :meth:`take_sum` took, or what all processes took together."""
        self._sum, self._examples = total, examples

    def __getstate__(self) -> dict[str, Any]:
        off = {"on_gradient": None, "enabled": False, "ran": False}
        return vars(self) | off | {"_sum": None, "_examples": 0, "_read_forward": False}

    def reading(self) -> dict[str, Any]:
        """What a copy lacks until its method, too, is copied: what is read, and what has been read."""
        return {
            name: vars(self)[name]
            for name in ("centre", "enabled", "rows", "ran", "_sum", "_examples", "_read_forward")
        }

    def close(self) -> None:
        """Takes the hook away."""
        self.enabled = False  # a network that was compiled with the hook goes on calling it
        self._handle.remove()


class Passes:
    """Notices that there was a forward pass that counts, also one in which no layer ran of those that are read.

    Args:
        model: the network.
        modules: names of the modules where features are read; hooks are on all that hold every one of them.

    Attributes:
        ran: whether there was one.
    """

    def __init__(self, model: nn.Module, modules: Sequence[str]) -> None:
        self.ran = False
        alike = takewhile(lambda parts: len({*parts}) == 1, zip(*(name.split(".") for name in modules), strict=False))
        common = [parts[0] for parts in alike]
        around = [model.get_submodule(".".join(common[:depth])) for depth in range(len(common) + 1)]
        self._handles = [module.register_forward_pre_hook(self._before) for module in around]

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled():
            self.ran = True

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()


def data_groups(model: nn.Module, group: Any, reads_features: bool) -> list[Any]:
    """The groups of processes over which the features of a batch have to be summed, one after the other."""
    sharded = [(name, p) for name, p in model.named_parameters() if is_sharded(p)]
    if sharded:
        from torch.distributed.fsdp import FSDPModule

        name, parameter = sharded[0][0], sharded[0][1]
        divided = [placement for placement in parameter.placements if placement.is_shard()]  # type: ignore[attr-defined]
        if len(divided) > 1 or not any(isinstance(module, FSDPModule) for module in model.modules()):
            raise ValueError(
                f"{name} is placed as {parameter.placements}; hidden units are found "  # type: ignore[attr-defined]
                "where torch.distributed.fsdp.fully_shard divides the parameters, not where tensor parallelism divides "
                "the features too"
            )
        mesh = parameter.device_mesh  # type: ignore[attr-defined]
        return [mesh.get_group(dim) for dim in range(mesh.ndim)]
    if group is not None:
        return [group]
    if reads_features and torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise ValueError(
                f"{processes} processes run, each with features of its own part of the batch, so that each would "
                "replace other units. Pass the DistributedDataParallel module as model, or process_group="
                "torch.distributed.group.WORLD (or the group of the processes that train this network together)"
            )
    return []


def share(readers: Iterable[FeatureReader], groups: Sequence[Any], device: torch.device) -> None:
    """Replaces what each reader read by what all processes read together: one small sum for all readers.

    A process that read nothing, as where a layer runs only for some examples, adds zeros, so that all add up numbers of
    the same layers. What no process read stays unread everywhere, and everywhere ``ran`` says whether any did.
    """
    # In double precision: who read nothing does not know in which type the others compute.
    parts, unread = [], []
    for reader in (readers := list(readers)):
        total, examples = reader.take_sum()
        unread.append(not reader.ran)
        sums = torch.zeros(reader.shape) if total is None else total
        parts += [sums.to(device, torch.float64), torch.as_tensor(examples, dtype=torch.float64, device=device)]
    if not parts:
        return
    flat = torch.cat([part.flatten() for part in parts])
    for group in groups:
        torch.distributed.all_reduce(flat, group=group)
    pieces = [piece.view(part.shape) for piece, part in zip(flat.split([p.numel() for p in parts]), parts, strict=True)]
    for reader, alone, total, examples in zip(readers, unread, pieces[::2], pieces[1::2], strict=True):
        # Only who read nothing has to look, and wait for the device, to learn whether others did.
        if not alone or examples > 0:
            reader.put_sum(total, examples)
            reader.ran = True
