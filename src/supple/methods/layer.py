"""A layer of hidden units: what the rule of a method reads of the units, and how it replaces them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.functional.initial import center, draw
from supple.functional.rounding import HALF, add_by_chance, precise_type, round_by_chance
from supple.functional.sharding import is_sharded, opened
from supple.functional.utility import (
    lowest_order,
    precise,
    unit_activation,
    unit_contribution,
    unit_gradient,
    unit_incoming,
    unit_magnitude,
)
from supple.methods.features import FeatureReader
from supple.methods.weights import Weights
from supple.methods.when import replicas_at
from supple.structure.description import Slice, UnitGroup
from supple.structure.wrapping import is_compiled

if TYPE_CHECKING:
    from supple.methods.units import UnitMethod


class Chosen(NamedTuple):
    """Units of a layer as pairs of replica and unit; no pair appears twice.

    Attributes:
        replica: int64 [M].
        unit: int64 [M].
        valid: bool [M], which pairs are really chosen, where that cannot be known without waiting for the device; None:
            all are.
    """

    replica: Tensor
    unit: Tensor
    valid: Tensor | None = None

    def put(self, view: Tensor, value: Tensor | float) -> None:
        """Writes values of the chosen units.

        Args:
            view: [R, n, ...], written into.
            value: [M, ...], or a number.
        """
        new = value.to(view.dtype) if isinstance(value, Tensor) else value
        if self.valid is not None:
            old = view[self.replica, self.unit]
            new = torch.where(self.valid.view((-1,) + (1,) * (old.ndim - 1)), new, old)
        view[self.replica, self.unit] = new


class Layer:
    """A layer of hidden units in the replicas that are due: what a rule reads of the units, and how it replaces them.

    Args:
        method: the method that acts.
        number: which layer it is, from 0 on.
        group: its units.

    Attributes:
        rows: the replicas that are due; None: none.
        read: the replicas whose features and utilities the next step reads; None: none.
        readers: what reads the units' outputs.
        weights: the parameters of which a unit's replacement changes entries, biases and normalizations aside.
        outgoing: those of them that the units' readers hold.
    """

    def __init__(self, method: UnitMethod, number: int, group: UnitGroup) -> None:
        self.method, self.number, self.group = method, number, group
        self.rows: Any = None
        self.read: Any = None
        self.readers: list[FeatureReader] = []
        outgoing = [consumer.weight for consumer in group.consumers]
        self.weights = [method.tensors[part.tensor] for part in (*group.incoming, *outgoing)]
        self.outgoing = self.weights[len(group.incoming) :]
        self._indices: dict[Slice, tuple[int, int, Tensor]] = {}

    def utility(self) -> Tensor:
        """Works out the units' utility from the step's batch.

        Returns:
            [rows, n], of all replicas if the method watches every step.

        Raises:
            RuntimeError: if the features or gradients that it takes are missing.
        """
        rows, kind = self.read, self.method.utility
        if kind == "incoming":
            return unit_incoming(self.gradients(self.group.incoming))
        if kind == "random":
            # All are equal, so that random words decide.
            return self.zeros()[rows]
        if kind == "adaptation":
            return 1 / self._incoming()
        if kind == "feature_by_input":
            return unit_activation(self.means(0)) / self._incoming()
        if kind not in ("magnitude", "gradient"):
            activation = unit_activation(self.means(0))
            if kind == "activation":
                return activation
        outgoing = []
        for consumer in self.group.consumers:
            outgoing.append(self.view(consumer.weight)[rows])
        if kind in ("contribution", "zero_contribution"):
            return unit_contribution(activation, outgoing)
        if kind == "adaptable_contribution":
            return unit_contribution(activation, outgoing) / self._incoming()
        if kind == "magnitude":
            return unit_magnitude(outgoing)
        return unit_gradient(outgoing, self.gradients([consumer.weight for consumer in self.group.consumers]))

    def _incoming(self) -> Tensor:
        """The mean magnitude of the weights that make a unit: [rows, n]."""
        return unit_incoming([self.view(part)[self.read] for part in self.group.incoming])

    def gradients(self, parts: Sequence[Slice]) -> list[Tensor]:
        """Gives the gradients of weights that belong to the units.

        Args:
            parts: where they lie.

        Returns:
            For each part [rows, n, ...].

        Raises:
            RuntimeError: if there are none.
        """
        found: list[Tensor] = []
        for part in parts:
            if self.method.tensors[part.tensor].grad is None and self.has_gradient():
                # This part did not run, others did.
                found.append(torch.zeros_like(self.view(part)[self.read]))
                continue
            weights = Weights(self.method, self.method.names[part.tensor])
            found.append(self.view(part, weights.whole(weights.grad))[self.read])
        return found

    def sums(self) -> tuple[Tensor, int | Tensor]:
        """Gives the sums over the step's batch of what is read of the units' outputs, and the number of examples.

        Returns:
            ([rows, n, copies, repeat], number).

        Raises:
            RuntimeError: if no forward pass was seen.
        """
        total, examples = self.readers[0].take_sum()
        if total is None:
            raise self.unread()
        return total, examples

    def means(self, number: int = -1) -> Tensor:
        """Gives the units' mean outputs over the step's batch, where the method asked for them.

        Args:
            number: which of the layer's readers; the last one reads the outputs, the first their magnitudes.

        Returns:
            [rows, n, copies, repeat].

        Raises:
            RuntimeError: if no forward pass was seen.
        """
        means = self.readers[number].take()
        if means is None:
            raise self.unread()
        return means

    def unread(self) -> RuntimeError:
        """The error that no forward pass was seen, with what may be the reason."""
        message = (
            f"{type(self.method).__name__} saw no forward pass of {self.group.name} in training mode since its last "
            "step: call step() once after each training step, and model.train() before training"
        )
        if is_compiled(self.method.model):
            message += (
                ". A compiled model notices only methods that were made before its first forward pass; "
                "torch.compiler.reset() makes it compile again"
            )
        if self.method.device.type == "cuda":
            message += ". A replayed CUDA graph calls no hooks: there choose utility='magnitude' or 'gradient'"
        return RuntimeError(message)

    def trains(self) -> bool:
        """Whether none of the weights is frozen."""
        return False not in [weight.requires_grad for weight in self.weights]

    def has_gradient(self) -> bool:
        """Whether a reader of the units has got a gradient."""
        return any(weight.grad is not None for weight in self.outgoing)

    def zeros(self, means: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Gives zeros for something kept of each unit.

        Args:
            means: number of the reader whose :meth:`means` they are to be like; None: like utilities.
            dtype: their type; None: that of utilities.

        Returns:
            [R, n], or [R, n, copies, repeat].
        """
        weight = self.method.tensors[self.group.consumers[0].weight.tensor]
        shape = self.readers[means].shape[1:] if means is not None else (self.group.size,)
        return torch.zeros(self.method.replicas, *shape, dtype=dtype or precise(weight[:0]).dtype, device=weight.device)

    def where(self, mask: Tensor) -> Chosen:
        """Chooses units by a mask.

        On a CPU the pairs that are chosen; elsewhere their number would have to be waited for, so all pairs come, with
        which of them are chosen.

        Args:
            mask: bool [rows, n].

        Returns:
            The units.
        """
        if _at_hand(mask):
            local, unit = torch.where(mask)
            return Chosen(replicas_at(self.rows, local), unit)
        local = torch.arange(mask.shape[0], device=mask.device).repeat_interleave(mask.shape[1])
        unit = torch.arange(mask.shape[1], device=mask.device).repeat(mask.shape[0])
        return Chosen(replicas_at(self.rows, local), unit, mask.flatten())

    def lowest(self, utility: Tensor, eligible: Tensor, counts: Tensor) -> tuple[Chosen, Tensor]:
        """Chooses the eligible units of lowest utility; of equal ones those of the lowest random words.

        Units whose utility is not finite come last, and if it is their turn it passes, which is counted: nothing is
        known of them.

        Args:
            utility: [rows, n].
            eligible: bool [rows, n].
            counts: int64 [rows] on the CPU, how many, at most as many as are eligible.

        Returns:
            (the units, the place of each one's replica among the rows [M]).
        """
        finite = utility.isfinite()
        # Eligible units come first whatever their utility, so that their number is always enough.
        utility = torch.nan_to_num(utility, nan=torch.finfo(utility.dtype).max)
        utility = utility.masked_fill(~eligible, torch.inf)
        order = lowest_order(utility, counts, self.words)
        local, place = torch.where(torch.arange(int(counts.max())) < counts.unsqueeze(1))
        local, place = local.to(order.device, non_blocking=True), place.to(order.device, non_blocking=True)
        unit = order[local, place]
        valid = finite[local, unit]
        if _at_hand(valid) and bool(valid.all()):
            return Chosen(replicas_at(self.rows, local), unit), local
        passed = torch.zeros_like(finite[:, 0], dtype=torch.int64).index_add_(0, local, (~valid).long())
        self.method.skip(passed > 0, self.rows)
        return Chosen(replicas_at(self.rows, local), unit, valid), local

    def words(self, rows: Tensor) -> Tensor:
        """Draws random words by which units of equal utility are told apart.

        Args:
            rows: which of the due replicas.

        Returns:
            int64 [rows, n].
        """
        key = random.purpose(*self.method.moment, "ties", self.group.name)
        return random.words(self.method.seed[self.rows][rows], key, self.method.time, self.group.size)

    def replace(self, chosen: Chosen) -> None:
        """Replaces units: incoming weights redrawn, biases 0, outgoing weights 0, normalization as at the start.

        Args:
            chosen: the units.
        """
        if not len(chosen.unit):
            return
        method, group = self.method, self.group
        outgoing = [*map(attrgetter("weight"), group.consumers)]
        if not self.trains():
            return
        for part in group.incoming:
            self._write(part, chosen, self._draw(part, chosen))
        for part in (*group.bias, *outgoing):
            self._write(part, chosen, 0.0)
        for norm in group.norms:
            for scale_or_shift in (norm.scale, norm.shift):
                if scale_or_shift is not None:
                    start = method.distributions[method.names[scale_or_shift.tensor]]
                    places = partial(self._entries, scale_or_shift, chosen)
                    self._write(scale_or_shift, chosen, center(start, places))
            for running, value in ((norm.running_mean, 0.0), (norm.running_var, 1.0)):
                if running is not None:
                    self._write(running, chosen, value)
        replaced = torch.ones_like(chosen.unit) if chosen.valid is None else chosen.valid.to(chosen.unit.dtype)
        method.count(replaced.new_zeros(method.replicas).index_add_(0, chosen.replica, replaced))

    def blend(self, share: Tensor) -> None:
        """Moves units toward fresh ones: incoming weights toward a new draw, outgoing weights toward 0.

        Biases, normalizations and the optimizer's state stay as they are, but for copies of the weights. In half
        precision new values are rounded by chance, as each goes a little. Units that are moved are counted.

        Args:
            share: [rows, n], how far each goes, 0 to 1.
        """
        if not self.trains():
            return
        self.method.count((share > 0).sum(dim=1), self.rows)
        chosen, share = self.where(torch.ones_like(share, dtype=torch.bool)), share.flatten()
        outgoing = [consumer.weight for consumer in self.group.consumers]
        for part, fresh in [(part, True) for part in self.group.incoming] + [(part, False) for part in outgoing]:
            view = self.view(part)
            old = precise(view[chosen.replica, chosen.unit])
            new = self._draw(part, chosen) if fresh else torch.zeros(())
            new = torch.lerp(old, new.to(old), share.to(old).view(-1, *(1,) * (old.ndim - 1)))
            if view.dtype in HALF:
                numbers = self._uniform(part, chosen, "incoming rounded" if fresh else "outgoing rounded")
                new = round_by_chance(new, view.dtype, numbers)
            with self._with_copies(part.tensor):
                chosen.put(view, new)

    def _draw(self, part: Slice, chosen: Chosen) -> Tensor:
        """Fresh values of incoming weights, a function of their index in the parameter: [M, ...]."""
        start = self.method.distributions[self.method.names[part.tensor]]
        return draw(start, lambda: self._entries(part, chosen), lambda: self._uniform(part, chosen, "incoming"))

    def _uniform(self, part: Slice, chosen: Chosen, purpose: str) -> Tensor:
        """Random numbers of entries, a function of their index in the parameter: [M, ...] in (0, 1)."""
        method, (index, replica) = self.method, self._entries(part, chosen)
        seed = method.seed[replica]
        key = random.purpose(*method.moment, purpose, method.names[part.tensor])
        return random.uniform_at(seed, key, method.time, index)

    @contextmanager
    def _with_copies(self, name: str) -> Iterator[None]:
        """Lets copies of a parameter that the optimizer keeps move as it does; they would pull it back else."""
        method = self.method
        copies = [] if method.memory is None else method.memory.copies(method.tensors[name])
        before = method.whole(name).clone() if copies else method.whole(name)
        yield
        for copy in copies:
            with opened({"copy": copy} if is_sharded(copy) else {}) as whole:
                method.stack(whole.get("copy", copy)).add_(method.whole(name) - before)

    def _entries(self, part: Slice, chosen: Chosen) -> tuple[Tensor, Tensor]:
        """Row-major index of entries in one network's parameter, [M, ...], and their replicas, [M, 1, ...]."""
        if part not in self._indices:
            shape = self.method.tensors[part.tensor].shape[int(self.method.stacked) :]
            self._indices[part] = part.index(shape, self.group.size, self.method.device)
        first, stride, offsets = self._indices[part]
        alone = (-1,) + (1,) * offsets.ndim
        return first + chosen.unit.view(alone) * stride + offsets, chosen.replica.view(alone)

    def absorb(self, chosen: Chosen, means: Tensor) -> None:
        """Adds the mean contribution of units that will be replaced to the biases of the layers that read them.

        Args:
            chosen: the units.
            means: [M, copies, repeat], the mean output of each.
        """
        method = self.method
        for consumer in self.group.consumers:
            if consumer.bias is None or not method.tensors[consumer.bias].requires_grad:
                continue
            weight = self.view(consumer.weight)[chosen.replica, chosen.unit]
            before = consumer.weight.dim % (method.tensors[consumer.weight.tensor].ndim - method.stacked)
            after = weight.ndim - 3 - before
            values = means.view(-1, *(1,) * before, *means.shape[1:], *(1,) * after)
            # Dimensions are [M, before..., copies, repeat, after...]; the first besides these three counts outputs.
            outputs = 1 if before else 3
            added = (weight * values).sum(dim=[dim for dim in range(1, weight.ndim) if dim != outputs])
            bias = method.whole(consumer.bias)
            added = added.to(precise_type(bias.dtype))
            kept = added if chosen.valid is None else torch.where(chosen.valid.unsqueeze(1), added, 0)
            with self._with_copies(consumer.bias):
                if bias.dtype not in HALF:
                    bias.index_add_(0, chosen.replica, kept)
                    continue
                total = kept.new_zeros(bias.shape).index_add_(0, chosen.replica, kept)
                key = random.purpose(*method.moment, "absorb", self.group.name, consumer.bias)
                numbers = random.uniform(method.seed, key, method.time, bias.shape[1])
                bias.copy_(add_by_chance(bias, total, numbers))

    def view(self, part: Slice, tensor: Tensor | None = None) -> Tensor:
        """Gives the entries of a parameter or buffer that belong to the units.

        Args:
            part: where they lie.
            tensor: [R, ...], a tensor like the parameter; None: itself.

        Returns:
            [R, n, ...], a view.
        """
        return part.view(self.method.whole(part.tensor) if tensor is None else tensor, self.group.size, leading=1)

    def _write(self, part: Slice, chosen: Chosen, value: Tensor | float) -> None:
        """Writes new values into the entries of units, and fresh optimizer state where that is asked for."""
        tensor = self.method.tensors[part.tensor]
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            return
        view = self.view(part)
        value = value.to(view.dtype) if isinstance(value, Tensor) else value
        chosen.put(view, value)
        memory = self.method.memory if tensor.requires_grad else None
        index = None if view.device.type != "cpu" or is_sharded(tensor) else lambda: self._places(part, chosen)
        for state, offset, slope, mean in memory.entries(tensor, index) if memory else ():
            lead = (-1,) + (1,) * (view.ndim - 2)
            fresh = offset[chosen.replica].view(lead) + slope[chosen.replica].view(lead) * value
            with opened({"state": state} if is_sharded(state) else {}) as whole:
                remembered = self.view(part, self.method.stack(whole.get("state", state)))
                chosen.put(remembered, self._mean_of_others(remembered, chosen, fresh) if mean else fresh)

    def _places(self, part: Slice, chosen: Chosen) -> Tensor:
        """The same in the parameters of all replicas, one after the other: [entries]."""
        index, replica = self._entries(part, chosen)
        size = self.method.tensors[part.tensor].numel() // self.method.replicas
        return (index + replica * size).flatten()

    def _mean_of_others(self, remembered: Tensor, chosen: Chosen, fresh: Tensor) -> Tensor:
        """The mean of what the optimizer remembers at the same place of the units that are not chosen."""
        mask = torch.zeros(remembered.shape[:2], dtype=torch.bool, device=remembered.device)
        chosen.put(mask, True)
        kept = (~mask).view(*mask.shape, *(1,) * (remembered.ndim - 2))
        counts = kept.sum(dim=1)
        means = (precise(remembered) * kept).sum(dim=1) / counts.clamp(min=1)
        there = (counts > 0).expand_as(means)
        return torch.where(there[chosen.replica], means[chosen.replica], fresh)


def _at_hand(tensor: Tensor) -> bool:
    """Whether the values can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"
