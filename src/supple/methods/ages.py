"""Ages of replaced entries of their own, for optimizers of the Adam family, which count steps by the tensor."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from supple.functional import random
from supple.functional.rounding import HALF, add_by_chance
from supple.functional.sharding import block_of, is_sharded, local
from supple.functional.utility import precise
from supple.methods.optimizer_parts import GroupsByParameter

OLD = -(1 << 30)
"""The time of birth of an entry that was never replaced."""

_NEGLIGIBLE = 1e-7
"""What is left of a bias correction at the age from which an entry counts as old; half of it is left of the update."""

_LONGEST = 100_000

_MANY, _AT_ONCE = 4, 1 << 15
"""From what part of a parameter's entries on young ones are many, so that all are worked on, and how many at a time."""


class Factors(NamedTuple):
    """An update is -lr * (first * m + gradient * g) / (second * root of v + eps), with these functions of the age."""

    first: Tensor
    gradient: Tensor
    second: Tensor
    eps: Tensor


def _ramp(beta: Any, age: Tensor) -> Tensor:
    """1 - beta^age."""
    beta = float(beta)
    return -torch.expm1(age * math.log(beta)) if beta > 0 else torch.ones_like(age)


def _adam(group: Mapping[str, Any], age: Tensor) -> Factors:
    first, second = (_ramp(beta, age) for beta in group["betas"])
    return Factors(1 / first, torch.zeros_like(age), second.rsqrt(), torch.full_like(age, group["eps"]))


def _adam_early_eps(group: Mapping[str, Any], age: Tensor) -> Factors:
    first, second = (_ramp(beta, age) for beta in group["betas"])
    return Factors(1 / first, torch.zeros_like(age), second.rsqrt(), group["eps"] * second.rsqrt())


def _radam(group: Mapping[str, Any], age: Tensor) -> Factors:
    first, second = (_ramp(beta, age) for beta in group["betas"])
    longest = 2 / (1 - float(group["betas"][1])) - 1
    length = longest - 2 * age * (1 - second) / second
    adaptive = length > 5
    clamped = length.clamp(min=5)
    rectified = ((clamped - 4) * (clamped - 2) * longest / ((longest - 4) * (longest - 2) * clamped)).sqrt()
    return Factors(
        torch.where(adaptive, rectified, 1) / first,
        torch.zeros_like(age),
        torch.where(adaptive, second.rsqrt(), 0),
        torch.where(adaptive, group["eps"] * second.rsqrt(), 1),
    )


def _nadam(group: Mapping[str, Any], age: Tensor) -> Factors:
    beta, decay = float(group["betas"][0]), float(group["momentum_decay"])

    def mu(step: Tensor) -> Tensor:
        return beta * (1 - 0.5 * 0.96 ** (step * decay))

    # After so many steps the product is 0 in any precision.
    steps = torch.arange(1, 20_001, dtype=age.dtype, device=age.device)
    product = torch.cat([steps.new_ones(1), mu(steps).cumprod(0)])[age.long().clamp(0, 20_000)]
    return Factors(
        mu(age + 1) / (1 - product * mu(age + 1)),
        (1 - mu(age)) / (1 - product),
        _ramp(group["betas"][1], age).rsqrt(),
        torch.full_like(age, group["eps"]),
    )


def _adamax(group: Mapping[str, Any], age: Tensor) -> Factors:
    zero = torch.zeros_like(age)
    return Factors(1 / _ramp(group["betas"][0], age), zero, zero + 1, zero)


@dataclass(frozen=True)
class Rule:
    """How the updates of an optimizer follow from what it remembers of an entry and the entry's age in steps.

    Args:
        factors: the update's factors as functions of the age.
        varying: which of them depend on the age.
        settings: what a group of such an optimizer has.
        second: name of the second moment.
        root: its power in the denominator.
    """

    factors: Callable[[Mapping[str, Any], Tensor], Factors]
    varying: tuple[int, ...]
    settings: tuple[str, ...] = ("betas", "eps")
    second: str = "exp_avg_sq"
    root: float = 0.5

    def remembered(
        self, groups: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], parameter: Tensor
    ) -> tuple[Mapping[str, Any], dict[str, Any], Any] | None:
        """Picks out what the rule reads of what an optimizer remembers of a parameter.

        Args:
            groups: for each optimizer that has the parameter, its settings and what it remembers.
            parameter: the parameter.

        Returns:
            (settings, moments, how many steps the parameter has seen); None before any, or where something is missing.
        """
        for group, state in groups:
            if "exp_avg" not in state or self.second not in state:
                continue
            step = state["step"] if "step" in state else group.get("step")
            single = step.numel() == 1 if isinstance(step, Tensor) else isinstance(step, int | float)
            if not single or not all(name in group for name in self.settings) or len(group["betas"]) != 2:
                return None
            moments = {"exp_avg": state["exp_avg"], "second": state.get("max_exp_avg_sq", state[self.second])}
            if self.factors is _nadam:
                moments["grad"] = parameter.grad
            return group, moments, step
        return None

    def difference(
        self,
        group: Mapping[str, Any],
        state: Mapping[str, Tensor],
        value: Tensor,
        table: Tensor,
        age: Tensor,
        rate: Any,
    ) -> Tensor:
        """The update that entries of their own age get, less the one that the optimizer gave them.

        Args:
            group: the settings.
            state: "exp_avg", "second" and, where the rule reads it, "grad" of the entries.
            value: their values, after the optimizer's step.
            table: what :meth:`at` gives.
            age: how many steps each of them has seen; where it is none or more than the table has, the difference is 0.
            rate: the step size.

        Returns:
            Of the same shape.
        """
        first, root = precise(state["exp_avg"]), precise(state["second"])
        root = root.sqrt() if self.root == 0.5 else root
        index = age.clamp(0, table.shape[1] - 1).to(torch.int32).reshape(-1)
        real = Factors(*table[:, 0])
        own = Factors(
            *(row.index_select(0, index).view_as(age) if k in self.varying else row[0] for k, row in enumerate(table))
        )
        given, theirs = real.first * first, own.first * first
        denominator = real.second * root + real.eps
        if self.factors is _nadam:
            gradient = -precise(state["grad"]) if group.get("maximize") else precise(state["grad"])
            decay = group["weight_decay"]
            if decay and not group.get("decoupled_weight_decay"):
                # The gradient has the decay of the value before the step.
                reach = rate * real.gradient / denominator
                before = (precise(value) + rate * (given + real.gradient * gradient) / denominator) / (
                    1 - reach * decay
                )
                gradient = gradient + decay * before
            given, theirs = given + real.gradient * gradient, theirs + own.gradient * gradient
        change = given.div_(denominator).sub_(theirs.div_(root.mul(own.second).add_(own.eps))).mul_(rate)
        # Where nothing was ever remembered, 0 / 0 moves nothing.
        return change.nan_to_num_(0, 0, 0)

    def at(self, group: Mapping[str, Any], table: Tensor, step: Any, dtype: torch.dtype) -> Tensor:
        """A table of factors in whose first and last column, for entries that are not young, are the optimizer's own.

        Args:
            group: the settings.
            table: the factors of all ages.
            step: how many steps the optimizer counts.
            dtype: the type to work in.

        Returns:
            [4, ages].
        """
        real = torch.stack(self.factors(group, torch.as_tensor(step).double().reshape(1)))
        real = real.to(table.device, dtype)
        return torch.cat([real, table[:, 1:].to(dtype), real], dim=1)

    def table(self, group: Mapping[str, Any], device: torch.device) -> Tensor:
        """Works out the factors of all ages from 0 to that from which an entry is old.

        Args:
            group: the settings.
            device: where the table lies.

        Returns:
            float64 [4, ages].
        """
        betas = [float(beta) for beta in group["betas"]]
        relevant = betas[:1] if self.second == "exp_inf" else betas
        longest = max((math.log(_NEGLIGIBLE) / math.log(beta) for beta in relevant if 0 < beta < 1), default=1)
        ages = torch.arange(1, min(_LONGEST, int(longest) + 2), dtype=torch.float64)
        table = torch.stack(self.factors(group, ages))
        return torch.cat([table[:, :1], table], dim=1).to(device)  # of age 0, which is never used, anything


RULES = (
    Rule(_adam, (0, 2)),
    Rule(_adam_early_eps, (0, 2, 3)),
    Rule(_radam, (0, 2, 3)),
    Rule(_nadam, (0, 1, 2), ("betas", "eps", "momentum_decay")),
    Rule(_adamax, (0,), second="exp_inf", root=1),
)


class Ages:
    """The ages of entries that were replaced, and what their updates have to be corrected by.

    An optimizer of the Adam family divides its moments by 1 - beta^t with t the steps of the whole tensor. For an entry
    whose moments began at 0 later that is wrong: with t in the thousands it is hurled by up to 6.6 times the step size
    for many steps. After each step of the optimizer the entries that are young get the difference to what they would
    have got with their own age, in half precision rounded by chance, so that it is right on average. Where only few are
    young, on a CPU, only they are looked at.

    Args:
        members: the optimizer, and those that it is made of.

    Attributes:
        born: by parameter the step of the optimizer after which each entry was born, int32 of its shape.
        users: the methods that replace entries.
        hook: what makes the optimizer's steps be followed by the correction.
    """

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        self._members = [*map(weakref.proxy, members)]
        self.born: dict[Tensor, Tensor] = {}
        self.users: set[int] = set()
        self.hook: Any = None
        self._groups = GroupsByParameter()
        self._rules: dict[Tensor, Rule] = {}
        self._seen: dict[Tensor, Any] = {}
        self._chances: dict[Tensor, tuple[Tensor, str]] = {}
        self._young: dict[Tensor, _Young] = {}
        self._tables: dict[Any, Tensor] = {}

    def remembered(self, parameter: Tensor, rule: Rule) -> tuple[Mapping[str, Any], dict[str, Any], Any] | None:
        """What a rule reads of what the optimizer remembers of a parameter: see :meth:`Rule.remembered`.

        Args:
            parameter: the parameter.
            rule: the rule.

        Returns:
            (settings, moments, how many steps the parameter has seen); None before any, or where something is missing.
        """
        groups = self._groups.of(self._members, parameter)
        places = [(group, self._members[number].state.get(parameter, {})) for number, group in groups]
        return rule.remembered(places, parameter)

    def mark(
        self, parameter: Tensor, rule: Rule, index: Tensor | None = None, chances: tuple[Tensor, str] | None = None
    ) -> tuple[Tensor, Any]:
        """Says where the births of a parameter's entries are to be written, and what, for those replaced now.

        Args:
            parameter: the parameter.
            rule: the rule of its optimizer.
            index: row-major indices of the entries, or of more than these; None: not known.
            chances: seeds [R] and the parameter's name, of which random numbers for rounding are functions; None: it is
                rounded to the nearest.

        Returns:
            (births, of the parameter's shape; the number of the step); None for the step where there was none yet.
        """
        found = self.remembered(parameter, rule)
        step = None if found is None else found[2]
        if parameter not in self.born:
            self.born[parameter] = torch.full_like(parameter.detach(), OLD, dtype=torch.int32)
            self._young[parameter] = _Young()
        self._rules[parameter] = rule
        if chances is not None:
            self._chances[parameter] = chances
        self._seen[parameter] = step.clone() if isinstance(step, Tensor) else step
        self._young[parameter].replaced.append(index)
        return self.born[parameter], step

    def restore(self, parameter: Tensor, rule: Rule, born: Tensor, chances: tuple[Tensor, str]) -> None:
        """Takes back the births of a parameter's entries.

        Args:
            parameter: the parameter.
            rule: the rule of its optimizer.
            born: what :attr:`born` had, or this process' block of it.
            chances: as for :meth:`mark`.
        """
        local(self.mark(parameter, rule, chances=chances)[0]).copy_(born)
        self._seen.pop(parameter, None)

    def settle(self) -> None:
        """Gives young entries the moments with which the optimizer goes on with them as with all others."""
        for parameter, born in self.born.items():
            rule = self._rules[parameter]
            if (found := self.remembered(parameter, rule)) is None:
                continue
            group, state, step = found
            first, second = local(state["exp_avg"]), local(state["second"])
            table = self._table(rule, group, parameter).to(precise(first).dtype)
            age = torch.as_tensor(step) - local(born)
            own = Factors(*table[:, age.long().clamp(0, table.shape[1] - 1)])
            real = Factors(*(one.to(table) for one in rule.factors(group, torch.as_tensor(step).double())))
            young = (age > 0) & (age < table.shape[1])
            first.mul_(torch.where(young, own.first / real.first, 1).to(first.dtype))
            ratio = torch.where(real.second > 0, own.second / real.second, 1) ** (1 / rule.root)
            second.mul_(torch.where(young, ratio, 1).to(second.dtype))
        self.born.clear()
        self._young.clear()

    @torch.no_grad()
    def correct(self) -> None:
        """Corrects the updates of young entries after a step of the optimizer; without one, nothing."""
        few: dict[Any, tuple[Any, list[Any]]] = {}
        tables: dict[Any, Tensor] = {}
        for parameter, born in self.born.items():
            rule = self._rules[parameter]
            found = self.remembered(parameter, rule)
            if found is None:
                continue
            group, state, step = found
            seen = self._seen.get(parameter)
            known = not isinstance(step, Tensor) or step.device.type == "cpu"
            if known and seen is not None and float(step) == float(seen):
                continue
            self._seen[parameter] = step.clone() if isinstance(step, Tensor) else step
            table = self._table(rule, group, parameter)
            if state.get("grad", born) is None:
                continue
            value, born = local(parameter), local(born)
            state = {name: local(one) for name, one in state.items()}
            kept, flat = precise(state["exp_avg"][:0]).dtype, (value, born, *state.values())
            if not known or any(one.device.type != "cpu" or not one.is_contiguous() for one in flat):
                now = rule.at(group, table, step, kept)
                age = torch.as_tensor(step) - born
                change = rule.difference(group, state, value, now, age, _shaped(group["lr"], value))
                if not known and seen is not None:
                    change = change * (step != seen)
                every = slice(0, value.numel())
                value.copy_(self._sum(parameter, value.flatten(), change.flatten(), every, step).view(value.shape))
                continue
            young = self._young[parameter].few(born.view(-1), int(step), table.shape[1])
            if young is not None and not len(young[0]):
                continue
            key = (rule, id(group), int(step), value.dtype, kept)
            if key not in tables:
                tables[key] = rule.at(group, table, step, kept)
            if young is not None:
                few.setdefault(key, (group, []))[1].append((state, value, young[0], int(step) - young[1], parameter))
                continue
            for first in range(0, value.numel(), _AT_ONCE):
                part = slice(first, min(value.numel(), first + _AT_ONCE))
                ages = int(step) - born.view(-1)[part]
                self._correct_some(key, group, tables[key], [(state, value, part, ages, parameter)])
        for key, (group, parts) in few.items():
            self._correct_some(key, group, tables[key], parts)

    def _correct_some(self, key: Any, group: Mapping[str, Any], table: Tensor, parts: list[Any]) -> None:
        """Corrects entries of parameters of one group in one go: (state, value, which, ages, parameter) of each."""

        def picked(tensors: Sequence[Tensor]) -> Tensor:
            found = [one.view(-1)[part[2]] for one, part in zip(tensors, parts, strict=True)]
            return found[0] if len(found) == 1 else torch.cat(found)

        rule, _, step, *_ = key
        gathered = {name: picked([part[0][name] for part in parts]) for name in parts[0][0]}
        values, rate = picked([part[1] for part in parts]), group["lr"]
        if isinstance(rate, Tensor) and rate.ndim:
            index = [torch.arange(at.start, at.stop) if isinstance(at, slice) else at for _, _, at, *_ in parts]
            rows = [at // (part[1].numel() // len(rate)) for part, at in zip(parts, index, strict=True)]
            rate = rate.detach()[torch.cat(rows)].to(precise(values).dtype)
        ages = [part[3] for part in parts]
        change = rule.difference(group, gathered, values, table, torch.cat(ages), rate)
        sizes = [*map(len, ages)]
        for (_, value, at, _, parameter), old, one in zip(parts, values.split(sizes), change.split(sizes), strict=True):
            value.view(-1)[at] = self._sum(parameter, old, one, at, step)

    def _sum(self, parameter: Tensor, old: Tensor, change: Tensor, at: Tensor | slice, step: Any) -> Tensor:
        """Entries of a parameter, by row-major index, with a change; in half precision rounded by chance."""
        if old.dtype not in HALF or parameter not in self._chances:
            return (old + change).to(old.dtype)
        seed, name = self._chances[parameter]
        at = torch.arange(at.start, at.stop, device=old.device) if isinstance(at, slice) else at
        size = local(parameter).numel() // len(seed)
        index = block_of(parameter).every_index(at.device).flatten()[at] if is_sharded(parameter) else at % size
        numbers = random.uniform_at(seed[at // size], random.purpose("age", name), step, index)
        return add_by_chance(old, change, numbers)

    def _table(self, rule: Rule, group: Mapping[str, Any], parameter: Tensor) -> Tensor:
        settings = [group[name] for name in rule.settings]
        plain = [tuple(map(_plain, one)) if isinstance(one, tuple | list) else _plain(one) for one in settings]
        key = (rule, parameter.device, *plain)
        if key not in self._tables:
            if len(self._tables) > 16:  # a scheduler changes the betas
                self._tables.clear()
            self._tables[key] = rule.table(group, parameter.device)
        return self._tables[key]


@dataclass
class _Young:
    """Which entries of a parameter are young, as far as these are few, on a CPU.

    Attributes:
        replaced: the indices of what was replaced since it was looked at; None for what is not known.
        index: row-major, some perhaps twice; None: they are many.
        births: when they were born.
        looked: the step at which all entries were looked at.
    """

    replaced: list[Tensor | None] = field(default_factory=list)
    index: Tensor | None = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    births: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int32))
    looked: float = math.inf

    def few(self, born: Tensor, step: int, longest: int) -> tuple[Tensor, Tensor] | None:
        """The young entries: their row-major indices, and when they were born; None if they are many."""
        if self.looked == math.inf:
            self.looked = step
        new, self.replaced = self.replaced, []
        stated = [one for one in new if one is not None]
        whole = len(stated) < len(new) or not 0 <= step - self.looked <= longest / 4
        if not whole and stated and self.index is not None:
            self.index = torch.cat([self.index, *stated])
            self.births = born[self.index]
            whole = len(self.index) * _MANY > len(born)
        if whole:
            self.index, self.looked = torch.where(born > step - longest)[0], step
            self.births = born[self.index]
        if self.index is None or len(self.index) * _MANY > len(born):
            self.index, self.births = None, born[:0]
            return None
        return self.index, self.births


def _plain(value: Any) -> Any:
    return (id(value), value._version) if isinstance(value, Tensor) else value


def _shaped(rate: Any, value: Tensor) -> Any:
    """A step size, or one a replica, as what multiplies a tensor."""
    if isinstance(rate, Tensor):
        rate = rate.detach().to(value.device, precise(value[:0] if value.ndim else value).dtype)
        return rate.view(-1, *(1,) * (value.ndim - 1)) if rate.ndim else rate
    return rate


_AGES: weakref.WeakKeyDictionary[torch.optim.Optimizer, Ages] = weakref.WeakKeyDictionary()


def ages_of(optimizer: torch.optim.Optimizer, members: Sequence[torch.optim.Optimizer]) -> Ages:
    """The ages of an optimizer's entries, which all methods on it share, so that an update is corrected once.

    Args:
        optimizer: the optimizer; from now on its steps are followed by the correction.
        members: the optimizer, and those that it is made of.

    Returns:
        The ages.
    """
    if optimizer not in _AGES:
        ages = _AGES[optimizer] = Ages(members)

        def after(*unused: Any) -> None:
            # A compiled step would be compiled anew whenever the number of young entries changes.
            (torch.compiler.disable(ages.correct) if torch.compiler.is_compiling() else ages.correct)()

        ages.hook = optimizer.register_step_post_hook(after)
    return _AGES[optimizer]


def forget_ages(optimizer: torch.optim.Optimizer) -> None:
    """Ends the correction.

    Args:
        optimizer: the optimizer.
    """
    ages = _AGES.pop(optimizer, None)
    if ages is not None:
        ages.hook.remove()
