"""A copy of any optimizer that trains small tensors, on which is tried what becomes of what it remembers."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supple.functional.utility import precise
from supple.methods.optimizer_parts import Path, follows, like, members, tensors_of


@dataclass(frozen=True)
class Slot:
    """A state tensor that has an entry for each entry of a parameter.

    Attributes:
        offset, slope: [R]; the state of a new entry of value w in replica r is offset[r] + slope[r] * w.
        copies: whether it is a copy of the weight.
        even: whether it measures the size of gradients: the same for a gradient and its negative.
    """

    offset: Tensor
    slope: Tensor
    copies: bool = False
    even: bool = False


def stand_in(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor, replicas: int, stacked: bool
) -> tuple[torch.optim.Optimizer, Mapping[str, Any], Tensor]:
    """Copies an optimizer onto a small parameter, to be kept without keeping the network.

    Args:
        optimizer: the optimizer.
        group: the group of settings in which the parameter is.
        parameter: one of its parameters.
        replicas: number of networks stacked in it.
        stacked: whether its first dimension counts them.

    Returns:
        (the copy, its group of settings, the small parameter).
    """
    twin = Twin(optimizer, group, parameter, replicas, stacked, parameter.dtype, None, 0, False)
    return twin.optimizer, twin.optimizer.param_groups[0], twin.parameter


class Twin:
    """A copy of an optimizer that trains a small parameter, and a companion, instead of its own."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        group: Mapping[str, Any],
        parameter: Tensor,
        replicas: int,
        stacked: bool,
        dtype: torch.dtype,
        rate: float | None,
        filled: int = 0,
        closure: bool = False,
    ) -> None:
        self.replicas, self._rate, self._closure = replicas, rate, closure
        # Sizes that differ, so that what lies along one dimension does not look like what lies along another.
        sizes = [(7, 5, 3, 2)[min(k, 3)] if size > 1 else 1 for k, size in enumerate(parameter.shape[int(stacked) :])]
        if not sizes or max(sizes) == 1:
            sizes = [*sizes[:-1], 7]
        shape = [*([replicas] if stacked else []), *sizes]
        device = parameter.device
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(shape, generator=generator)
        rows = values.view(replicas, -1) if stacked else values.view(1, -1)
        rows[:, 0], rows[:, 1] = 0, 1
        self.parameter = values.to(device, dtype).requires_grad_()
        self.companion = torch.randn([*shape[:-1], shape[-1] + 4], generator=generator).to(device, dtype)
        self.companion.requires_grad_()
        self.gradient = torch.randn(shape, generator=generator).sign().to(device, dtype)
        self.stacked = stacked
        self._memo: dict[int, Any] = {id(parameter): self.parameter}
        self._own = {id(p) for one in members(optimizer) for g in one.param_groups for p in g["params"]}
        self._group = group
        self._kept: list[Any] = []
        self.optimizer = self._copied(optimizer)
        self._fill(members(optimizer)[:filled], parameter)
        if callable(train := getattr(self.optimizer, "train", None)):
            train()  # what schedule-free optimizers are asked before training

    def step(self, sign: int, number: int = 0) -> None:
        """Takes a step; the gradients depend on the step's number, those of numbers from 0 on only in their sizes."""
        generator = torch.Generator().manual_seed(abs(number))
        size = torch.rand(self.gradient.shape, generator=generator) + 0.5
        if number < 0:
            size *= torch.randn(self.gradient.shape, generator=generator)
        gradient = self.gradient * size.to(self.gradient) * sign

        def closure() -> Tensor:
            self.parameter.grad = gradient.clone()
            self.companion.grad = torch.full_like(self.companion, sign)
            return gradient.new_zeros(())

        closure()
        step: Any = type(self.optimizer).step
        step(self.optimizer, closure) if self._closure else step(self.optimizer)

    def tensors(self) -> dict[Path, Tensor]:
        """What is remembered of the parameter."""
        return tensors_of(self.optimizer, self.parameter)

    def shaped(self, tensor: Tensor) -> Tensor | None:
        """A state tensor in the parameter's shape, if it has one entry for each."""
        return like(tensor, self.parameter)

    def moves(self, mask: Tensor, slots: Mapping[Path, Slot], numbers: int, steps: int) -> tuple[float, Tensor]:
        """The largest change of entries, or of a copy of them, in a step, and how far they come in several."""
        largest, start = 0.0, self.parameter.detach().clone()
        copies = [self.shaped(one) for path, one in self.tensors().items() if path in slots and slots[path].copies]
        moving = [self.parameter, *(one for one in copies if one is not None)]
        for number in range(steps):
            before = [one.detach().clone() for one in moving]
            self.step(1, numbers * (number + 1))
            for one, old in zip(moving, before, strict=True):
                largest = max(largest, float((one.detach() - old)[mask].abs().max()))
        return largest, (self.parameter.detach() - start)[mask]

    def objects(self) -> Iterator[tuple[str, str]]:
        """What is remembered of the parameter that is neither a number, a string, a tensor nor made of these."""
        for one in members(self.optimizer):
            for key, value in one.state.get(self.parameter, {}).items():
                if not isinstance(value, Tensor | int | float | str | tuple | list | dict | type(None) | torch.dtype):
                    yield key, type(value).__name__

    def slots(self) -> dict[Path, Slot]:
        """The state tensors with an entry for each entry, as functions of its value; gradients have been 0."""
        value = precise(self.parameter.detach().reshape(self.replicas, -1))
        found = {}
        for path, tensor in self.tensors().items():
            state = like(tensor, self.parameter)
            if state is None or not state.is_floating_point():
                continue
            # Some optimizers move the parameter even with a gradient of zero (ASGD by its lambd), and state with it.
            rows = precise(state.detach().reshape(self.replicas, -1))
            gap = value[:, 1] - value[:, 0]
            # Others (FTRL) set it to the same value whatever it was.
            slope = torch.where(gap == 0, 0, (rows[:, 1] - rows[:, 0]) / gap)
            offset = rows[:, 0] - slope * value[:, 0]
            copies = bool((slope - 1).abs().max() < 0.02)
            found[path] = Slot(offset.to(state.dtype), slope.to(state.dtype), copies)
        return found

    def replace(self, mask: Tensor, value: Tensor, mode: str, slots: Mapping[Path, Slot]) -> None:
        """Replaces entries, and what is remembered of them, as a method does."""
        with torch.no_grad():
            old, new = self.parameter.detach().clone(), torch.where(mask, value, self.parameter)
            self.parameter.copy_(new)
            for path, tensor in self.tensors().items():
                state = like(tensor, self.parameter)
                slot = slots.get(path)
                if state is None or slot is None or (mode in ("keep", "shift") and not slot.copies):
                    continue
                if mode == "shift":
                    state.add_(new - old)
                    continue
                lead = (-1,) + (1,) * (new.ndim - 1) if self.stacked else (1,) * new.ndim
                fresh = slot.offset.view(lead) + slot.slope.view(lead) * new
                if mode == "mean" and slot.even:
                    fresh = state[~mask].mean()
                state.copy_(torch.where(mask, fresh, state))

    def _copied(self, value: Any) -> Any:
        """Copies an optimizer and everything it is made of; what is neither container nor tensor stays the same."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        new: Any
        if isinstance(value, torch.optim.Optimizer):
            new = self._memo[id(value)] = object.__new__(type(value))
            # Optimizer.__getstate__, which copy.copy asks, leaves out what a subclass keeps in attributes of its own.
            for name, entry in vars(value).items():
                if name.startswith("_optimizer_"):  # the user's hooks, which belong to the real optimizer only
                    vars(new)[name] = OrderedDict()
                elif name == "state":
                    vars(new)[name] = defaultdict(dict)
                elif name != "step":  # a scheduler has wrapped it
                    vars(new)[name] = self._copied(entry)
            return new
        if isinstance(value, Tensor):
            new = value.detach().clone()
        elif isinstance(value, dict) and isinstance(value.get("params"), list):
            rest = {name: self._copied(entry) for name, entry in value.items() if name != "params"}
            if "weight_decay" in rest:
                rest["weight_decay"] = 0.0
            lr = rest.get("lr")
            if isinstance(lr, Tensor) and self._rate is not None:
                lr.fill_(self._rate)
            elif isinstance(lr, float | int) and (self._rate is not None or lr == 0):  # 0 at the start of a warm-up
                rest["lr"] = 1e-3 if self._rate is None else self._rate
            mine = any(id(one) in self._memo for one in value["params"])
            new = rest | {"params": [self.parameter, self.companion] if mine else []}
        elif isinstance(value, defaultdict):
            new = defaultdict(value.default_factory, {k: self._copied(one) for k, one in value.items()})
        elif isinstance(value, dict):
            new = type(value)({k: self._copied(one) for k, one in value.items()})
        elif isinstance(value, list | tuple) and type(value) in (list, tuple):
            if any(isinstance(one, dict) and one.get("params") is not None for one in value):
                groups = [one for one in value if any(p is q for p in self._mine() for q in one["params"])]
                value = groups or value
            kept = [one for one in value if id(one) not in self._own or id(one) in self._memo]
            new = type(value)(self._copied(one) for one in kept)
        else:
            return value
        self._kept.append(value)  # so that its number is not given to another object
        self._memo[id(value)] = new
        return new

    def _mine(self) -> Iterator[Tensor]:
        return (p for p in self._group["params"] if id(p) in self._memo)

    def _fill(self, real: list[torch.optim.Optimizer], parameter: Tensor) -> None:
        """Makes the state that an optimizer makes when it is made, not at the first step."""
        for new, old in zip(members(self.optimizer), real, strict=False):
            state = getattr(old, "state", {})
            if parameter not in state:
                continue
            made = _made(old, new.param_groups)
            for mine in (self.parameter, self.companion):
                new.state[mine] = made.get(mine) or {
                    key: _translated(one, parameter, mine) for key, one in state[parameter].items()
                }


def _made(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> Mapping[Tensor, dict[str, Any]]:
    """The state that a new optimizer of the same kind has, where one can be made with the settings that are kept."""
    try:
        return type(optimizer)([{**group} for group in groups], **optimizer.defaults).state
    except Exception:
        return {}


def _translated(value: Any, parameter: Tensor, mine: Tensor) -> Any:
    """What a parameter's state is for another parameter, as long as it is a copy or constant."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value.clone() if isinstance(value, Tensor) else value
    if value.shape != parameter.shape:
        raise ValueError("its state has another shape")
    if follows(value, parameter) or torch.equal(value, parameter):
        return mine.detach().clone()
    first = value.flatten()[0]
    return torch.zeros_like(mine) + (first if bool((value == first).all()) else 0)
