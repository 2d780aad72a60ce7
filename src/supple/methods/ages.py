"""Ages of replaced entries of their own, for optimizers of the Adam family, which count steps by the tensor."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from supple.functional.sharding import local
from supple.functional.utility import precise

OLD = -(1 << 30)
"""The time of birth of an entry that was never replaced."""

_NEGLIGIBLE = 1e-7
"""What is left of a bias correction at the age from which an entry counts as old; half of it is left of the update."""

_LONGEST = 100_000


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
        settings: what a group of such an optimizer has.
        second: name of the second moment.
        root: its power in the denominator.
    """

    factors: Callable[[Mapping[str, Any], Tensor], Factors]
    settings: tuple[str, ...] = ("betas", "eps")
    second: str = "exp_avg_sq"
    root: float = 0.5

    def applies(self, optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
        """Whether the optimizer remembers what such a rule reads."""
        found = self.remembered([optimizer], parameter)
        return found is not None and len(found[0]["betas"]) == 2

    def remembered(
        self, members: Sequence[torch.optim.Optimizer], parameter: Tensor
    ) -> tuple[Mapping[str, Any], dict[str, Tensor], Any] | None:
        """The settings of a parameter, what is remembered of it, and how many steps it has seen; None before any."""
        for one in members:
            state = one.state.get(parameter, {})
            if "exp_avg" not in state or self.second not in state:
                continue
            for group in one.param_groups:
                if any(parameter is other for other in group["params"]):
                    step = state["step"] if "step" in state else group.get("step")
                    single = step.numel() == 1 if isinstance(step, Tensor) else isinstance(step, int | float)
                    if not single or not all(name in group for name in self.settings):
                        return None
                    second = state.get("max_exp_avg_sq", state[self.second])
                    moments = {"exp_avg": state["exp_avg"], "second": second}
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
        step: Tensor,
        age: Tensor,
        rate: Any,
    ) -> Tensor:
        """The update that entries of their own age get, less the one that the optimizer gave them.

        Args:
            group: the settings.
            state: "exp_avg", "second" and, where the rule reads it, "grad" of the entries.
            value: their values, after the optimizer's step.
            table: the factors of ages up to that from which entries are old.
            step: how many steps the optimizer counts, 0-dimensional.
            age: how many steps each of them has seen; where that is not between 1 and the longest, nothing is added.
            rate: the step size.

        Returns:
            Of the same shape.
        """
        first, root = precise(state["exp_avg"]), precise(state["second"])
        root = root.sqrt() if self.root == 0.5 else root
        own = Factors(*table.to(first.dtype)[:, age.long().clamp(0, table.shape[1] - 1)])
        real = Factors(*(one.to(first.device, first.dtype) for one in self.factors(group, step.double())))
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
        change = rate * (given / denominator - theirs / (own.second * root + own.eps))
        young = (age > 0) & (age < table.shape[1])
        # Where nothing was ever remembered, 0 / 0 moves nothing.
        return torch.where(young & change.isfinite(), change, 0)

    def table(self, group: Mapping[str, Any], device: torch.device) -> Tensor:
        """The factors of all ages from 0 to that from which an entry is old: [4, ages]."""
        betas = [float(beta) for beta in group["betas"]]
        relevant = betas[:1] if self.second == "exp_inf" else betas
        longest = max((math.log(_NEGLIGIBLE) / math.log(beta) for beta in relevant if 0 < beta < 1), default=1)
        ages = torch.arange(1, min(_LONGEST, int(longest) + 2), dtype=torch.float64)
        table = torch.stack(self.factors(group, ages))
        return torch.cat([table[:, :1], table], dim=1).to(device)  # of age 0, which is never used, anything


RULES = (
    Rule(_adam),
    Rule(_adam_early_eps),
    Rule(_radam),
    Rule(_nadam, ("betas", "eps", "momentum_decay")),
    Rule(_adamax, second="exp_inf", root=1),
)


class Ages:
    """The ages of entries that were replaced, and what their updates have to be corrected by.

    An optimizer of the Adam family divides its moments by 1 - beta^t with t the steps of the whole tensor. For an entry
    whose moments began at 0 later that is wrong: with t in the thousands it is hurled by up to 6.6 times the step size
    for many steps. After each step of the optimizer the entries that are young get the difference to what they would
    have got with their own age. Where only few are young, on a CPU, only they are looked at.

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
        self._rules: dict[Tensor, Rule] = {}
        self._seen: dict[Tensor, Any] = {}
        self._young: dict[Tensor, tuple[Tensor, Tensor] | None] = {}
        self._looked: dict[Tensor, float] = {}
        self._tables: dict[Any, Tensor] = {}

    def mark(self, parameter: Tensor, rule: Rule) -> tuple[Tensor, Any]:
        """Says where the births of a parameter's entries are to be written, and what, for those replaced now.

        Args:
            parameter: the parameter.
            rule: the rule of its optimizer.

        Returns:
            (births, of the parameter's shape; the number of the step); None for the step where there was none yet.
        """
        found = rule.remembered(self._members, parameter)
        step = None if found is None else found[2]
        if parameter not in self.born:
            self.born[parameter] = torch.full_like(parameter.detach(), OLD, dtype=torch.int32)
        self._rules[parameter] = rule
        self._seen[parameter] = step.clone() if isinstance(step, Tensor) else step
        self._young.pop(parameter, None)
        return self.born[parameter], step

    def restore(self, parameter: Tensor, rule: Rule, born: Tensor) -> None:
        """Takes back the births of a parameter's entries.

        Args:
            parameter: the parameter.
            rule: the rule of its optimizer.
            born: what :attr:`born` had, or this process' block of it.
        """
        local(self.mark(parameter, rule)[0]).copy_(born)
        self._seen.pop(parameter, None)

    def settle(self) -> None:
        """Gives young entries the moments with which the optimizer goes on with them as with all others."""
        for parameter, born in self.born.items():
            rule = self._rules[parameter]
            if (found := rule.remembered(self._members, parameter)) is None:
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

    @torch.no_grad()
    def correct(self) -> None:
        """Corrects the updates of young entries after a step of the optimizer; without one, nothing."""
        few: dict[Any, list[Any]] = {}
        for parameter, born in self.born.items():
            rule = self._rules[parameter]
            found = rule.remembered(self._members, parameter)
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
            flat = all(one.is_contiguous() for one in (value, born, *state.values()))
            if known and flat and value.device.type == "cpu":
                young = self._few(parameter, born, float(step), table.shape[1])
                if young is None:
                    continue
                if len(young[0]) * 4 < value.numel():
                    key = (id(group), float(step), value.dtype)
                    few.setdefault(key, []).append((rule, group, state, value, table, step, young))
                    continue
            step = torch.as_tensor(step)
            change = rule.difference(group, state, value, table, step, step - born, _shaped(group["lr"], value))
            if not known and seen is not None:
                change = change * (step != seen)
            value.add_(change.to(value.dtype))
        for parts in few.values():
            _correct_few(parts)

    def _table(self, rule: Rule, group: Mapping[str, Any], parameter: Tensor) -> Tensor:
        settings = [group[name] for name in rule.settings]
        plain = [tuple(map(_plain, one)) if isinstance(one, tuple | list) else _plain(one) for one in settings]
        key = (rule, parameter.device, *plain)
        if key not in self._tables:
            if len(self._tables) > 16:  # a scheduler changes the betas
                self._tables.clear()
            self._tables[key] = rule.table(group, parameter.device)
        return self._tables[key]

    def _few(self, parameter: Tensor, born: Tensor, step: float, longest: int) -> tuple[Tensor, Tensor] | None:
        """The young entries: their row-major indices, and when they were born; None if there are none."""
        if parameter not in self._young or step - self._looked[parameter] > longest / 4:
            flat = born.view(-1)
            index = torch.where(flat > step - longest)[0]
            self._young[parameter] = (index, flat[index]) if len(index) else None
            self._looked[parameter] = step
        return self._young[parameter]


def _plain(value: Any) -> Any:
    return (id(value), value._version) if isinstance(value, Tensor) else value


def _shaped(rate: Any, value: Tensor) -> Any:
    """A step size, or one a replica, as what multiplies a tensor."""
    if isinstance(rate, Tensor):
        rate = rate.detach().to(value.device, precise(value[:0] if value.ndim else value).dtype)
        return rate.view(-1, *(1,) * (value.ndim - 1)) if rate.ndim else rate
    return rate


def _correct_few(parts: list[Any]) -> None:
    """Corrects some entries of several parameters of one group, in one go."""
    rule, group, _, _, table, step, _ = parts[0]
    index = [young[0] for *_, young in parts]
    gathered = {
        name: torch.cat([state[name].view(-1)[at] for (_, _, state, *_), at in zip(parts, index, strict=True)])
        for name in parts[0][2]
    }
    values = torch.cat([part[3].view(-1)[at] for part, at in zip(parts, index, strict=True)])
    rate = group["lr"]
    if isinstance(rate, Tensor) and rate.ndim:
        rows = [at // (part[3].numel() // len(rate)) for part, at in zip(parts, index, strict=True)]
        rate = rate.detach()[torch.cat(rows)].to(precise(values).dtype)
    age = step - torch.cat([young[1] for *_, young in parts])
    change = rule.difference(group, gathered, values, table, torch.as_tensor(step), age, rate)
    new = (values + change).split([*map(len, index)])
    for part, at, one in zip(parts, index, new, strict=True):
        part[3].view(-1)[at] = one.to(part[3].dtype)


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
        ages.hook = optimizer.register_step_post_hook(lambda *unused: ages.correct())
    return _AGES[optimizer]


def forget_ages(optimizer: torch.optim.Optimizer) -> None:
    """Ends the correction.

    Args:
        optimizer: the optimizer.
    """
    ages = _AGES.pop(optimizer, None)
    if ages is not None:
        ages.hook.remove()
