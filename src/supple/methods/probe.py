"""What any optimizer remembers of a parameter, found by letting a copy of it train small tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from supple.methods.ages import RULES, Ages, Rule
from supple.methods.optimizer_parts import Path, like, members
from supple.methods.twin import Slot, Twin

_WARM, _AFTER = 60, 15
"""Steps of a copy before and after entries are replaced: several periods of weights that are copied now and then."""

_LONG = 500
"""So many before where entries do not move as those of a new optimizer: most of what corrects young moments is gone."""

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

    def _twin(self, dtype: torch.dtype | None = None, rate: float | None = 0.05) -> Twin:
        optimizer, group, parameter, replicas, stacked = self._what
        return Twin(optimizer, group, parameter, replicas, stacked, dtype or self._exact, rate, **self._how)

    def new(self, optimizer: torch.optim.Optimizer, group: Mapping[str, Any], parameter: Tensor) -> dict[Path, Slot]:
        """Works out what a new entry gets from an optimizer of this kind with the settings that it has now.

        Args:
            optimizer: the optimizer.
            group: the group of settings in which the parameter is.
            parameter: the parameter.

        Returns:
            Slots by where they lie.
        """
        replicas, stacked = self._what[3:]
        return self._given(Twin(optimizer, group, parameter, replicas, stacked, self._dtype, None, **self._how))

    def _at_hand(self) -> dict[Path, Slot]:
        """The same for the twins that are tried."""
        return self._given(self._twin())

    def _given(self, still: Twin) -> dict[Path, Slot]:
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

    def _tried(self, mode: str, numbers: int, gentle: bool, warm: int = _WARM) -> str:
        """Replaces every other entry; with steps of these numbers, see :meth:`Twin.step`."""
        try:
            new, control, changed = (self._twin() for _ in range(3))
            start = control.parameter.detach().clone()
            for number in range(warm):
                control.step(1, numbers * (number + 1))
                changed.step(1, numbers * (number + 1))
            mask = torch.arange(start.numel(), device=self.device).view_as(start) % 2 == 1
            distance = max(1.0, float((control.parameter.detach() - start).abs().max()))
            slots = self._at_hand()
            changed.replace(mask, control.parameter.detach() + distance, mode, slots)
            thrown, came = changed.moves(mask, slots, numbers, _AFTER)
            usual, goes = control.moves(mask, slots, numbers, _AFTER)
            first, began = new.moves(mask, slots, numbers, _AFTER)
        except Exception as error:
            return "" if mode in ("keep", "shift") else f"cannot be tried ({error})"
        if not bool(goes.isfinite().all()):
            return ""  # the optimizer itself cannot train the small parameter, and nothing is known
        if mode in ("keep", "shift"):
            away = float((came - goes).abs().max())
            return "takes them back towards their old values" if not away < 0.3 * distance else ""
        if not thrown <= 1.3 * (usual if gentle else max(usual, first)) + 1e-12:
            return f"moves them by up to {thrown / max(usual, 1e-12):.1f} times the usual update"
        # Entries that do not move as those of a new optimizer may do so the less, the more steps it counts.
        differ = float((came - began).abs().max()) > 0.1 * float(began.abs().max())
        return self._tried(mode, numbers, gentle, _LONG) if differ and warm < _LONG else ""

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
