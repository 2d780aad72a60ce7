"""What methods that replace hidden units have in common: finding them, reading them, replacing them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.functional.initial import sample_at
from supple.functional.sharding import gathered, is_sharded, opened
from supple.functional.utility import unit_activation, unit_contribution, unit_gradient, unit_magnitude
from supple.methods.base import Method
from supple.methods.checks import choice
from supple.methods.features import FeatureReader
from supple.methods.pairs import where_valid
from supple.methods.processes import data_groups, share
from supple.structure.description import Excluded, Slice, UnitGroup, Units
from supple.structure.find import units as find_units
from supple.structure.overrides import Overrides

UnitUtility = Literal["contribution", "magnitude", "activation", "gradient"]


class UnitMethod(Method):
    """A method that replaces hidden units of low utility.

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
        super().__init__(model, optimizer, optimizer_state=optimizer_state, seed=seed)
        model = self.model
        self.utility = choice("utility", utility, ("contribution", "magnitude", "activation", "gradient"))
        self.settings["utility"] = utility
        if choice("features", features, ("before_norm", "after_norm")) != "before_norm":
            self.settings["features"] = features
        self._tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
        # A shared parameter has several names, of which model.named_parameters() gives the first.
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        self._names = {name: first.get(id(tensor), name) for name, tensor in self._tensors.items()}
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self._whole: dict[str, Tensor] = {}
        self._indices: dict[tuple[Slice, int], tuple[int, int, Tensor]] = {}
        self._given_group = self._data_parallel if process_group is None else process_group
        self.units = self._without_frozen(find_units(model) if units is None else units)
        self.groups = self.units.groups
        self._take_initial(initial, dict.fromkeys(self._names[name] for name in _redrawn(self.groups)))
        self._after_norm = features == "after_norm"
        self._readers: list[FeatureReader | None] = [None] * len(self.groups)

    def _attach(self) -> None:
        """Starts to read features; the end of a constructor, so that one that fails leaves no hooks behind."""
        reads_features = self.utility in ("contribution", "activation") or self._reads_means()
        self._groups = data_groups(self.model, self._given_group, reads_features)
        if self.utility in ("contribution", "activation"):
            self._readers = [self._reader(group, self._after_norm) for group in self.groups]

    def _reader(self, group: UnitGroup, after_norm: bool, reduce: Any = torch.abs) -> FeatureReader:
        feature = group.feature_after_norm if after_norm and group.feature_after_norm else group.feature
        return FeatureReader(self.model, feature, group.size, self.stacked, reduce)

    def _without_frozen(self, units: Units | Sequence[UnitGroup]) -> Units:
        """Checks that the units fit the model, and leaves out those with frozen weights.

        Raises:
            ValueError: if they do not fit, or none are left.
        """
        kept, excluded = [], list(units.excluded) if isinstance(units, Units) else []
        for group in units:
            for feature in (group.feature, group.feature_after_norm):
                if feature is not None and feature.module not in self._modules:
                    raise ValueError(
                        f"{type(self.model).__name__} has no module {feature.module!r}, where features of {group.name} "
                        "are to be read"
                    )
            for part in _parts(group):
                if part.tensor not in self._tensors:
                    raise ValueError(
                        f"{type(self.model).__name__} has no parameter or buffer {part.tensor!r}, named by {group.name}"
                    )
                try:
                    tensor = torch.empty(self._tensors[part.tensor].shape, device="meta")
                    part.view(tensor, group.size, leading=int(self.stacked))
                except ValueError as error:
                    raise ValueError(f"units of {group.name}: {error}") from error
            weights = [*group.incoming, *(consumer.weight for consumer in group.consumers)]
            frozen = [part.tensor for part in weights if not self._tensors[part.tensor].requires_grad]
            if frozen:
                excluded.append(Excluded(group.name, f"{', '.join(frozen)} frozen (requires_grad=False)"))
            else:
                kept.append(group)
        if not kept:
            reasons = "".join(f"\n  {item.name}: {item.reason}" for item in excluded)
            raise ValueError(f"there are no hidden units to replace in this {type(self.model).__name__}{reasons}")
        return Units(kept, excluded)

    @abstractmethod
    def _rows_next(self, number: int) -> slice | Tensor | None:
        """In which replicas the next step computes utilities of a layer; None: in none."""

    def gradients_needed(self) -> bool:
        """Whether the next step reads gradients."""
        return self.utility == "gradient" and any(self._rows_next(k) is not None for k in range(len(self.groups)))

    def readers_needed(self) -> list[FeatureReader]:
        """What has to read the features of the forward pass before the next step."""
        due = [number for number in range(len(self.groups)) if self._rows_next(number) is not None]
        return [reader for number in due for reader in self._readers_of(number)]

    def _readers_of(self, number: int) -> list[FeatureReader]:
        """What reads features of a layer."""
        reader = self._readers[number]
        return [] if reader is None else [reader]

    def _all_readers(self) -> list[FeatureReader]:
        return [reader for number in range(len(self.groups)) for reader in self._readers_of(number)]

    def _look_ahead(self) -> None:
        """Has features read in the next training step only if they are needed then, and forgets what was read.

        The end of a step, and of loading a state, where what was read belongs to a training step that is given up.
        """
        rows = [self._rows_next(number) for number in range(len(self.groups))]
        enabled = any(due is not None for due in rows)
        for number, due in enumerate(rows):
            for reader in self._readers_of(number):
                reader.look(slice(None) if due is None else due, enabled)

    def _release(self) -> None:
        for reader in self._all_readers():
            reader.close()

    def _reads_means(self) -> bool:
        """Whether features are read for anything else than the utility."""
        return False

    def _share_features(self) -> None:
        """Makes features those of the whole batch, where several processes have parts of it."""
        if self._groups:
            share(self.readers_needed(), self._groups, self.device)

    @contextmanager
    def _opened(self, group: UnitGroup) -> Iterator[None]:
        """Gathers the tensors of a group that are sharded.

        A unit's weights lie on several processes. All of them do the same with the whole tensors of one layer.
        """
        names = {self._names[name] for name in _tensors(group)} if self.sharded else set()
        with opened({name: self._tensors[name] for name in names if is_sharded(self._tensors[name])}) as self._whole:
            yield
        self._whole = {}

    def _tensor(self, name: str) -> Tensor:
        """A parameter or buffer with the replicas in front; of an opened group, the whole of it."""
        whole = self._whole.get(self._names[name])
        return self._rows(self._tensors[name]) if whole is None else whole.unsqueeze(0)

    def _view(self, part: Slice, group: UnitGroup, tensor: Tensor | None = None) -> Tensor:
        """Entries of a parameter or buffer (or a tensor [R, ...] like it) that belong to the group, [R, n, ...]."""
        return part.view(self._tensor(part.tensor) if tensor is None else tensor, group.size, leading=1)

    def _unit_utility(self, number: int, rows: slice | Tensor) -> Tensor:
        """Utility of a group's units in the given replicas, those that :meth:`_rows_next` gave, [rows, n]."""
        group, reader = self.groups[number], self._readers[number]
        if reader is not None:
            activation = unit_activation(self._features(number, reader))
            if self.utility == "activation":
                return activation
        outgoing = [self._view(consumer.weight, group)[rows] for consumer in group.consumers]
        if self.utility == "contribution":
            return unit_contribution(activation, outgoing)
        if self.utility == "magnitude":
            return unit_magnitude(outgoing)
        gradients = []
        for consumer in group.consumers:
            name = self._names[consumer.weight.tensor]
            gradient = self._gradient(name)
            block = self.blocks[name]
            if block.mesh is not None:
                gradient = gathered(block.join(gradient))
            gradients.append(self._view(consumer.weight, group, gradient)[rows])
        return unit_gradient(outgoing, gradients)

    def _features(self, number: int, reader: FeatureReader) -> Tensor:
        """What a reader read of a group since the last step, [rows, n, copies, repeat]."""
        means = reader.take()
        if means is None:
            raise RuntimeError(
                f"{type(self).__name__} saw no forward pass of {self.groups[number].name} in training mode since its "
                "last step: call step() once after each training step, and model.train() before training. A compiled "
                "model notices only methods that were made before its first forward pass (torch.compiler.reset() makes "
                "it compile again), and a replayed CUDA graph calls no hooks: there choose utility='magnitude' or "
                "'gradient'"
            )
        return means

    def _replace(self, group: UnitGroup, rows: Tensor, chosen: Tensor, valid: Tensor | None = None) -> None:
        """Replaces units: incoming weights redrawn, biases 0, outgoing weights 0, normalization as at the start.

        Args:
            group: the layer.
            rows: int64 [M], the replica of each unit.
            chosen: int64 [M], the unit; no pair appears twice.
            valid: bool [M], whether it is really to be replaced; None: all are.
        """
        weights = [*group.incoming, *(consumer.weight for consumer in group.consumers)]
        if not all(self._tensors[part.tensor].requires_grad for part in weights):
            return
        for part in group.incoming:
            first, stride, offsets = self._index(part, group)
            lead = (-1,) + (1,) * offsets.ndim
            index = first + chosen.view(lead) * stride + offsets
            drawn = sample_at(
                self.distributions[self._names[part.tensor]],
                self.seed[rows].view(lead),
                self._purpose("incoming", self._names[part.tensor]),
                self.steps,
                index,
            )
            self._write(part, group, rows, chosen, drawn, valid)
        zeros = [*group.bias, *(consumer.weight for consumer in group.consumers)]
        for part in zeros:
            self._write(part, group, rows, chosen, 0.0, valid)
        for norm in group.norms:
            for scale_or_shift in (norm.scale, norm.shift):
                if scale_or_shift is not None:
                    mean = self.distributions[self._names[scale_or_shift.tensor]].mean
                    self._write(scale_or_shift, group, rows, chosen, mean, valid)
            for running, value in ((norm.running_mean, 0.0), (norm.running_var, 1.0)):
                if running is not None:
                    self._write(running, group, rows, chosen, value, valid)
        replaced = torch.ones_like(rows) if valid is None else valid.to(rows.dtype)
        self._counts.add(self.steps, replaced.new_zeros(self.replicas).index_add_(0, rows, replaced))

    def _index(self, part: Slice, group: UnitGroup) -> tuple[int, int, Tensor]:
        """Where the entries of a unit lie in a tensor, as :meth:`supple.Slice.index` says; worked out once."""
        key = (part, group.size)
        if key not in self._indices:
            shape = self._tensors[part.tensor].shape[int(self.stacked) :]
            self._indices[key] = part.index(shape, group.size, self.device)
        return self._indices[key]

    def _write(
        self, part: Slice, group: UnitGroup, rows: Tensor, chosen: Tensor, value: Tensor | float, valid: Tensor | None
    ) -> None:
        """Writes new values into the entries of units, and fresh optimizer state where that is asked for."""
        tensor = self._tensors[part.tensor]
        if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
            return
        view = self._view(part, group)
        new = where_valid(view, rows, chosen, value, valid)
        view[rows, chosen] = new
        for state, offset, slope in self._fresh_states(tensor) if tensor.requires_grad else ():
            lead = (-1,) + (1,) * (view.ndim - 2)
            fresh = offset[rows].view(lead) + slope[rows].view(lead) * new
            with opened({"state": state} if is_sharded(state) else {}) as whole:
                state_view = self._view(part, group, self._rows(whole.get("state", state)))
                state_view[rows, chosen] = where_valid(state_view, rows, chosen, fresh, valid)


def _parts(group: UnitGroup) -> Iterator[Slice]:
    yield from group.incoming
    yield from group.bias
    for consumer in group.consumers:
        yield consumer.weight
    for norm in group.norms:
        yield from (part for part in (norm.scale, norm.shift, norm.running_mean, norm.running_var) if part is not None)


def _tensors(group: UnitGroup) -> Iterator[str]:
    yield from (part.tensor for part in _parts(group))
    yield from (consumer.bias for consumer in group.consumers if consumer.bias is not None)


def _redrawn(groups: Sequence[UnitGroup]) -> dict[str, None]:
    """Names of the parameters that get initial values again, each once: incoming weights, and normalizations."""
    names: dict[str, None] = {}
    for group in groups:
        parts = [*group.incoming, *(part for norm in group.norms for part in (norm.scale, norm.shift))]
        names |= {part.tensor: None for part in parts if part is not None}
    return names
