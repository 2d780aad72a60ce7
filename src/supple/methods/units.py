"""Hidden units: one layer at one step, as the rule of a method sees it, and what all methods on units share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.functional.selection import lowest_order
from supple.functional.sharding import gathered, is_sharded, opened
from supple.functional.utility import precise, unit_activation, unit_contribution, unit_gradient, unit_magnitude
from supple.methods.arguments import restore
from supple.methods.base import Method, Needs
from supple.methods.features import FeatureReader, data_groups, share
from supple.methods.weights import Weights
from supple.methods.when import Rows, replicas_at
from supple.structure.description import Excluded, Slice, UnitGroup, Units
from supple.structure.find import units as find_units
from supple.structure.overrides import Overrides

UnitUtility = Literal["contribution", "magnitude", "activation", "gradient"]
_UTILITIES = ("contribution", "magnitude", "activation", "gradient")


class SharedUnits(TypedDict, total=False):
    """The keyword arguments of every method on hidden units; :class:`UnitMethod` describes them."""

    units: Units | Sequence[UnitGroup] | None
    features: Literal["before_norm", "after_norm"]
    initial: Overrides | None
    optimizer_state: Literal["keep", "fresh"]
    process_group: Any
    seed: int | Sequence[int] | Tensor | None


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
    """

    def __init__(self, method: UnitMethod, number: int, group: UnitGroup) -> None:
        self.method, self.number, self.group = method, number, group
        self.rows: Any = None
        self.read: Any = None
        self.readers: list[FeatureReader] = []
        self._indices: dict[Slice, tuple[int, int, Tensor]] = {}

    def utility(self) -> Tensor:
        """Works out the units' utility from the step's batch.

        Returns:
            [rows, n], of all replicas if the method watches every step.

        Raises:
            RuntimeError: if the features or gradients that it takes are missing.
        """
        method, rows, kind = self.method, self.read, self.method.utility
        if kind in ("contribution", "activation"):
            activation = unit_activation(self.means(0))
            if kind == "activation":
                return activation
        outgoing = []
        for consumer in self.group.consumers:
            outgoing.append(self.view(consumer.weight)[rows])
        if kind == "contribution":
            return unit_contribution(activation, outgoing)
        if kind == "magnitude":
            return unit_magnitude(outgoing)
        gradients = []
        for consumer in self.group.consumers:
            weights = Weights(method, method.names[consumer.weight.tensor], slice(None))
            gradient = weights.grad
            if weights.block.mesh is not None:
                gradient = gathered(weights.block.join(gradient))
            gradients.append(self.view(consumer.weight, gradient)[rows])
        return unit_gradient(outgoing, gradients)

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
            raise RuntimeError(
                f"{type(self.method).__name__} saw no forward pass of {self.group.name} in training mode since its "
                "last step: call step() once after each training step, and model.train() before training. A compiled "
                "model notices only methods that were made before its first forward pass (torch.compiler.reset() makes "
                "it compile again), and a replayed CUDA graph calls no hooks: there choose utility='magnitude' or "
                "'gradient'"
            )
        return means

    def zeros(self, means: bool = False, dtype: torch.dtype | None = None) -> Tensor:
        """Gives zeros for something kept of each unit.

        Args:
            means: whether they are to be like :meth:`means`.
            dtype: their type; None: that of utilities.

        Returns:
            [R, n], or [R, n, copies, repeat].
        """
        weight = self.method.tensors[self.group.consumers[0].weight.tensor]
        shape = self.readers[-1].shape[1:] if means else (self.group.size,)
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
        """Chooses the eligible units of lowest utility.

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
        order = lowest_order(utility.masked_fill(~eligible, torch.inf))
        local, place = torch.where(torch.arange(int(counts.max())) < counts.unsqueeze(1))
        local, place = local.to(order.device, non_blocking=True), place.to(order.device, non_blocking=True)
        unit = order[local, place]
        valid = finite[local, unit]
        if _at_hand(valid) and bool(valid.all()):
            return Chosen(replicas_at(self.rows, local), unit), local
        passed = torch.zeros_like(finite[:, 0], dtype=torch.int64).index_add_(0, local, (~valid).long())
        self.method.skip(passed > 0, self.rows)
        return Chosen(replicas_at(self.rows, local), unit, valid), local

    def replace(self, chosen: Chosen) -> None:
        """Replaces units: incoming weights redrawn, biases 0, outgoing weights 0, normalization as at the start.

        Args:
            chosen: the units.
        """
        method, group = self.method, self.group
        outgoing = [*map(attrgetter("weight"), group.consumers)]
        for part in (*group.incoming, *outgoing):
            if not method.tensors[part.tensor].requires_grad:
                return
        for part in group.incoming:
            if part not in self._indices:
                shape = method.tensors[part.tensor].shape[int(method.stacked) :]
                self._indices[part] = part.index(shape, group.size, method.device)
            first, stride, offsets = self._indices[part]
            lead = (-1,) + (1,) * offsets.ndim
            name = method.names[part.tensor]
            seed, key = method.seed[chosen.replica].view(lead), random.purpose(*method.moment, "incoming", name)
            index = first + chosen.unit.view(lead) * stride + offsets
            numbers = random.uniform_at(seed, key, method.time, index)
            self._write(part, chosen, method.distributions[name].quantile(numbers))
        for part in (*group.bias, *outgoing):
            self._write(part, chosen, 0.0)
        for norm in group.norms:
            for scale_or_shift in (norm.scale, norm.shift):
                if scale_or_shift is not None:
                    mean = method.distributions[method.names[scale_or_shift.tensor]].mean
                    self._write(scale_or_shift, chosen, mean)
            for running, value in ((norm.running_mean, 0.0), (norm.running_var, 1.0)):
                if running is not None:
                    self._write(running, chosen, value)
        replaced = torch.ones_like(chosen.unit) if chosen.valid is None else chosen.valid.to(chosen.unit.dtype)
        method.count(replaced.new_zeros(method.replicas).index_add_(0, chosen.replica, replaced))

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
            added = added.to(bias.dtype)
            kept = added if chosen.valid is None else torch.where(chosen.valid.unsqueeze(1), added, 0)
            bias.index_add_(0, chosen.replica, kept)

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
        fresh_state = self.method.fresh if tensor.requires_grad else None
        for state, offset, slope in fresh_state.entries(tensor) if fresh_state else ():
            lead = (-1,) + (1,) * (view.ndim - 2)
            fresh = offset[chosen.replica].view(lead) + slope[chosen.replica].view(lead) * value
            with opened({"state": state} if is_sharded(state) else {}) as whole:
                chosen.put(self.view(part, self.method.stack(whole.get("state", state))), fresh)


class UnitMethod(Method):
    """A method that replaces hidden units.

    A method of one's own states its settings and ``self.when`` in its constructor, calls :meth:`listen` as the last
    thing there, and writes its rule for one :class:`Layer`. What it keeps of each unit stands in ``self.per_unit``: by
    name a tensor [R, n, ...] a layer, saved and loaded with the rest.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; needed for ``optimizer_state="fresh"``.
        utility: "contribution", "magnitude", "activation" or "gradient".
        units: the hidden units; None: found by :func:`supple.units`.
        features: where a normalization follows the activation, whether features are read before it ("before_norm") or
            after it ("after_norm").
        initial: initial distributions where they are not to be worked out; see :func:`supple.initial_distributions`.
        optimizer_state: "keep" or "fresh".
        process_group: the processes that train this network together, where ``model`` does not tell, as a
            ``DistributedDataParallel`` or a sharded network does; their features count as those of one large batch.
        seed: seed of the random numbers, or one a replica.

    Raises:
        ValueError: if a setting is out of range, the hidden units are not found or do not fit the model, the initial
            distribution of an incoming weight is not known, or several processes run and ``process_group`` is missing.
    """

    replaces = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        utility: UnitUtility,
        units: Units | Sequence[UnitGroup] | None = None,
        features: Literal["before_norm", "after_norm"] = "before_norm",
        initial: Overrides | None = None,
        optimizer_state: Literal["keep", "fresh"] = "keep",
        process_group: Any = None,
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        self._units = units
        super().__init__(model, optimizer, initial=initial, optimizer_state=optimizer_state, seed=seed)
        self.utility = self.option("utility", utility, _UTILITIES)
        if self.option("features", features, ("before_norm", "after_norm")) == "before_norm":
            del self.settings["features"]
        self._after_norm = features == "after_norm"
        self._given_group = self._data_parallel if process_group is None else process_group
        self._process_groups: list[Any] = []
        self._opened: dict[str, Tensor] = {}
        self.per_unit: dict[str, list[Tensor]] = {}
        self.reads_gradients = utility == "gradient"

    def rule(self, layer: Layer) -> None:
        """Acts on one layer in the replicas that are due, ``layer.rows``."""

    def watch(self, layer: Layer) -> None:
        """Looks at one layer of all replicas at every step, before the rule, where ``watches`` is set."""

    def due_rows(self) -> list[Rows | None]:
        """Says in which replicas the next step acts on each layer."""
        return [self.when.rows(self.steps + 1)] * len(self.layers)

    def listen(self, means: bool = False) -> None:
        """Has features read from now on; the end of a constructor, so that one that fails leaves no hooks behind.

        Args:
            means: whether :meth:`Layer.means` is asked for.
        """
        activations = self.utility in ("contribution", "activation")
        self._process_groups = data_groups(self.model, self._given_group, activations or means)
        for layer in self.layers:
            if activations:
                layer.readers.append(self._reader(layer.group, self._after_norm, torch.abs))
            if means:
                layer.readers.append(self._reader(layer.group, True, lambda features: features))
        self._look_ahead()

    def needs(self) -> Needs:
        """Says what the next step reads of the training step before it."""
        due = [layer for layer in self.layers if layer.read is not None]
        return Needs(self.reads_gradients and bool(due), [reader for layer in due for reader in layer.readers])

    def close(self) -> None:
        """Takes away all hooks. The network trains on as if the method had never been there."""
        if not self._closed:
            for layer in self.layers:
                for reader in layer.readers:
                    reader.close()
        super().close()

    def whole(self, name: str) -> Tensor:
        """Gives a parameter or buffer with the replicas in front; of a sharded one, while a layer is acted on, all.

        Args:
            name: the tensor.

        Returns:
            [R, ...].
        """
        opened = self._opened.get(self.names[name]) if self.sharded else None
        return self.stack(self.tensors[name]) if opened is None else opened.unsqueeze(0)

    def _act(self) -> None:
        due = []
        for layer in self.layers:
            if layer.read is not None:
                due.append(layer)
        if due and self._process_groups:
            share([reader for layer in due for reader in layer.readers], self._process_groups, self.device)
        for layer in due:
            with self._gathered(layer.group) if self.sharded else nullcontext():
                if self.watches:
                    self.watch(layer)
                if layer.rows is not None:
                    self.rule(layer)
        self.when.advance()
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Has features read in the next training step only if they are needed then, and forgets what was read.

        The end of a step, and of loading a state, where what was read belongs to a training step that is given up.
        """
        enabled = False
        for layer, rows in zip(self.layers, self.due_rows(), strict=True):
            layer.rows, layer.read = rows, slice(None) if self.watches else rows
            enabled |= layer.read is not None
        for layer in self.layers:
            for reader in layer.readers:
                reader.look(slice(None) if layer.read is None else layer.read, enabled)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped; see :meth:`supple.Method.state_dict`."""
        per_unit = {kind: [tensor.clone() for tensor in tensors] for kind, tensors in self.per_unit.items()}
        return super().state_dict() | per_unit

    def _load(self, state: Mapping[str, Any]) -> None:
        own = {(kind, k): tensor for kind, tensors in self.per_unit.items() for k, tensor in enumerate(tensors)}
        saved = {(kind, k): t for kind in self.per_unit for k, t in enumerate(state[kind]) if t is not None}
        restore(own, saved)
        super()._load(state)
        self._look_ahead()

    def _reader(self, group: UnitGroup, after_norm: bool, reduce: Callable[[Tensor], Tensor]) -> FeatureReader:
        feature = group.feature_after_norm if after_norm and group.feature_after_norm else group.feature
        return FeatureReader(self.model, feature, group.size, self.stacked, reduce)

    def _redrawn(self) -> dict[str, None]:
        """Finds the units, and the parameters that get initial values again, each once."""
        self.tensors = {**dict(self.model.named_parameters(remove_duplicate=False)), **dict(self.model.named_buffers())}
        # A shared parameter has several names, of which model.named_parameters() gives the first.
        first = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self.names = {name: first.get(id(tensor), name) for name, tensor in self.tensors.items()}
        self.units = self._without_frozen(find_units(self.model) if self._units is None else self._units)
        self.layers = [Layer(self, number, group) for number, group in enumerate(self.units)]
        names: dict[str, None] = {}
        for group in self.units:
            parts = [*group.incoming, *(part for norm in group.norms for part in (norm.scale, norm.shift))]
            names |= {self.names[part.tensor]: None for part in parts if part is not None}
        return names

    def _without_frozen(self, units: Units | Sequence[UnitGroup]) -> Units:
        """Checks that the units fit the model, and leaves out those with frozen weights.

        Raises:
            ValueError: if they do not fit, or none are left.
        """
        kept, excluded = [], list(units.excluded) if isinstance(units, Units) else []
        modules, kind = dict(self.model.named_modules(remove_duplicate=False)), type(self.model).__name__
        for group in units:
            for feature in (group.feature, group.feature_after_norm):
                if feature is not None and feature.module not in modules:
                    raise ValueError(
                        f"{kind} has no module {feature.module!r}, where features of {group.name} are to be read"
                    )
            for part in _parts(group):
                if part.tensor not in self.tensors:
                    raise ValueError(f"{kind} has no parameter or buffer {part.tensor!r}, named by {group.name}")
                try:
                    tensor = torch.empty(self.tensors[part.tensor].shape, device="meta")
                    part.view(tensor, group.size, leading=int(self.stacked))
                except ValueError as error:
                    raise ValueError(f"units of {group.name}: {error}") from error
            weights = [*group.incoming, *(consumer.weight for consumer in group.consumers)]
            frozen = [part.tensor for part in weights if not self.tensors[part.tensor].requires_grad]
            if frozen:
                excluded.append(Excluded(group.name, f"{', '.join(frozen)} frozen (requires_grad=False)"))
            else:
                kept.append(group)
        if not kept:
            reasons = "".join(f"\n  {item.name}: {item.reason}" for item in excluded)
            raise ValueError(f"there are no hidden units to replace in this {kind}{reasons}")
        return Units(kept, excluded)

    @contextmanager
    def _gathered(self, group: UnitGroup) -> Iterator[None]:
        """Gathers the tensors of a group that are sharded.

        A unit's weights lie on several processes. All of them do the same with the whole tensors of one layer.
        """
        biases = [consumer.bias for consumer in group.consumers if consumer.bias is not None]
        names = {self.names[name] for name in (*(part.tensor for part in _parts(group)), *biases)}
        with opened({name: self.tensors[name] for name in names if is_sharded(self.tensors[name])}) as self._opened:
            yield
        self._opened = {}


def _at_hand(tensor: Tensor) -> bool:
    """Whether the values can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"


def _parts(group: UnitGroup) -> Iterator[Slice]:
    yield from group.incoming
    yield from group.bias
    for consumer in group.consumers:
        yield consumer.weight
    for norm in group.norms:
        yield from (part for part in (norm.scale, norm.shift, norm.running_mean, norm.running_var) if part is not None)
