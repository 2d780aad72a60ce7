"""What becomes of what an optimizer remembers of entries that a method gives new values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from supple.functional.sharding import is_sharded, local
from supple.methods.ages import Ages, ages_of, forget_ages
from supple.methods.optimizer_parts import Path, follows, held_aside, like, members, tensors_of
from supple.methods.probe import Probe
from supple.methods.twin import stand_in

OptimizerState = Literal["keep", "fresh", "mean"]

_PATIENCE = 10
"""Steps in a row in which the weights change and the optimizer's state does not, before it is told."""

_KNOWN: dict[Any, Probe] = {}
"""What was found of torch's own optimizers, whose settings say all."""


class Remembered(NamedTuple):
    """A tensor in which an optimizer remembers something of each entry of a parameter.

    Attributes:
        state: the tensor, in the parameter's shape.
        offset, slope: [R]; what is remembered of a new entry of value w in replica r is offset[r] + slope[r] * w.
        mean: whether a replaced entry gets the mean of the others' instead, where there are others.
    """

    state: Tensor
    offset: Tensor
    slope: Tensor
    mean: bool


class OptimizerMemory:
    """What an optimizer remembers of the entries of some parameters, and what becomes of it where they are replaced.

    "keep" leaves it alone, "fresh" makes it that of a new entry, "mean" the same but for the size of gradients (second
    moments), which becomes the mean of the other entries'. Copies of the weights, as Lookahead and schedule-free
    optimizers keep, follow the weights in each case. All of it is found by letting copies of the optimizer train small
    tensors (:class:`supple.methods.probe.Probe`), not by the names of optimizers.

    Args:
        optimizer: the optimizer; its own parameters and state are not touched.
        modes: what is to be done, the first of them that does no harm to this optimizer's entries.
        replicas: number of networks stacked in its parameters, whose settings may differ.
        stacked: whether the first dimension of its parameters counts them.
        parameters: the parameters whose entries will be replaced, by name.
        method: name of the method, for messages.
        seed: its seeds, int64 [R].

    Attributes:
        mode: "keep", "fresh", "mean" or, for methods that change all weights a little, "shift".
        idle: whether nothing ever has to be done.

    Raises:
        ValueError: if a parameter is not the optimizer's, or none of the modes is without harm; the message says why,
            and what to do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        modes: Sequence[str],
        replicas: int,
        stacked: bool,
        parameters: Mapping[str, torch.nn.Parameter],
        method: str,
        seed: Tensor,
    ) -> None:
        self._optimizer = optimizer
        self._replicas, self._stacked, self._method = replicas, stacked, method
        self._parameters = dict(parameters)
        self._chances: dict[Tensor, tuple[Tensor, str]] = {
            parameter: (seed, name) for name, parameter in parameters.items()
        }
        self._probes: dict[Any, Probe] = {}
        self._new: dict[Any, tuple[list[Any], dict[Path, Any]]] = {}
        self._looked: set[str] = set()
        self._gentle = len(modes) > 1
        self._strikes = 0
        self._before: tuple[Any, ...] = ()
        self._suspect: list[Tensor] = []
        for number, mode in enumerate(modes):
            self.mode = mode
            try:
                self._check()
            except ValueError:
                if number == len(modes) - 1:
                    raise
            else:
                break
        probes = self._probes.values()
        passive = self.mode in ("keep", "shift")
        self.idle = passive and not any(one.failure or any(s.copies for s in one.slots.values()) for one in probes)

    def entries(self, parameter: Tensor, index: Callable[[], Tensor] | None = None) -> list[Remembered]:
        """What has to be written where entries of a parameter are replaced, besides the entries.

        Args:
            parameter: one of the parameters.
            index: gives the row-major indices of the entries that are replaced, or of more than these; None: not known.

        Returns:
            The tensors and what new entries get; empty before the optimizer's first step.
        """
        tensors = tensors_of(self._optimizer, parameter, self._members)
        if not tensors:
            return []
        found = []
        probe, slots = self._slots(parameter)
        for path, slot in slots.items():
            if path not in tensors or (self.mode == "keep" and not slot.copies):
                continue
            tensor = like(tensors[path], parameter)
            if tensor is not None:
                found.append(Remembered(tensor, slot.offset, slot.slope, self.mode == "mean" and slot.even))
        if self.mode == "fresh" and probe.rule is not None:
            born, step = self.ages.mark(parameter, probe.rule, index() if index else None, self._chances[parameter])
            if step is not None:
                one = torch.as_tensor(step, device=parameter.device)
                found.append(
                    Remembered(born, one.expand(self._replicas), torch.zeros_like(one).expand(self._replicas), False)
                )
        return found

    def copies(self, parameter: Tensor) -> list[Tensor]:
        """The copies of a parameter that the optimizer keeps.

        Args:
            parameter: one of the parameters.

        Returns:
            Tensors of its shape.
        """
        tensors = tensors_of(self._optimizer, parameter, self._members)
        paths = [path for path, slot in self._slots(parameter)[1].items() if slot.copies and path in tensors]
        shaped = [like(tensors[path], parameter) for path in paths] if tensors else []
        return [tensor for tensor in shaped if tensor is not None]

    @property
    def ages(self) -> Ages:
        """The ages of replaced entries."""
        ages = ages_of(self._optimizer, self._members)
        ages.users.add(id(self))
        return ages

    def step(self) -> None:
        """Notices when the optimizer is no longer the one that was looked at, or that trains.

        Raises:
            ValueError: if parameters came or went, and what is remembered of them cannot be treated.
            RuntimeError: if the optimizer remembers something else than was found when the method was made, or the
                weights change while it takes no steps.
        """
        groups = self._groups()
        if groups != self._known_groups:
            self._check()
        self._look()
        if self.mode != "shift":
            self._watch()
        if self.born:
            # Where step() is itself called by a hook, the correction's own may come after it.
            self.ages.correct()

    @property
    def _counts_ages(self) -> bool:
        return self.mode == "fresh" and any(probe.rule is not None for probe in self._probes.values())

    def close(self) -> None:
        """Ends the correction of young entries, if no other method needs it."""
        if not self._counts_ages:
            return
        ages = self.ages
        ages.users.discard(id(self))
        if not ages.users:
            ages.settle()
            forget_ages(self._optimizer)

    @property
    def born(self) -> dict[str, Tensor]:
        """When the entries were born that were replaced, by parameter; of those of which that matters."""
        if not self._counts_ages:
            return {}
        return {name: self.ages.born[p] for name, p in self._parameters.items() if p in self.ages.born}

    def bear_all(self) -> None:
        """Keeps births of all parameters from now on, so that a saved state has the same tensors from the start."""
        if self._counts_ages:
            for parameter in self._parameters.values():
                if self._group(parameter) is not None and (rule := self._probe(parameter).rule) is not None:
                    self.ages.mark(parameter, rule)

    def restore(self, born: Mapping[str, Tensor]) -> None:
        """Takes back when entries were born.

        Args:
            born: what :attr:`born` gave, or this process' blocks of it.
        """
        for name, tensor in born.items():
            parameter = self._parameters[name]
            if self._group(parameter) is not None and (rule := self._probe(parameter).rule) is not None:
                self.ages.restore(parameter, rule, tensor, self._chances[parameter])

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_before": (), "_suspect": [], "births": self.born}

    def __setstate__(self, state: dict[str, Any]) -> None:
        births = state.pop("births")
        vars(self).update(state)
        self.restore(births)

    # How it is found.

    def _groups(self) -> list[tuple[int, int]]:
        return [(number, len(group["params"])) for number, group in enumerate(self._optimizer.param_groups)]

    def _group(self, parameter: Tensor) -> tuple[int, dict[str, Any]] | None:
        number = self._numbers.get(parameter)
        return None if number is None else (number, self._optimizer.param_groups[number])

    def _check(self) -> None:
        """Looks at every parameter; a ValueError says what is wrong in this mode, and what to do."""
        self._known_groups, self._members = self._groups(), members(self._optimizer)
        self._numbers = {p: k for k, group in enumerate(self._optimizer.param_groups) for p in group["params"]}
        kind = type(self._optimizer).__name__
        aside = held_aside(self._optimizer)
        for name, parameter in self._parameters.items():
            if self._group(parameter) is None:
                if self.mode in ("keep", "shift") or not parameter.requires_grad:
                    continue
                raise ValueError(
                    f"{name}: a parameter of shape {tuple(parameter.shape)} is not in the {kind} that was given; pass "
                    'the optimizer of the whole network, or use optimizer_state="keep"'
                )
            alike = [attribute for attribute, tensor in aside if tensor.numel() == parameter.numel() > 1]
            copied = [
                attribute
                for attribute, tensor in aside
                if not is_sharded(tensor) and not is_sharded(parameter) and follows(tensor, parameter)
            ]
            if copied:
                raise ValueError(
                    f"{name}: {kind} keeps a copy of it in its attribute {copied[0]!r}, which would undo what "
                    f"{self._method} changes; use an optimizer that keeps its copies in its state"
                )
            if alike and self.mode in ("fresh", "mean"):
                raise ValueError(
                    f"{name}: {kind} keeps something of it in its attribute {alike[0]!r}, where it cannot be told what "
                    'it is; use optimizer_state="keep"'
                )
            probe = self._probe(parameter)
            if problem := self._problem(probe, self.mode):
                others = [
                    one for one in ("fresh", "mean", "keep") if one != self.mode and not self._problem(probe, one)
                ]
                if self.mode == "shift":
                    others = []
                remedy = " or ".join(f'optimizer_state="{one}"' for one in others) or "another optimizer"
                raise ValueError(f"{name}: {problem}; use {remedy}")

    def _problem(self, probe: Probe, mode: str) -> str:
        kind = type(self._optimizer).__name__
        if mode in ("fresh", "mean"):
            if probe.failure:
                return f"what {kind} gives a new entry cannot be found, because a step fails ({probe.failure})"
            if probe.others:
                reason = f"it keeps {', '.join(probe.others)}, so single entries cannot be made fresh"
                return f"what {kind} gives a new entry cannot be set: {reason}"
        elif probe.failure:
            return ""
        harm = probe.harm(mode, self._gentle)
        what = {"keep": "left alone", "shift": "left alone", "fresh": "made fresh", "mean": "made the mean of others'"}
        return f"where what {kind} remembers of replaced entries is {what[mode]}, it {harm}" if harm else ""

    def _probe(self, parameter: Tensor) -> Probe:
        number, group = self._group(parameter) or (0, {})
        shape = tuple(size > 1 for size in parameter.shape)
        key: Any = (number, parameter.dtype, parameter.device, shape)
        if key not in self._probes:
            settings = [(name, value) for name, value in group.items() if name not in ("params", "param_names")]
            whole = (type(self._optimizer), str(settings), self._replicas, self._stacked, key)
            kind = type(self._optimizer)
            plain = (
                kind.__module__.startswith(("torch.optim.", "supple.optim."))
                and kind.__module__ != "torch.optim.swa_utils"
            )
            if (
                not plain
                or self._optimizer.state.get(parameter)
                or any(isinstance(value, Tensor) for _, value in settings)
            ):
                self._probes[key] = Probe(self._optimizer, group, parameter, self._replicas, self._stacked)
            else:
                if whole not in _KNOWN:
                    small = stand_in(self._optimizer, group, parameter, self._replicas, self._stacked)
                    _KNOWN[whole] = Probe(*small, self._replicas, self._stacked)
                self._probes[key] = _KNOWN[whole]
        return self._probes[key]

    def _slots(self, parameter: Tensor) -> tuple[Probe, Mapping[Path, Any]]:
        """What new entries of a parameter get, with the settings as they are now."""
        found = self._group(parameter)
        if found is None:
            return self._probe(parameter), {}
        number, group = found
        probe = self._probe(parameter)
        if not any(bool(slot.offset.any()) for slot in probe.slots.values() if not slot.copies):
            return probe, probe.slots
        # A scheduler may have changed the step size, which some optimizers (Rprop) give a new entry.
        settings = [_version(value) for name, value in group.items() if name != "params"]
        key = (number, parameter.dtype, parameter.device)
        known = self._new.get(key)
        if known is None or known[0] != settings:
            known = self._new[key] = (settings, probe.new(self._optimizer, group, parameter))
        return probe, known[1]

    # What is noticed while training goes on.

    def _look(self) -> None:
        """Compares what the optimizer remembers, once it does, with what was found when the method was made."""
        if len(self._looked) == len(self._parameters):
            return
        kind = type(self._optimizer).__name__
        for name, parameter in self._parameters.items():
            if name in self._looked or not parameter.requires_grad:
                continue
            tensors = tensors_of(self._optimizer, parameter, self._members)
            if not tensors:
                continue
            self._looked.add(name)
            if self._group(parameter) is None:
                continue
            probe = self._probe(parameter)
            for path, tensor in tensors.items():
                alike = like(tensor, parameter) is not None and _ordinary(tensor)
                known = path in probe.slots
                unlike = self.mode in ("fresh", "mean") and tensor.numel() > 1 and not (known and alike)
                copied = probe.failure and not is_sharded(tensor) and follows(tensor, local(parameter))
                if unlike or copied:
                    what = "a copy of it" if copied else f"something in shape {tuple(tensor.shape)}"
                    remedy = "another optimizer" if copied else 'optimizer_state="keep"'
                    raise RuntimeError(
                        f"{name}: {kind} keeps {path[1]!r}, {what}, which was not to be seen when {self._method} was "
                        f"made, and cannot be treated where entries are replaced; use {remedy}"
                    )

    def _watch(self) -> None:
        """Notices that the weights change while the optimizer's state does not: another optimizer trains them."""
        name, parameter = next(((n, p) for n, p in self._parameters.items() if p.requires_grad), ("", None))
        if parameter is None or is_sharded(parameter) or parameter.grad is None or self._group(parameter) is None:
            return
        probe = self._probe(parameter)
        if probe.failure or not probe.slots:
            return
        tensors = [*tensors_of(self._optimizer, parameter, self._members).values()]
        state = tuple((id(tensor), tensor._version) for tensor in tensors)
        now, before = (parameter._version, state), self._before
        self._before = now
        if not before or now[0] == before[0] or now[1] != before[1]:
            self._strikes = 0
            return
        self._strikes += 1
        if self._strikes == _PATIENCE // 2:
            self._suspect = [tensor.clone() for tensor in tensors]
        # Values are compared only here, where something is wrong already: it may have to be waited for a device.
        if self._strikes >= _PATIENCE and all(map(torch.equal, self._suspect, tensors)):
            raise RuntimeError(
                f"{name} changes, but the {type(self._optimizer).__name__} that {self._method} was made with has taken "
                f"no step in {_PATIENCE} steps. If another optimizer trains the network now, make the method after it, "
                "and with it; step() belongs after optimizer.step()"
            )


def _ordinary(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, torch.nn.Parameter) or is_sharded(tensor)


def _version(value: Any) -> Any:
    """Something that differs after a setting was replaced or, if it is a tensor, written into."""
    return (id(value), value._version) if isinstance(value, Tensor) else value
