"""What a method has done so far, saved and loaded."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from supple.functional.initial import Distribution, Each, Fixed, from_dict, to_dict
from supple.functional.sharding import Block, is_sharded, local
from supple.methods.arguments import restore
from supple.methods.optimizer_state import OptimizerMemory


class Reinitialized(NamedTuple):
    """How many entries or units were reinitialized.

    Attributes:
        last: by the last step or boundary; int64, a scalar, or [R] for a stacked network.
        total: by all so far; the same shape.
    """

    last: Tensor
    total: Tensor


class State(ABC):
    """The part of every method that says what it has done, saves and loads it, and ends.

    Attributes:
        steps: how many steps the method has taken, the one that is going on included.
        boundaries: how many boundaries.
        misses: how often a layer was left alone because it did not run in the step, or was frozen.
        moment, time: words for what is going on, and its number; random numbers are a function of both.
        kept: what the method keeps of each parameter: by kind and name a tensor [R, ...], saved and loaded; of the
            parameter's shape, or of another one, and then the same on every process.
        kept_whole: kinds of what is kept that every process has whole although it can have the shape of a block.
    """

    kept_whole: ClassVar[frozenset[str]] = frozenset()

    model: nn.Module
    memory: OptimizerMemory | None
    replicas: int
    stacked: bool
    device: torch.device
    parameters: dict[str, nn.Parameter]
    blocks: dict[str, Block]
    distributions: dict[str, Distribution]
    seed: Tensor
    _stated: set[str]
    _takes_seed: bool

    def _start_counting(self) -> None:
        """Starts at step 0, and keeps where the model holds the parameters, to notice when it has got others."""
        self.kept: dict[str, dict[str, Tensor]] = {}
        self._waiting: list[str] = list(self.parameters)  # parameters of which nothing is kept yet
        self.steps = self.boundaries = self.misses = 0
        self.moment: tuple[str, ...] = (type(self).__name__,)
        self.time = 0
        self._total = torch.zeros(self.replicas, dtype=torch.int64, device=self.device)
        self._last, self._skipped = torch.zeros_like(self._total), torch.zeros_like(self._total)
        self._last_step = 0
        self._new_skips = self._warned = self._closed = self._saw_gradients = False
        modules: dict[str, tuple[dict[str, nn.Module | None], str, nn.Module]] = {}
        self._held = []
        for name, parameter in self.parameters.items():
            if not parameter.requires_grad:
                continue  # what is frozen may be exchanged, as for a quantized one
            *path, last = name.split(".")
            module = self.model
            for depth, key in enumerate(path):
                if isinstance(module, torch.jit.ScriptModule):
                    break  # it keeps its parameters for good
                holder, module = module._modules, module.get_submodule(key)
                modules[".".join(path[: depth + 1])] = (holder, key, module)
            # fully_shard lets a module hold gathered parameters for a time; the sharded ones are still those.
            if not is_sharded(parameter) and not isinstance(module, torch.jit.ScriptModule):
                self._held.append((name, module._parameters, last, parameter, parameter.device, parameter.dtype))
        self._modules = [(path, *place) for path, place in modules.items()]

    @property
    def reinitialized(self) -> Reinitialized:
        """How many entries (or hidden units) the last step or boundary, and all so far, reinitialized, as tensors."""
        last = self._last if self.steps == self._last_step else torch.zeros_like(self._last)
        return Reinitialized(self._public(last), self._public(self._total))

    @property
    def skipped(self) -> Tensor:
        """How often a parameter (or layer of hidden units) was left alone in a step in which it was to be looked at.

        Gradients or features that are infinite or NaN, as after an overflow, say nothing about usefulness, and a matrix
        of zeros has no direction; reading it warns once if there were any. Neither is anything known of a layer that
        did not run in the step (layer drop, an expert that was not chosen) or is frozen. int64, a scalar, or [R] for a
        stacked network.
        """
        self._warn_of_skips(stacklevel=3)
        return self._public(self._skipped + self.misses)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped: numbers, strings, lists, dicts and tensors; no settings.

        The initial distributions are part of it, since they cannot be told from trained weights.
        """
        state = {
            "method": type(self).__name__,
            "steps": self.steps,
            "boundaries": self.boundaries,
            "last": self._last.clone() if self.steps == self._last_step else torch.zeros_like(self._last),
            "total": self._total.clone(),
            "skipped": self._skipped.clone(),
            "seed": self.seed.clone(),
            "misses": self.misses,
            "shapes": {name: list(parameter.shape) for name, parameter in self.parameters.items()},
            "initial": {name: to_dict(distribution) for name, distribution in self.distributions.items()},
        }
        if self.memory is not None:
            born = self.memory.born
            state["births"] = {n: self.blocks[n].join(self.stack(tensor).clone()) for n, tensor in born.items()}
        # Of what was frozen all the time nothing is kept yet.
        kept = set().union(*self.kept.values())
        state["waiting"] = [name for name in self._waiting if name not in kept] if self.kept else []
        for kind, tensors in self.kept.items():
            assert kind not in state, f"{kind} is a name that every state has; keep it under another"
            state[kind] = {name: self._joined(kind, name, tensor.clone()) for name, tensor in tensors.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        The settings stay those this method was made with, and so do a seed and initial distributions that were stated.

        Args:
            state: the state.

        Raises:
            ValueError: if it is another method's state, or of another network; nothing is changed then.
            RuntimeError: if the method was closed, or the model's parameters are no longer those it was made for.
        """
        self._check_usable()
        check_kind(state, type(self).__name__)
        # What is frozen now may have trained then.
        trained = {name for kind in self.kept if isinstance(state.get(kind), Mapping) for name in state[kind]}
        self._take_up(trained.intersection(self._waiting))
        own = {"births": {}, **self.state_dict()}
        nothing_kept: dict[str, Any] = {kind: {} for kind, tensors in self.kept.items() if not tensors}
        absent = {"skipped": torch.zeros_like(self._skipped), "misses": 0, "boundaries": 0, "births": {}}
        # Versions that saved no seed had 0 where none was stated.
        absent["seed"] = torch.zeros_like(self.seed)
        for kind in self.kept.keys() & {"behind", "since"}:
            absent[kind] = {name: torch.zeros_like(one) for name, one in self.kept[kind].items()}
        absent["waiting"] = []
        state = {**absent, **nothing_kept, **state}
        waiting = state["waiting"]
        if not isinstance(waiting, list | tuple) or not all(isinstance(name, str) for name in waiting):
            raise TypeError("waiting of the state is no list of names")
        for kind in self.kept.keys() & state.keys():
            if isinstance(state[kind], Mapping):
                state[kind] = {**{n: own[kind][n] for n in waiting if n in own[kind]}, **state[kind]}
        missing = [key for key in own if key not in state]
        if missing:
            raise ValueError(f"the state is not complete; it has no {', '.join(missing)}")
        _check_alike(own, state, "")
        self._check_network(own, state)
        for key, value in own.items():
            if key not in ("shapes", "initial", "births", "waiting"):
                _check_alike(value, state[key], key)
        try:
            self._take(state)
        except Exception as error:
            self._take(own)
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"the state is damaged: {error}") from error
        # What was frozen then and trains now is taken up in the next step.
        self._waiting = list(dict.fromkeys([*self._waiting, *(name for name in waiting if name in self.parameters)]))
        for tensors in self.kept.values():
            for name in waiting:
                tensors.pop(name, None)

    def _check_network(self, own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Raises if a state is of another network, or one of its initial distributions is none."""
        for key in ("shapes", "initial", "births"):
            if not isinstance(state[key], Mapping):
                raise TypeError(f"{key} of the state is a {type(state[key]).__name__}; it has to be a dict")
        total = state["total"]
        if isinstance(total, Tensor) and total.ndim == 1 and len(total) != self.replicas:
            raise ValueError(f"the state has {len(total)} replicas, the network {self.replicas}")
        for name, shape in state["shapes"].items():
            if not isinstance(shape, list | tuple) or not all(type(size) is int for size in shape):
                raise TypeError(f"shapes.{name} of the state is no list of whole numbers")
        shapes = {name: list(shape) for name, shape in state["shapes"].items()}
        differing = {name for name in {**own["shapes"], **shapes} if own["shapes"].get(name) != shapes.get(name)}
        differing |= set(state["initial"]) ^ set(self.distributions)
        # What is frozen now may have trained then, or not have been known; it is as it is now.
        differing -= {name for name, p in self.model.named_parameters() if not p.requires_grad}
        if differing:
            raise ValueError(
                f"the state is of another network: the two differ in {', '.join(sorted(map(str, differing)))}"
            )
        for name, births in state["births"].items():
            if name not in self.parameters:
                raise ValueError(f"births.{name} of the state is of no parameter of the network")
            whole = torch.empty(self.replicas, *self.blocks[name].whole, dtype=torch.int32, device="meta")
            if not isinstance(births, Tensor) or births.dtype != whole.dtype or births.shape != whole.shape:
                raise TypeError(f"births.{name} of the state is no tensor of int32 of shape {tuple(whole.shape)}")
        for name, saved in state["initial"].items():
            if name not in self.distributions:
                continue
            kinds = str | float | int | Tensor
            if not isinstance(saved, Mapping) or not all(isinstance(value, kinds) for value in saved.values()):
                raise TypeError(f"initial.{name} of the state is no dict of words, numbers and tensors")
            try:
                _check_start(from_dict(saved), own["shapes"][name][self.stacked :], self.replicas)
            except Exception as error:
                raise ValueError(f"initial.{name} of the state is no distribution of finite values: {error}") from error

    def _take(self, state: Mapping[str, Any]) -> None:
        """Takes over all of a state, which may fail on the way."""
        self.steps, self.boundaries, self.misses = (int(state[key]) for key in ("steps", "boundaries", "misses"))
        self._last_step = self.steps
        counts = {"last": self._last, "total": self._total, "skipped": self._skipped}
        restore(counts, {name: torch.as_tensor(state[name]) for name in counts})
        if self._takes_seed:
            restore([self.seed], [_whole_numbers("seed", state["seed"])])
            self._follow_seed()
        self._load(state)
        own = self.distributions.keys()
        self.distributions |= {n: from_dict(state["initial"][n]) for n in state["initial"].keys() & own - self._stated}
        self._new_skips = True

    def close(self) -> None:
        """Takes away all hooks. The network trains on as if the method had never been there."""
        if self.memory is not None and not self._closed:
            self.memory.close()
        self._closed = True

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def stack(self, tensor: Tensor) -> Tensor:
        """Gives a tensor of the network its dimension of replicas.

        Args:
            tensor: a parameter, or a tensor like it.

        Returns:
            [R, ...], a view.
        """

    @abstractmethod
    def _check_usable(self) -> None:
        """Raises a RuntimeError if the method was closed, or the model has got other parameters."""

    def _warn_of_skips(self, stacklevel: int) -> None:
        """Warns the first time that there is something to say; waits for the device if anything was added."""
        if self._warned or not self._new_skips:
            return
        self._new_skips = False
        if bool(self._skipped.any()):
            self._warned = True
            warnings.warn(
                f"{type(self).__name__} left a parameter or layer alone because its values, gradients or features are "
                "infinite or NaN, or because it is a matrix of zeros, which has no direction. An overflow now and then "
                "is usual with a GradScaler; otherwise training diverges. This is said once; .skipped counts how often",
                UserWarning,
                stacklevel=stacklevel,
            )

    def _follow_seed(self) -> None:
        """Makes anew what follows from the seed, after a state brought another."""
        return

    def _take_up(self, names: Collection[str]) -> None:
        """Keeps what is needed of some parameters of which nothing is kept yet."""
        return

    def _public(self, counts: Tensor) -> Tensor:
        return counts.clone() if self.stacked else counts[0].clone()

    def _load(self, state: Mapping[str, Any]) -> None:
        """Takes back the kept tensors, and the ages of what was replaced."""
        if self.memory is not None:
            blocks = {name: self.blocks[name].split(tensor) for name, tensor in state["births"].items()}
            self.memory.restore({n: one.to(self.device) if self.stacked else one[0] for n, one in blocks.items()})
        own = {(kind, name): tensor for kind, tensors in self.kept.items() for name, tensor in tensors.items()}
        saved = {(kind, name): tensor for kind in self.kept for name, tensor in state[kind].items()}
        restore(
            own, {key: self._split(*key, tensor, own[key]) if key in own else tensor for key, tensor in saved.items()}
        )

    def _joined(self, kind: str, name: str, tensor: Tensor) -> Tensor:
        """Makes what is kept of a sharded parameter one tensor; what has another shape is whole on every process."""
        return self.blocks[name].join(tensor) if self._divided(kind, name, tensor) else tensor

    def _split(self, kind: str, name: str, saved: Tensor, own: Tensor) -> Tensor:
        """Takes this process' part of what :meth:`_joined` made."""
        return self.blocks[name].split(saved) if self._divided(kind, name, own) else saved

    def _divided(self, kind: str, name: str, tensor: Tensor) -> bool:
        return kind not in self.kept_whole and tensor.shape[1:] == self.blocks[name].shape


def check_kind(state: Any, name: str, what: str | None = None) -> None:
    """Raises if something is not the state of a method of this name.

    Args:
        state: what was given.
        name: name of the method's class.
        what: how the message names it; None: by that.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"the state is a {type(state).__name__}; it has to be what state_dict() gave")
    method = state.get("method")
    if not isinstance(method, str) or method != name:
        raise ValueError(f"this is the state of {method!s:.60}, not of {what or name}")


_AT_LEAST_0 = ("steps", "boundaries", "misses", "last", "total", "skipped", "born", "schedule", "behind", "since")
_STEPS = 2**32
"""Random numbers are functions of steps below this."""


def _check_start(start: Distribution, shape: Sequence[int], replicas: int) -> None:
    """Raises if a distribution does not give finite values of a parameter of this shape in one network."""
    if isinstance(start, Each):
        if start.which.shape != (replicas,) or not set(start.which.tolist()) <= set(range(len(start.of))):
            raise ValueError("it is of other networks")
        for one in start.of:
            _check_start(one, shape, replicas)
        return
    if isinstance(start, Fixed):
        extremes = start.values
        if list(extremes.shape) != list(shape):
            raise ValueError(f"it has values of shape {tuple(extremes.shape)}, not {tuple(shape)}")
    else:
        extremes = start.quantile(torch.tensor([2.0**-25, 1 - 2.0**-24]))
    if not extremes.is_floating_point() or not extremes.isfinite().all():
        raise ValueError("it gives other values")


def _check_alike(own: Any, saved: Any, path: str) -> None:
    """Raises unless what was saved has the types, keys, lengths, shapes and ranges of what there is now."""

    def wrong(what: str, kind: type[Exception] = ValueError) -> Exception:
        return kind(f"{path or 'the state'}{' of the state' if path else ''} {what}")

    if isinstance(own, Tensor):
        if not isinstance(saved, Tensor):
            raise wrong(f"is a {type(saved).__name__}; it has to be a tensor", TypeError)
        kinds = [(one.is_floating_point(), one.is_complex(), one.dtype == torch.bool) for one in (own, saved)]
        if kinds[0] != kinds[1] or saved.layout != torch.strided or saved.is_meta:
            raise wrong(f"is of {saved.dtype} ({saved.layout}, {saved.device}), not of {own.dtype}", TypeError)
        if own.shape != saved.shape:
            raise wrong(f"is of shape {tuple(saved.shape)}, not {tuple(own.shape)}")
        values = local(saved).to(own.dtype)
        # What starts out infinite, as a threshold that nothing passes, may be so.
        if not bool(values.isfinite().all()) and bool(local(own).isfinite().all()):
            raise wrong("has values that are infinite or NaN")
        if path.split(".")[0] in _AT_LEAST_0 and bool((values < 0).any()):
            raise wrong("has values below 0")
    elif isinstance(own, Mapping):
        if not isinstance(saved, Mapping):
            raise wrong(f"is a {type(saved).__name__}; it has to be a dict", TypeError)
        if path and len(saved) != len(own):
            raise wrong(f"has {len(saved)} entries where {len(own)} are needed; was it saved with other settings?")
        differing = sorted(map(str, {*own} ^ {*saved}))
        if differing:
            raise wrong(f"differs in its keys: {', '.join(differing)}")
        for key, value in own.items():
            if path:
                _check_alike(value, saved[key], f"{path}.{key}")
    elif isinstance(own, list):
        if not isinstance(saved, list | tuple):
            raise wrong(f"is a {type(saved).__name__}; it has to be a list", TypeError)
        if len(own) != len(saved):
            raise wrong(f"has {len(saved)} entries where {len(own)} are needed; was it saved with other settings?")
        for place, (value, other) in enumerate(zip(own, saved, strict=True)):
            _check_alike(value, other, f"{path}.{place}")
    elif type(saved) is not type(own):
        raise wrong(f"is {saved!r:.60}; it has to be of type {type(own).__name__}", TypeError)
    elif isinstance(own, int) and not 0 <= saved < _STEPS:
        raise wrong(f"is {saved}; it has to be at least 0 and below {_STEPS}")


def _whole_numbers(name: str, value: Any) -> Tensor:
    numbers = torch.as_tensor(value)
    if numbers.dtype != torch.int64:
        raise ValueError(f"{name} of the state is {numbers.dtype}, not whole numbers of 64 bits")
    return numbers
