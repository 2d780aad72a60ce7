"""What every method has in common: the contract, settings a replica, counts, and state."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.functional.initial import Distribution, from_dict, to_dict
from supple.functional.sharding import block_of, is_sharded, local
from supple.methods.checks import Setting, check_arguments, choice, in_range, one_a_replica
from supple.methods.chosen_parameters import Selectors, chosen_parameters
from supple.methods.counts import Counts, Reinitialized, Skips
from supple.methods.drawing import New
from supple.methods.features import FeatureReader
from supple.methods.optimizer_state import FreshState
from supple.methods.places import Places
from supple.methods.wrapping import unwrapped_optimizer
from supple.methods.writing import write
from supple.structure.initial import initial_distributions
from supple.structure.overrides import Overrides
from supple.structure.stacked import Stacked
from supple.structure.wrapping import unwrapped


@dataclass(frozen=True)
class About:
    """What studies, reports and the documentation need to know of a method; stated in its class as ``about``.

    Args:
        name: as study files name it, such as "swr".
        label: as figures and tables name it, such as "SWR".
        title: its name in full.
        colour: of its lines on a light background, as "#rrggbb".
        dark: the same on a dark background.
        strength: the settings that switch it off where they are all 0.
        source: where it is from: paper and section.
        common: settings that are numbers and yet the same for all replicas of one population.
    """

    name: str
    label: str
    title: str
    colour: str
    dark: str
    strength: tuple[str, ...]
    source: str
    common: tuple[str, ...] = ()


class Method(ABC):
    """A method that acts on a network after each training step.

    Call :meth:`step` after ``optimizer.step()`` and before the gradients are cleared. The network is an ordinary
    module, which is a population of one, or a :class:`supple.structure.Stacked` one, whose settings and seeds may
    differ by replica. Its parameters may be sharded by ``torch.distributed.fsdp.fully_shard``; then every process makes
    the same method and calls everything that it calls, together.

    Args:
        model: the network; what ``torch.compile`` or ``DistributedDataParallel`` made of it stands for it.
        optimizer: its optimizer; needed where ``optimizer_state="fresh"``.
        include: which parameters it acts on: a name or pattern over names, a class of module, a function of name and
            parameter, or several of these; None: all that train.
        exclude: which of them it does not act on.
        optimizer_state: "keep" leaves the optimizer's state of reinitialized entries as it is; "fresh" sets it to what
            the optimizer gives a new entry.
        seed: seed of the method's random numbers, or one a replica; None: the stacked network's own seeds, else 0.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a setting is out of range, or the optimizer is another model's; the message names it.
    """

    about: ClassVar[About]

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        include: Selectors | None = None,
        exclude: Selectors | None = None,
        optimizer_state: Literal["keep", "fresh"] = "keep",
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        check_arguments(model, optimizer)
        model, self._data_parallel = unwrapped(model)
        self.model = model
        self.optimizer = optimizer = None if optimizer is None else unwrapped_optimizer(optimizer)
        self.stacked = isinstance(model, Stacked)
        self.replicas = model.replicas if isinstance(model, Stacked) else 1
        self.parameters = chosen_parameters(model, include, exclude)
        self.sharded = any(map(is_sharded, self.parameters.values()))
        if self.sharded and self.stacked:
            raise ValueError("a stacked network cannot be sharded; give each process replicas of its own instead")
        # Of one network's parameter each.
        self.blocks = {name: block_of(p.detach()[0] if self.stacked else p) for name, p in self.parameters.items()}
        self._places = Places(model, self.parameters)
        self.device = next(iter(self.parameters.values())).device
        if seed is None:
            seed = model.seeds if isinstance(model, Stacked) else 0
        seeds = one_a_replica("seed", seed, self.replicas if self.stacked else None, "whole number")
        if seeds.is_floating_point():
            raise TypeError(f"seed is {seed!r}; it has to be a whole number")
        self.seed = seeds.to(self.device, torch.int64).expand(self.replicas)
        given = {"include": include, "exclude": exclude}
        self.settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        choice("optimizer_state", optimizer_state, ("keep", "fresh"))
        self.fresh_state: FreshState | None = None
        if optimizer_state == "fresh":
            if optimizer is None:
                raise ValueError('optimizer_state="fresh" needs the optimizer: pass it as the second argument')
            self.fresh_state = FreshState(optimizer, self.replicas, self.parameters)
            self.settings["optimizer_state"] = optimizer_state
        self.distributions: dict[str, Distribution] = {}
        self.fixed_rows: dict[str, int] = {}
        self._stated: set[str] = set()
        self.steps = 0
        self._counts = Counts(self.replicas, self.device)
        self._skips = Skips(type(self).__name__, self.replicas, self.device)
        self._closed = False

    # What a method writes.

    @abstractmethod
    def _act(self) -> None:
        """Acts on the network; ``self.steps`` already counts this step."""

    def _state(self) -> dict[str, Any]:
        """What has to be saved beside the counts: plain numbers, strings, lists, dicts and tensors."""
        return {}

    def _load_state(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`_state` gave."""
        return

    def _optional(self) -> dict[str, Any]:
        """What stands for parts of a state that a saved one may lack."""
        return {"skipped": torch.zeros_like(self._skips.total)}

    def _release(self) -> None:
        """Takes away what the method attached to the model."""
        return

    # What a program asks that computes gradients by itself.

    def gradients_needed(self) -> bool:
        """Whether the next :meth:`step` reads gradients; a method that seldom does says when, and trains faster."""
        return True

    def due_next(self) -> Tensor:
        """In which replicas the next :meth:`step` may reinitialize something; known on the host.

        Returns:
            bool [R] on the CPU.
        """
        return torch.ones(self.replicas, dtype=torch.bool)

    def reinitializes(self) -> Tensor:
        """In which replicas it ever reinitializes something; in the others its strength is 0.

        Returns:
            bool [R] on the CPU.
        """
        return torch.ones(self.replicas, dtype=torch.bool)

    def readers_needed(self) -> list[FeatureReader]:
        """What has to read the features of the forward pass before the next :meth:`step`.

        Hooks do that where the model is called; a program that computes the forward pass in another way calls
        :meth:`FeatureReader.record`.
        """
        return []

    # What everybody uses.

    @torch.no_grad()
    def step(self) -> None:
        """Acts on the network once; after ``optimizer.step()``, before ``zero_grad()``.

        Raises:
            RuntimeError: if the method was closed, the model has got other parameters, or what it needs of the training
                step is missing.

        Warns:
            UserWarning: the first time that something was skipped, on a CPU; elsewhere :attr:`skipped` says so when it
                is read.
        """
        self._check_usable()
        self.steps += 1
        try:
            self._act()
        except BaseException:
            # A step that failed may be tried again.
            self.steps -= 1
            raise
        if self.device.type == "cpu":
            self._skips.warn(stacklevel=4)

    @property
    def reinitialized(self) -> Reinitialized:
        """How many entries (or hidden units) the last step and all steps so far reinitialized, as tensors."""
        counts = self._counts.at(self.steps)
        return counts if self.stacked else Reinitialized(counts.last[0], counts.total[0])

    @property
    def skipped(self) -> Tensor:
        """How often a parameter (or layer of hidden units) was left alone because its utilities were not all finite.

        Gradients or features that are infinite or NaN, as after an overflow, say nothing about usefulness. int64, a
        scalar, or [R] for a stacked network. Reading it warns once if there were any.
        """
        self._skips.warn(stacklevel=3)
        return self._skips.total.clone() if self.stacked else self._skips.total[0].clone()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped: numbers, strings, lists, dicts and tensors; no settings.

        The initial distributions are part of it, since they cannot be told from trained weights.
        """
        return {
            "method": type(self).__name__,
            "steps": self.steps,
            **self._counts.at(self.steps)._asdict(),
            "skipped": self._skips.total.clone(),
            "shapes": {name: list(parameter.shape) for name, parameter in self.parameters.items()},
            "initial": {name: to_dict(distribution) for name, distribution in self.distributions.items()},
            **self._state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        The settings stay those this method was made with, and so do initial distributions that the user stated.

        Args:
            state: the state.

        Raises:
            ValueError: if it is another method's state, or of another network; nothing is changed then.
            RuntimeError: if the method was closed, or the model's parameters are no longer those it was made for.
        """
        self._check_usable()
        if state.get("method") != type(self).__name__:
            raise ValueError(f"this is the state of {state.get('method')}, not of {type(self).__name__}")
        own = self.state_dict()
        state = self._optional() | dict(state)
        missing = [key for key in own if key not in state]
        if missing:
            raise ValueError(f"the state is not complete; it has no {', '.join(missing)}")
        if len(state["total"]) != self.replicas:
            raise ValueError(f"the state has {len(state['total'])} replicas, the network {self.replicas}")
        shapes, theirs = own["shapes"], state["shapes"]
        differing = {name for name in {**shapes, **theirs} if shapes.get(name) != theirs.get(name)}
        differing |= set(state["initial"]) ^ set(self.distributions)
        if differing:
            raise ValueError(f"the state is of another network: the two differ in {', '.join(sorted(differing))}")
        saved = {name: from_dict(entry) for name, entry in state["initial"].items() if name not in self._stated}
        before, self.steps = self.steps, int(state["steps"])
        try:
            self._load_state(state)
        except BaseException:
            self.steps = before
            raise
        self.distributions |= saved
        self._counts.restore(self.steps, state["last"], state["total"])
        self._skips.restore(state["skipped"])

    def close(self) -> None:
        """Takes away all hooks. The network trains on as if the method had never been there."""
        if not self._closed:
            self._release()
            self._closed = True

    def __enter__(self) -> Method:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={_show(value)}' for name, value in self.settings.items())})"

    # What methods share.

    def _check_usable(self) -> None:
        """Raises a RuntimeError if the method was closed, or the model has got other parameters."""
        if self._closed:
            raise RuntimeError(f"{type(self).__name__} was closed; make a new one to go on")
        self._places.check()

    def _setting(
        self,
        name: str,
        value: Setting,
        low: float,
        high: float = float("inf"),
        *,
        whole: bool = False,
    ) -> Tensor:
        """Checks a numeric setting and keeps it for ``repr``.

        Args:
            name: name of the setting, for the message.
            value: a number, or one a replica.
            low: the smallest value allowed.
            high: the largest value allowed.
            whole: whether it has to be a whole number.

        Returns:
            float64 [R] on the CPU (int64 where ``whole``).
        """
        self.settings[name] = value
        numbers = one_a_replica(name, value, self.replicas if self.stacked else None, "number")
        return in_range(name, numbers, low, high, whole).expand(self.replicas)

    def _take_initial(self, overrides: Overrides | None, names: Iterable[str], only_means: bool = False) -> None:
        """Works out the initial distributions of the named parameters.

        Args:
            overrides: what the user states.
            names: the parameters.
            only_means: whether only the means matter, which are known of trained parameters too.

        Raises:
            ValueError: if one of them is not known.
        """
        with warnings.catch_warnings():
            if only_means:
                warnings.filterwarnings("ignore", "The model looks trained already")
            initial = initial_distributions(self.model, overrides, optimizer=self.optimizer)
        self.distributions = initial.require_means(names) if only_means else initial.require(names)
        self._stated = {name for name, entry in initial.items() if entry.source == "override"}
        self.fixed_rows = {name: entry.fixed_row for name, entry in initial.items() if entry.fixed_row is not None}

    def _rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the network with the replicas in front: itself if stacked, else a view with a leading 1.

        Of a sharded tensor, the block that this process holds.
        """
        return local(tensor) if self.stacked else local(tensor).unsqueeze(0)

    def _gradient(self, name: str) -> Tensor:
        """The gradient of a parameter with the replicas in front.

        Raises:
            RuntimeError: if there is none, or it is sparse.
        """
        gradient = self.parameters[name].grad
        if gradient is None:
            raise RuntimeError(
                f"{type(self).__name__} needs the gradient of {name}, which is None. Call step() after backward() and "
                "before optimizer.zero_grad()"
            )
        if gradient.layout != torch.strided:
            raise RuntimeError(
                f"the gradient of {name} is sparse, which {type(self).__name__} cannot read; make the layer with "
                "sparse=False, leave it out with exclude=... where the method has it, or choose a utility that reads "
                "no gradients"
            )
        placements = self.blocks[name].placements
        if placements and gradient.placements != placements:  # type: ignore[attr-defined]
            gradient = gradient.redistribute(placements=placements)  # type: ignore[attr-defined]
        return self._rows(gradient)

    def _reinitialize(self, name: str, rows: slice | Tensor, chosen: Tensor, new: New) -> None:
        """Gives chosen entries of a parameter new values, and fresh optimizer state where asked for, and counts them.

        A parameter that has been frozen stays as it is. The row of an embedding that stands for padding stays as it is.

        Args:
            name: the parameter.
            rows: which replicas.
            chosen: bool [rows, ...], which of their entries; written into.
            new: [rows, ...], a number, or a draw.
        """
        parameter, block = self.parameters[name], self.blocks[name]
        if not parameter.requires_grad:
            return
        if name in self.fixed_rows and 0 <= (row := self.fixed_rows[name] - block.offset[0]) < block.shape[0]:
            chosen[:, row] = False
        number = chosen.reshape(len(chosen), -1).sum(dim=1)
        self._counts.add(self.steps, block.total(number), rows)
        fresh = self._fresh_states(parameter)
        states = [(self._rows(state), offset, slope) for state, offset, slope in fresh]
        write(self._rows(parameter), states, rows, chosen, number, new)

    def _fresh_states(self, parameter: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self.fresh_state.entries(parameter) if self.fresh_state else []

    def _purpose(self, *parts: str) -> int:
        return random.purpose(type(self).__name__, *parts)


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_show, value))}]"
    return value.__name__ if isinstance(value, type) else repr(value)
