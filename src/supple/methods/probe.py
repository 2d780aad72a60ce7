"""What any optimizer remembers of a parameter, found by letting a copy of it train small tensors."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from supple.functional.utility import precise
from supple.methods.ages import RULES, Ages, Rule

Path = tuple[Any, ...]
"""Where a tensor lies: the number of the optimizer in its wrappers, and the keys in its state of a parameter."""

_WARM, _AFTER = 60, 15
"""Steps of a copy before and after entries are replaced: several periods of weights that are copied now and then."""

_TRAINERS = ("accelerate", "lightning", "lightning_fabric", "pytorch_lightning")


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


def unwrapped_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside of what a trainer makes of it.

    Accelerate and Lightning wrap optimizers in classes that keep the real one in an attribute ``optimizer``. Other
    wrappers, such as Lookahead, are optimizers of their own.
    """
    while any(kind.__module__.split(".")[0] in _TRAINERS for kind in type(optimizer).__mro__):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, torch.optim.Optimizer):
            break
        optimizer = inner
    return optimizer


def members(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """An optimizer and those that it is made of."""
    found = [optimizer]
    for one in found:
        for value in _parts(vars(one)):
            if isinstance(value, torch.optim.Optimizer) and not any(value is other for other in found):
                found.append(value)
    return found


def tensors_of(
    optimizer: torch.optim.Optimizer, parameter: Tensor, parts: list[torch.optim.Optimizer] | None = None
) -> dict[Path, Tensor]:
    """Lists the tensors that an optimizer remembers of a parameter, each once.

    Args:
        optimizer: the optimizer.
        parameter: the parameter.
        parts: its members, where they are known.

    Returns:
        Tensors by where they lie.
    """
    found: dict[Path, Tensor] = {}
    for number, one in enumerate(members(optimizer) if parts is None else parts):
        state = getattr(one, "state", {})
        for path, tensor in _walk(state.get(parameter, {}), (number,)):
            if not any(tensor is other for other in found.values()):
                found[path] = tensor
    return found


def like(tensor: Tensor, parameter: Tensor) -> Tensor | None:
    """A state tensor in its parameter's shape, a view; None if it has not one entry for each of its entries."""
    if tensor.shape == parameter.shape:
        return tensor
    flat = tensor.ndim == 1 and tensor.numel() == parameter.numel() and tensor.numel() > 1
    return tensor.view(parameter.shape) if flat and type(tensor) is Tensor else None


def held_aside(optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """The tensors in attributes of an optimizer's own, with their names: not parameters, state or settings."""
    own = {id(p) for one in members(optimizer) for group in one.param_groups for p in group["params"]}
    found = []
    for one in members(optimizer):
        for name, value in vars(one).items():
            if name in ("state", "param_groups", "defaults", "_broadcast"):
                continue
            for path, tensor in _walk(value, (name,)):
                if id(tensor) not in own:
                    found.append((str(path[0]), tensor))
    return found


def follows(tensor: Tensor, parameter: Tensor) -> bool:
    """Whether a tensor is a copy of a parameter, also one that lags behind."""
    if tensor.numel() != parameter.numel() or not tensor.is_floating_point():
        return False
    a, b = tensor.detach().double().flatten(), parameter.detach().double().flatten().to(tensor.device)
    return bool(b.min() < b.max()) and bool((a - b).norm() < 0.5 * b.norm())


MODES = ("keep", "fresh", "mean", "shift")
"""What can become of what is remembered of an entry that gets another value: it stays, but for copies of the weight; it
becomes that of a new entry; the same, but gradients' sizes become the mean of the other entries'; it stays, and copies
of the weight move by as much as the weight."""


class Probe:
    """Finds out what an optimizer remembers of parameters of one kind, and what becomes of entries that are replaced.

    Args:
        optimizer: the optimizer; neither it nor its parameters and state are touched.
        group: the group of settings in which the parameter is.
        parameter: one of the parameters.
        replicas: number of networks stacked in it.
        stacked: whether its first dimension counts them.

    Attributes:
        slots: the tensors that have an entry for each entry of a parameter.
        others: names and shapes of what is remembered in another way.
        failure: why no copy of the optimizer can take a step, or nothing.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        group: Mapping[str, Any],
        parameter: Tensor,
        replicas: int,
        stacked: bool,
    ) -> None:
        self.device = parameter.device
        self._what: tuple[Any, ...] = (optimizer, group, parameter, replicas, stacked)
        self._dtype = parameter.dtype
        self._how: dict[str, Any] = {}
        self._rule: Rule | bool | None = False
        self._harm: dict[tuple[str, bool], str] = {}
        self.slots: dict[Path, Slot] = {}
        self.others: list[str] = []
        self.failure = ""
        # In double precision, where the device and the optimizer have it.
        self._exact = torch.float64
        for filled, closure in ((0, False), (1, False), (99, False), (0, True)):
            self._how = {"filled": filled, "closure": closure}
            try:
                self._look()
            except Exception as error:
                self.failure = self.failure or f"{type(error).__name__}: {error}"
            else:
                self.failure = ""
                break
        try:
            self._twin().step(1)
        except Exception:
            self._exact = torch.float32

    def _look(self) -> None:
        still, up, down = (self._twin(self._dtype, None) for _ in range(3))
        still.step(0)
        new = still.slots()
        for _ in range(1, _AFTER):
            still.step(0)
        later = still.slots()
        for number in range(_AFTER):
            up.step(1, number)
            down.step(-1, number)
        tensors, others = up.tensors(), [f"{key!r}, a {kind}" for key, kind in up.objects()]
        for path, tensor in tensors.items():
            if tensor.numel() > 1 and (like(tensor, up.parameter) is None or path not in later):
                others.append(f"{path[1]!r} in shape {tuple(tensor.shape)}")
        self.others = [*dict.fromkeys(others)]
        for path, slot in later.items():
            a, b, c = (one.tensors().get(path) for one in (up, down, still))
            even = a is not None and b is not None and c is not None and not torch.allclose(a, c)
            if even and a is not None and b is not None:
                even = torch.allclose(a, b, rtol=1e-2, atol=0) and not slot.slope.any()
            self.slots[path] = replace(new.get(path, slot), copies=slot.copies, even=even)

    def _twin(self, dtype: torch.dtype | None = None, rate: float | None = 0.05) -> _Twin:
        optimizer, group, parameter, replicas, stacked = self._what
        return _Twin(optimizer, group, parameter, replicas, stacked, dtype or self._exact, rate, **self._how)

    def new(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor) -> dict[Path, Slot]:
        """What an entry of a parameter gets from an optimizer of this kind with the settings that it has now."""
        replicas, stacked = self._what[3:]
        return self._given(_Twin(optimizer, group, parameter, replicas, stacked, self._dtype, None, **self._how))

    def _at_hand(self) -> dict[Path, Slot]:
        """The same for the twins that are tried."""
        return self._given(self._twin())

    def _given(self, still: _Twin) -> dict[Path, Slot]:
        still.step(0)
        found = still.slots()
        return {
            path: replace(slot, offset=found[path].offset, slope=found[path].slope) if path in found else slot
            for path, slot in self.slots.items()
        }

    @property
    def rule(self) -> Rule | None:
        """How updates follow from an entry's state and age; None where the age does not matter or it is not known."""
        if isinstance(self._rule, bool):
            self._rule = next((rule for rule in RULES if self._fits(rule)), None)
        return self._rule

    def harm(self, mode: str, gentle: bool = False) -> str:
        """What becomes of replaced entries: thrown further than others, or taken back; nothing if all is well.

        Args:
            mode: what is done with what is remembered of them.
            gentle: whether they may move no further than old entries; else as far as those of a new optimizer.

        Returns:
            What harm is done, to go on after "it".
        """
        if mode == "fresh" and self.rule is not None:
            return ""
        key = (mode, gentle)
        if key not in self._harm:
            self._harm[key] = self._tried(mode, 1, gentle)
            if not self._harm[key] and mode in ("fresh", "mean"):
                self._harm[key] = self._tried(mode, -1, gentle)
        return self._harm[key]

    def _tried(self, mode: str, numbers: int, gentle: bool) -> str:
        """Replaces every other entry; with steps of these numbers, see :meth:`_Twin.step`."""
        try:
            new, control, changed = (self._twin() for _ in range(3))
            start = control.parameter.detach().clone()
            for number in range(_WARM):
                control.step(1, numbers * (number + 1))
                changed.step(1, numbers * (number + 1))
            mask = torch.arange(start.numel(), device=self.device).view_as(start) % 2 == 1
            distance = max(1.0, float((control.parameter.detach() - start).abs().max()))
            slots = self._at_hand()
            changed.replace(mask, control.parameter.detach() + distance, mode, slots)
            thrown, came = changed.moves(mask, slots, numbers)
            usual, goes = control.moves(mask, slots, numbers)
            first, _ = new.moves(mask, slots, numbers)
        except Exception as error:
            return "" if mode in ("keep", "shift") else f"cannot be tried ({error})"
        if not bool(goes.isfinite().all()):
            return ""  # the optimizer itself cannot train the small parameter, and nothing is known
        if mode in ("keep", "shift"):
            away = float((came - goes).abs().max())
            return "takes them back towards their old values" if not away < 0.3 * distance else ""
        if not thrown <= 1.3 * (usual if gentle else max(usual, first)) + 1e-12:
            return f"moves them by up to {thrown / max(usual, 1e-12):.1f} times the usual update"
        return ""

    def _fits(self, rule: Rule) -> bool:
        """Whether a rule says how updates follow from state and age, by comparison with a new optimizer."""
        try:
            old, new = self._twin(), self._twin()
            # Gradients of all sizes and signs, so that it shows where eps enters.
            for one in (old, new):
                sizes = torch.logspace(-9, 0, one.gradient.numel(), device=self.device)
                one.gradient = sizes.view_as(one.gradient).to(one.gradient.dtype)
            start = new.parameter.detach().clone()
            for number in range(_WARM):
                old.step(1, -1 - number)
            ages = Ages(members(old.optimizer))
            if ages.remembered(old.parameter, rule) is None:
                return False
            old.replace(torch.ones_like(start, dtype=torch.bool), start, "fresh", self._at_hand())
            with torch.no_grad():
                births, step = ages.mark(old.parameter, rule)
                births.copy_(torch.as_tensor(step).expand_as(births))
            for number in range(_AFTER):
                old.step(1, -100 - number)
                new.step(1, -100 - number)
                with torch.no_grad():
                    ages.correct()
            a, b = old.parameter.detach() - start, new.parameter.detach() - start
            return bool(b.any()) and bool(((a - b).abs() <= 1e-3 * b.abs() + 1e-5).all())
        except Exception:
            return False


def stand_in(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor, replicas: int, stacked: bool
) -> tuple[torch.optim.Optimizer, Mapping[str, Any], Tensor]:
    """A copy of an optimizer on a small parameter, to be kept without keeping the network."""
    twin = _Twin(optimizer, group, parameter, replicas, stacked, parameter.dtype, None, 0, False)
    return twin.optimizer, twin.optimizer.param_groups[0], twin.parameter


class _Twin:
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

    def moves(self, mask: Tensor, slots: Mapping[Path, Slot], numbers: int) -> tuple[float, Tensor]:
        """The largest change of entries, or of a copy of them, in a step, and how far they come in several."""
        largest, start = 0.0, self.parameter.detach().clone()
        copies = [self.shaped(one) for path, one in self.tensors().items() if path in slots and slots[path].copies]
        moving = [self.parameter, *(one for one in copies if one is not None)]
        for number in range(_AFTER):
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
            for mine in (self.parameter, self.companion):
                if parameter in state:
                    new.state[mine] = {key: _translated(one, parameter, mine) for key, one in state[parameter].items()}


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


def _parts(value: Any) -> Iterator[Any]:
    for one in value.values() if isinstance(value, Mapping) else value:
        yield one
        if isinstance(one, list | tuple | dict) and not isinstance(one, defaultdict):
            yield from _parts(one)


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _walk(one, (*path, key))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _walk(one, (*path, number))
