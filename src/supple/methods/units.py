"""What methods on hidden units share: finding the units, reading them, and acting on one layer after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from supple.functional.sharding import block_of, is_sharded, opened
from supple.methods.arguments import refuse_unknown, restore
from supple.methods.base import Method, Needs
from supple.methods.features import FeatureReader, Passes, data_groups, share
from supple.methods.layer import Layer
from supple.methods.optimizer_state import OptimizerState
from supple.methods.when import ALL, Rows
from supple.structure.description import Excluded, UnitGroup, Units
from supple.structure.find import units as find_units
from supple.structure.overrides import Overrides
from supple.structure.parametrized import computed_from
from supple.structure.wrapping import is_compiled

UnitUtility = Literal["contribution", "magnitude", "activation", "gradient"]
_OWN = ("incoming", "fires")
"""Utilities of single methods: the gradients of incoming weights, and whether units are above 0."""
CENTRED = ("zero_contribution", "adaptable_contribution", "feature_by_input")
"""Utilities that read how far outputs are from their mean."""


def _positive(features: Tensor) -> Tensor:
    return features.clamp(0, 1).ceil_()  # a comparison would take NaN for silence


_READS: dict[str, Callable[[Tensor], Tensor]] = {
    "contribution": torch.abs,
    "activation": torch.abs,
    "fires": _positive,
    **dict.fromkeys(CENTRED, torch.abs),
}
"""What is averaged over the batch for a utility that reads features."""


class SharedUnits(TypedDict, total=False):
    """The keyword arguments of every method on hidden units; :class:`UnitMethod` describes them."""

    units: Units | Sequence[UnitGroup] | None
    features: Literal["before_norm", "after_norm"]
    initial: Overrides | None
    optimizer_state: OptimizerState | None
    neighbours: Literal["fresh", "zero"]
    order: Literal["after_step", "in_backward"]
    process_group: Any
    seed: int | Sequence[int] | Tensor | None


class UnitMethod(Method):
    """A method that replaces hidden units.

    A method of one's own states its settings and ``self.when`` in its constructor, calls :meth:`listen` as the last
    thing there, and writes its rule for one :class:`Layer`. What it keeps of each unit stands in ``self.per_unit``: by
    name a tensor [R, n, ...] a layer, saved and loaded with the rest.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer, to treat what it remembers of replaced units.
        utility: "contribution", "magnitude", "activation" or "gradient", or one that the class adds to ``utilities``.
        units: the hidden units; None: found by :func:`supple.units`.
        features: where a normalization follows the activation, whether features are read before it ("before_norm") or
            after it ("after_norm").
        initial: initial distributions where they are not to be worked out; see :func:`supple.initial_distributions`.
        optimizer_state: "keep", "fresh" or "mean"; see :class:`supple.Method`.
        neighbours: what becomes of a weight between two units that are replaced in one step: "fresh", a new draw for
            the later one, or "zero", as what leaves the earlier one. With "zero" layers are acted on from the last to
            the first.
        order: "after_step", after the optimizer's step, or "in_backward", on each layer as soon as the backward pass
            has come to its features, so from the last layer to the first; see below.
        process_group: the processes that train this network together, where ``model`` does not tell, as a
            ``DistributedDataParallel`` or a sharded network does; their features count as those of one large batch.
        seed: seed of the random numbers, or one a replica; None: as for every :class:`supple.Method`.

    In the backward pass a method acts as the program does that Hernandez-Garcia et al. published with their paper: the
    gradient that flows on to earlier layers passes through the new weights; the weight between two units that are
    replaced in one step becomes 0; and the optimizer's step, which comes after, applies the gradients of the replaced
    units to the new ones, so that what leaves them is not exactly 0 afterwards. What the optimizer remembers of them
    stays. :meth:`step` is called after the optimizer's step as ever. It takes one forward and one backward pass a step,
    in one process, of a network that is not compiled. Automatic mixed precision multiplies by copies of the weights
    that it made before, and so does the gradient that flows on.

    Raises:
        ValueError: if a setting is out of range, the hidden units are not found or do not fit the model, the initial
            distribution of an incoming weight is not known, or several processes run and ``process_group`` is missing;
            with ``order="in_backward"`` if several processes run, the network is compiled, what the optimizer remembers
            is to be treated, or the method reads gradients of incoming weights, which come too late.
    """

    replaces = True
    utilities: tuple[str, ...] = ("contribution", "magnitude", "activation", "gradient")
    treatments = ("fresh", "keep", "mean")

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        utility: str,
        units: Units | Sequence[UnitGroup] | None = None,
        features: Literal["before_norm", "after_norm"] = "before_norm",
        initial: Overrides | None = None,
        optimizer_state: OptimizerState | None = None,
        neighbours: Literal["fresh", "zero"] = "fresh",
        order: Literal["after_step", "in_backward"] = "after_step",
        process_group: Any = None,
        seed: int | Sequence[int] | Tensor | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown(type(self), unknown)
        self._units, self._process_group = units, process_group
        self._in_backward, self._acted = order == "in_backward", set[int]()
        if self._in_backward:
            optimizer_state = optimizer_state or "keep"
            if optimizer_state != "keep" or utility == "incoming":
                what, remedy = (
                    ("gradients of incoming weights are not known yet", "leave order out")
                    if utility == "incoming"
                    else ("the optimizer's step comes after it", 'use optimizer_state="keep"')
                )
                raise ValueError(f'order="in_backward": {what} when {type(self).__name__} acts; {remedy}')
        super().__init__(model, optimizer, initial=initial, optimizer_state=optimizer_state, seed=seed)
        self.utility = utility if utility in _OWN else self.option("utility", utility, self.utilities)
        if self.option("features", features, ("before_norm", "after_norm")) == "before_norm":
            del self.settings["features"]
        if self.option("neighbours", neighbours, ("fresh", "zero")) == "fresh":
            del self.settings["neighbours"]
        if self.option("order", order, ("after_step", "in_backward")) == "after_step":
            del self.settings["order"]
        self._backward = neighbours == "zero"
        self._after_norm = features == "after_norm"
        self._process_groups: list[Any] = []
        self._opened: dict[str, Tensor] = {}
        self.per_unit: dict[str, list[Tensor]] = {}
        self._late = [False] * len(self.layers)
        self._trained = [layer.trains() for layer in self.layers]
        self._listens = self._heard = False
        self.reads_gradients = utility in ("gradient", "incoming")

    def rule(self, layer: Layer) -> None:
        """Acts on one layer in the replicas that are due, ``layer.rows``."""

    def watch(self, layer: Layer) -> None:
        """Looks at one layer of all replicas at every step, before the rule, where ``watches`` is set."""

    def rest(self, layer: Layer) -> None:
        """Takes note that a layer did not run in this step, or is frozen.

        Args:
            layer: the layer.
        """

    def rule_at_boundary(self, layer: Layer) -> None:
        """Acts on one layer of all replicas where the data changes; no features are known there."""

    @property
    def acts_at_boundary(self) -> bool:
        """Whether :meth:`boundary` does something."""
        return type(self).rule_at_boundary is not UnitMethod.rule_at_boundary

    def _act_at_boundary(self) -> None:
        for layer in self.layers:
            due, layer.rows, layer.read = (layer.rows, layer.read), ALL, ALL
            with self._gathered(layer.group) if self.sharded else nullcontext():
                self.rule_at_boundary(layer)
            layer.rows, layer.read = due

    def due_rows(self) -> list[Rows | None]:
        """Says in which replicas the next step acts on each layer; on one that missed its turn, as soon as it runs."""
        rows = self.when.rows(self.steps + 1)
        return [ALL if late else rows for late in self._late]

    def listen(self, means: bool = False) -> None:
        """Has features read from now on; the end of a constructor, so that one that fails leaves no hooks behind.

        Args:
            means: whether :meth:`Layer.means` is asked for.
        """
        reduce = _READS.get(self.utility)
        self._reads = means or reduce is not None
        self._process_groups = data_groups(self.model, self._process_group, self._reads)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._several = bool(self._process_groups) or (distributed and torch.distributed.get_world_size() > 1)
        if self._in_backward and (self._several or self.sharded or is_compiled(self.model)):
            why = "this network is trained by several processes" if self._several or self.sharded else "it is compiled"
            raise ValueError(f'order="in_backward" acts while autograd works, which it cannot: {why}; leave order out')
        for layer in self.layers:
            if reduce is not None:
                layer.readers.append(self._reader(layer.group, self._after_norm, reduce))
            if self.utility in CENTRED:
                shape = (self.replicas, *layer.readers[0].shape[1:])
                share = layer.zeros()[..., None, None] + 1
                layer.readers[0].centre = share, share * torch.zeros(shape, device=self.device)
                if self.watches:
                    layer.readers.append(self._reader(layer.group, self._after_norm, _unchanged))
            if means:
                layer.readers.append(self._reader(layer.group, True, _unchanged))
            if not layer.readers and (self._in_backward or not self.stacked):
                layer.readers.append(self._reader(layer.group, self._after_norm, None))
        self._await_gradients()
        self._passes = Passes(self.model, [] if self.stacked else [one.group.feature.module for one in self.layers])
        self._listens = True
        self._look_ahead()

    def needs(self) -> Needs:
        """Says what the next step reads of the training step before it."""
        due = [layer for layer in self.layers if layer.read is not None]
        gradients = self.reads_gradients or self._in_backward
        return Needs(gradients and bool(due), [reader for layer in due for reader in layer.readers])

    def ever_due(self) -> Tensor:
        """Says in which replicas :meth:`step` ever reinitializes something: bool [R] on the CPU."""
        return super().ever_due() & (not self._in_backward)

    def stack(self, tensor: Tensor) -> Tensor:
        """Gives a tensor of the network its dimension of replicas; see :meth:`supple.Method.stack`.

        Args:
            tensor: a parameter or buffer.

        Returns:
            [R, ...], a view.
        """
        # Of weights that it needs in the backward pass, autograd refuses those that were changed, but for .data.
        return super().stack(tensor.data if self._in_backward else tensor)

    def close(self) -> None:
        """Takes away all hooks. The network trains on as if the method had never been there."""
        if not self._closed:
            for layer in self.layers:
                for reader in layer.readers:
                    reader.close()
            self._passes.close()
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
        if not self._listens:
            raise RuntimeError(f"{type(self).__name__} has to call self.listen() at the end of its constructor")
        due, frozen = [], set()
        for layer in self.layers:
            if layer.read is not None:
                due.append(layer)
            if layer.trains():
                self._trained[layer.number] = True
            else:
                frozen.add(layer.number)
        if due and self._process_groups:
            share([reader for layer in due for reader in layer.readers], self._process_groups, self.device)
        missed = set() if self.stacked else self._missed(due) - frozen
        for layer in reversed(due) if self._backward else due:
            if layer.number in missed or layer.number in frozen:
                self.misses += self._trained[layer.number]
            elif not self._in_backward:
                with self._gathered(layer.group) if self.sharded else nullcontext():
                    self._act_on(layer)
            elif layer.number not in self._acted:
                raise RuntimeError(
                    f"{type(self).__name__} saw no backward pass of {layer.group.name} since its last step, in which "
                    'order="in_backward" acts: call step() once after each training step, of a network that is not '
                    "compiled"
                )
        for layer in self.layers:
            if layer.number in missed or layer.number in frozen:
                self.rest(layer)
            if layer.rows is not None:
                self._late[layer.number] = layer.number in missed
        self._acted.clear()
        self.when.advance(missed, frozen)
        self._look_ahead()

    def _act_on(self, layer: Layer) -> None:
        if self.watches:
            self.watch(layer)
        if layer.rows is not None:
            self.rule(layer)

    def _await_gradients(self) -> None:
        """Has each layer acted on in the backward pass, if that is the order."""
        for layer in self.layers if self._in_backward else ():
            layer.readers[0].on_gradient = partial(self._act_in_backward, layer)

    @torch.no_grad()
    def _act_in_backward(self, layer: Layer) -> None:
        """Acts on a layer when the gradient of its features is known, as in the step that comes."""
        if layer.number in self._acted:
            raise RuntimeError(
                f'{type(self).__name__}(order="in_backward") acts in the backward pass, and there were two through the '
                f"hidden units of {layer.group.name!r} before one call of step(), as where gradients are accumulated: "
                "make one backward pass a step, of the whole batch, or leave order out, so that it acts in step()"
            )
        if not layer.trains():
            return
        self._acted.add(layer.number)
        self.steps += 1
        self.moment, self.time = (type(self).__name__,), self.steps
        try:
            self._act_on(layer)
        finally:
            self.steps -= 1

    def _missed(self, due: Sequence[Layer]) -> set[int]:
        """Finds the layers that did not run in this training step, of which the due ones shared what they read.

        Hooks tell. Where none of them was called, as when a CUDA graph is replayed, gradients do. Of several processes
        each knows its own forward passes only, but all have the same gradients.

        Raises:
            RuntimeError: if what a due step needs is missing altogether.
        """
        called = [layer.readers[0].ran for layer in self.layers]
        self._heard = self._heard or True in called
        if True in called and not self.reads_gradients and not self._several:
            return {number for number, one in enumerate(called) if not one}
        trained = [layer.has_gradient() for layer in self.layers]
        # A training step in which other parts ran.
        elsewhere = self._passes.ran and any(p.grad is not None for p in self.parameters.values())
        if due and self.reads_gradients and not any(trained) and not elsewhere:
            due[0].utility()  # which says what is missing
        if self._several:
            ran = [
                one if layer.read is not None and self._process_groups else other
                for layer, one, other in zip(self.layers, called, trained, strict=True)
            ]
            known = any(ran) or elsewhere or (bool(due) and self._reads and self._passes.ran)
        else:
            ran = called
            known = any(called) or (self._passes.ran and self._heard) or (elsewhere and not any(trained))
        if not known:
            if due and self._reads:
                raise due[0].unread()
            ran = trained if any(trained) and not self._reads else [True] * len(ran)
        if self.reads_gradients:
            ran = [one and other for one, other in zip(ran, trained, strict=True)]
        return {number for number, one in enumerate(ran) if not one}

    def _look_ahead(self) -> None:
        """Has features read in the next training step only if they are needed then, and forgets what was read.

        The end of a step, and of loading a state, where what was read belongs to a training step that is given up.
        """
        enabled = False
        for layer, rows in zip(self.layers, self.due_rows(), strict=True):
            layer.rows, layer.read = rows, ALL if self.watches else rows
            enabled |= layer.read is not None
        for layer in self.layers:
            for reader in layer.readers:
                reader.look(ALL if layer.read is None else layer.read, enabled)
        self._passes.ran = False

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped; see :meth:`supple.Method.state_dict`."""
        per_unit = {kind: [tensor.clone() for tensor in tensors] for kind, tensors in self.per_unit.items()}
        # Also of parameters that are frozen, which may train when the state is loaded.
        shapes = {name: list(parameter.shape) for name, parameter in self.model.named_parameters()}
        kept = {"late": list(self._late), "trained": list(self._trained), "shapes": shapes}
        return super().state_dict() | per_unit | kept

    def _load(self, state: Mapping[str, Any]) -> None:
        self._late, self._trained, self._heard = list(state["late"]), list(state["trained"]), self.steps > 0
        own = {(kind, k): tensor for kind, tensors in self.per_unit.items() for k, tensor in enumerate(tensors)}
        saved = {(kind, k): t for kind in self.per_unit for k, t in enumerate(state[kind]) if t is not None}
        restore(own, saved)
        super()._load(state)
        self._look_ahead()

    def __getstate__(self) -> dict[str, Any]:
        reading = [reader.reading() for layer in self.layers for reader in layer.readers]
        return super().__getstate__() | {"reading": reading}

    def __setstate__(self, state: dict[str, Any]) -> None:
        reading = state.pop("reading")
        vars(self).update(state)
        readers = [reader for layer in self.layers for reader in layer.readers]
        for reader, one in zip(readers, reading, strict=True):
            vars(reader).update(one)
        self._await_gradients()

    def _reader(self, group: UnitGroup, after_norm: bool, reduce: Callable[[Tensor], Tensor] | None) -> FeatureReader:
        feature = group.feature_after_norm if after_norm and group.feature_after_norm else group.feature
        return FeatureReader(self.model, feature, group.size, self.stacked, reduce)

    def _redrawn(self) -> dict[str, None]:
        """Finds the units, and the parameters that get initial values again, each once."""
        self.tensors = {**dict(self.model.named_parameters(remove_duplicate=False)), **dict(self.model.named_buffers())}
        # A shared parameter has several names, of which model.named_parameters() gives the first.
        first = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self.names = {name: first.get(id(tensor), name) for name, tensor in self.tensors.items()}
        self._units = find_units(self.model) if self._units is None else self._units
        self.units = self._without_frozen(self._units)
        self._later = self._drawn_of(group for group in self._units if group not in self.units.groups)
        return self._drawn_of(self.units)

    def _drawn_of(self, groups: Iterable[UnitGroup]) -> dict[str, None]:
        """The parameters of some units that get initial values again, each once."""
        names: dict[str, None] = {}
        for group in groups:
            parts = [*group.incoming, *(part for norm in group.norms for part in (norm.scale, norm.shift))]
            names |= {self.names[part.tensor]: None for part in parts if part is not None}
        return names

    def _take_initial(self, overrides: Overrides | None) -> None:
        """Works out the initial distributions; layers that are frozen yet are acted on later where they are known."""
        super()._take_initial(overrides)
        groups = [group for group in self._units or () if self._drawn_of([group]).keys() <= self.distributions.keys()]
        self.layers = [Layer(self, number, group) for number, group in enumerate(groups)]
        for group in groups:
            for part in group.parts():
                name = self.names[part.tensor]
                parameter = self.tensors[name]
                if name not in self.parameters and isinstance(parameter, nn.Parameter):
                    self.parameters[name] = parameter
                    self.blocks[name] = block_of(parameter.detach()[0] if self.stacked else parameter)

    def _written(self) -> set[str]:
        """The parameters that hold something of the units."""
        names = {self.names[part.tensor] for group in self.units for part in group.parts()}
        return names & {name for name, parameter in self.parameters.items() if parameter.requires_grad}

    def _without_frozen(self, units: Units | Sequence[UnitGroup]) -> Units:
        """Checks that the units fit the model, and says which have frozen weights, as long as these are frozen.

        Raises:
            ValueError: if they do not fit, or none are left.
        """
        if not isinstance(units, Sequence) or not all(isinstance(group, UnitGroup) for group in units):
            raise TypeError(
                f"units is {units!r:.60}; it has to be what supple.units(model, example) gave, or a list of "
                "supple.UnitGroup"
            )
        computed = computed_from(self.model)
        kept, excluded = [], list(units.excluded) if isinstance(units, Units) else []
        modules, kind = dict(self.model.named_modules(remove_duplicate=False)), type(self.model).__name__
        for group in units:
            for feature in (group.feature, group.feature_after_norm):
                if feature is not None and feature.module not in modules:
                    raise ValueError(
                        f"{kind} has no module {feature.module!r}, where features of {group.name} are to be read"
                    )
            for part in group.parts():
                if part.tensor not in self.tensors:
                    raise ValueError(f"{kind} has no parameter or buffer {part.tensor!r}, named by {group.name}")
                try:
                    tensor = torch.empty(self.tensors[part.tensor].shape, device="meta")
                    part.view(tensor, group.size, leading=int(self.stacked))
                except ValueError as error:
                    raise ValueError(f"units of {group.name}: {error}") from error
            weights = [*group.incoming, *(consumer.weight for consumer in group.consumers)]
            frozen = [part.tensor for part in weights if not self.tensors[part.tensor].requires_grad]
            made = [f"{part.tensor}: {computed[part.tensor]}" for part in group.parts() if part.tensor in computed]
            if made:
                excluded.append(Excluded(group.name, "; ".join(made)))
            elif frozen:
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
        names = {self.names[name] for name in (*(part.tensor for part in group.parts()), *biases)}
        with opened({name: self.tensors[name] for name in names if is_sharded(self.tensors[name])}) as self._opened:
            yield
        self._opened = {}


def _unchanged(features: Tensor) -> Tensor:
    return features
