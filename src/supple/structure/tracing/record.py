"""What is noted while a model is traced: what is known of each tensor, and what was seen of the units."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor, nn

from supple.structure.description import Norm, Slice
from supple.structure.tracing.axis import Axis, Reading
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.values import Entries, Kind, Piece, Pieces, Run, State, Value, lost, mixed, runs


@dataclass(frozen=True)
class Boundary:
    """What a module took in or gave out in one call.

    Args:
        module: its name.
        where: "input" or "output".
        value: what is known of the tensor.
    """

    module: str
    where: Literal["input", "output"]
    value: Value


class Record:
    """What is known of each tensor of a traced model, and what was seen of the units.

    Args:
        model: the model that runs, with the names of its parameters.

    Attributes:
        axes: the outputs of each weight, in the order in which they were produced.
        excluded: reasons, by name, for layers without an axis.
        boundaries: what modules took in and gave out, in order.
        calls: how often each module was called.
        used_by: the first operation that used each parameter, and the module it was in.
        stack: names of the modules that are running.
        operations: which operations ran in which module, and on which parameters.
        last: what ran last, for messages.
        quiet: whether operations are not to be noted, because they are part of one that is taken as a whole.
        left: whether values of activations have left PyTorch, so that tensors that come from outside may hold them.
        spread: what a tensor is a view of, with its shape, where units have a place there but not in the view; by id.
    """

    def __init__(self, model: nn.Module) -> None:
        self.axes: list[Axis] = []
        self.excluded: dict[str, str] = {}
        self.boundaries: list[Boundary] = []
        self.calls: Counter[str] = Counter()
        self.used_by: dict[str, tuple[str, str]] = {}
        self.stack: list[str] = []
        self.operations: set[tuple[str, str, frozenset[str]]] = set()
        self.last = ""
        self.quiet = False
        self.left = False
        self.spread: dict[int, tuple[Value, Sequence[int]]] = {}
        # The tensors are kept, so that no other gets their id.
        self._values: dict[int, tuple[Tensor, Value]] = {}
        # What lies in memory that several tensors may view.
        self._inside: defaultdict[int, set[Axis]] = defaultdict(set)
        self._made: dict[Slice, Axis] = {}
        self._uses: defaultdict[str, list[dict[int, range]]] = defaultdict(list)
        self._buffers = {id(buffer): name for name, buffer in model.named_buffers()}
        for buffer in model.buffers():
            self.set(buffer, Value(Kind.CONSTANT, ((),) * buffer.ndim))
        for name, parameter in model.named_parameters():
            dims = tuple((Piece(Entries(name, d), n),) for d, n in enumerate(parameter.shape))
            self.set(parameter, Value(Kind.PARAMETER, dims))

    @property
    def place(self) -> str:
        """The module that is running, for messages."""
        return (self.stack[-1] if self.stack else "") or "the model"

    def seen(self) -> set[Any]:
        """What was run and what reads what; a pass in which nothing of it is new tells what others have told."""
        return self.operations | {(axis.incoming, one.weight) for axis in self.axes for one in axis.readings}

    # What is known of tensors.

    def value(self, tensor: Tensor) -> Value:
        """What is known of a tensor: that it is a constant, if it was not seen before."""
        new = Value(Kind.ACTIVATION if self.left else Kind.CONSTANT, ((),) * tensor.ndim)
        _, value = self._values.get(id(tensor), (tensor, new))
        storage = _storage(tensor)
        if value.kind == Kind.CONSTANT and storage in self._inside:
            axes = self._inside[storage]
            for axis in axes:
                axis.exclude(f"{self.place} uses them in a way that cannot be followed")
            return Value(Kind.ACTIVATION, value.dims, lost(axes))
        return value.settled()

    def set(self, tensor: Tensor, value: Value) -> None:
        """Notes what is known of a tensor."""
        self._values[id(tensor)] = (tensor, value)
        if value.kind == Kind.ACTIVATION:
            self._inside[_storage(tensor)] |= value.everything()

    def leave(self, value: Value) -> None:
        """Notes that values leave PyTorch, as for NumPy, where nothing follows them."""
        for axis in value.everything():
            axis.exclude(f"{self.place} takes their values out of PyTorch")
        self.left = self.left or value.kind == Kind.ACTIVATION

    def forget(self) -> None:
        """Lets go of the tensors, once the model has run."""
        self._values.clear()
        self._inside.clear()
        self.spread.clear()

    def write(self, tensor: Tensor, value: Value) -> None:
        """Notes that an operation changed a tensor in place, and what is known of it now."""
        held = self.value(tensor)
        self.spread.pop(id(tensor), None)
        before = {axis.root() for axis in held.axes()}
        if held.kind != Kind.CONSTANT and not value.statistic:
            for axis in (axis for axis in value.axes() if axis.root() not in before):
                axis.exclude(f"they are written into another tensor in {self.place}")
        self.set(tensor, value)

    def take_in(self, tensor: Tensor) -> None:
        """Notes that the model takes a tensor in: other features are computed from it, but no weight makes it."""
        source = Axis("the model's input", 0, Slice(""))
        self.set(tensor, Value(Kind.ACTIVATION, ((),) * tensor.ndim, lost([source])))

    def give_out(self, tensor: Tensor) -> None:
        """Notes that the model gives a tensor out; statistics of units are no units."""
        value = self.value(tensor)
        if not value.statistic:
            self.blame(value)
            for axis in value.axes():
                axis.give_out()

    def keep(self, tensor: Tensor, name: str) -> None:
        """Notes that a module keeps a tensor, which the next call may use; of statistics it is not to be feared."""
        value = self.value(tensor)
        if not value.statistic:
            for axis in value.everything():
                axis.exclude(f"they are kept on {name or 'the model'} between calls")

    def blame(self, value: Value) -> None:
        """Notes that something goes on from a tensor, so that units that were lost on the way cannot be replaced."""
        for item in sorted(value.loose, key=attrgetter("number")):
            if item.reason:
                item.axis.exclude(item.reason, item.rank)

    def use(self, value: Value, operation: str) -> None:
        """Counts that an operation uses the parameters in a value."""
        used: defaultdict[str, dict[int, range]] = defaultdict(dict)
        for piece in (piece for pieces in value.dims for piece in pieces):
            if isinstance(piece.owner, Entries):
                for tensor in (piece.owner.tensor, *piece.owner.noise):
                    used[tensor][piece.owner.dim] = range(piece.owner.start, piece.owner.start + piece.units)
        for tensor, ranges in used.items():
            self._uses[tensor].append(ranges)
            self.used_by.setdefault(tensor, (operation, self.place))

    def uses(self, tensor: str, dim: int = 0, entries: range | None = None) -> int:
        """How many operations used entries of a parameter along a dimension; without entries, any of them."""

        def meets(used: range | None) -> bool:
            if entries is None or used is None:
                return True
            return max(used.start, entries.start) < min(used.stop, entries.stop)

        return sum(meets(ranges.get(dim)) for ranges in self._uses[tensor])

    # What is seen of units.

    def runs(self, pieces: Pieces) -> list[Run]:
        """The units along a dimension, of which something is about to be noted."""
        found = runs(pieces)
        for run in found:
            run.axis.touch()
        return found

    def entries(self, value: Value, dim: int, run: Run) -> Slice | None:
        """The entries of a parameter that belong to units, one for each entry of a dimension of the activations.

        None if the tensor is no parameter but was computed or is one of several in a parameter.
        """
        owner = self.owner(value, dim)
        if owner is None or owner.form != "itself" or owner.noise:
            return None
        return run.slice(owner.tensor, owner.dim, owner.start)

    def owner(self, value: Value, dim: int) -> Entries | None:
        """The entries of a parameter that a tensor has, or is computed from one by one, along a dimension."""
        if not -len(value.dims) <= dim < len(value.dims) or len(value.dims[dim]) != 1:
            return None
        (piece,) = value.dims[dim]
        if not isinstance(piece.owner, Entries) or piece.owner.selected or piece.before * piece.after != 1:
            return None
        return piece.owner

    def normalize(self, value: Value, dim: int, channel: int, parameters: tuple[Tensor | None, ...]) -> Value:
        """Notes that a normalization acts on units, and says what is known of its output.

        Its parameters (scale, shift, running mean and running variance, or None) have ``channel`` dimensions, the first
        of them the dimension ``dim`` of the input.
        """
        for tensor in parameters:
            if tensor is not None:
                self.use(self.value(tensor), "normalization")
                if id(tensor) in self._buffers:
                    self._uses[self._buffers[id(tensor)]].append({})
        for place, pieces in enumerate(value.dims):
            for run in self.runs(pieces):
                if not dim <= place < dim + channel:
                    run.axis.exclude(f"{self.place} normalizes other dimensions than that of the units")
                    continue
                parts: list[Slice | None] = []
                for tensor in parameters:
                    if tensor is None:
                        parts.append(None)
                    elif id(tensor) in self._buffers:
                        parts.append(run.slice(self._buffers[id(tensor)], place - dim))
                    else:
                        part = self.entries(self.value(tensor), place - dim, run)
                        if part is None:
                            run.axis.exclude(
                                f"{self.place} normalizes them, but with a weight or bias that is computed"
                            )
                        parts.append(part)
                run.axis.norms.append(Norm(*parts))
        dims = tuple(renewed(pieces, normalized=True) for pieces in value.dims)
        return replace(value, dims=dims)

    def contract(self, x: Value, x_dim: int, weight: Value, in_dim: int, out_dim: int, groups: int = 1) -> Value:
        """Notes that a weight reads units, and opens an axis for those it produces.

        Args:
            x: what it reads.
            x_dim: the dimension it reads along.
            weight: what is known of the weight.
            in_dim: the weight's dimension that is summed over.
            out_dim: the weight's dimension that counts outputs.
            groups: number of groups of a convolution.

        Returns:
            What is known of the product, whose outputs lie along ``x_dim``.
        """
        self.blame(x)
        read, made = weight.dims[in_dim], weight.dims[out_dim]
        whole = all(
            len(p) == 1
            and isinstance(p[0].owner, Entries)
            and p[0].length == p[0].units
            and p[0].owner.form == "itself"
            for p in (read, made)
        )
        if weight.kind != Kind.PARAMETER or not whole:
            how = "computed" if weight.kind == Kind.PARAMETER else "no parameter"
            for axis in (p.owner for p in x.dims[x_dim]):
                if isinstance(axis, Axis):
                    axis.exclude(f"{self.place} reads them, but its weight is {how}")
            if weight.kind == Kind.PARAMETER:
                self.excluded.setdefault(
                    self.place, "its weight is computed or rearranged, as by a parametrization, and no parameter"
                )
            return replace(self._product(x, x_dim, ()), loose=mixed(x.everything()))
        source, target = read[0].owner, made[0].owner
        assert isinstance(source, Entries)
        assert isinstance(target, Entries)
        selected = source.selected or target.selected
        size = made[0].units * (groups if out_dim == 1 else 1)
        pieces = self.produce(target, size, x.everything(), not selected and groups == 1)
        out = self.axes[-1]
        if selected:
            out.exclude(f"its weight is one of several in the parameter {source.tensor}")
        if groups != 1:
            out.exclude(f"it is a grouped convolution (groups={groups})")
        for run in self.runs(x.dims[x_dim]):
            if selected:
                run.axis.exclude(
                    f"{self.place} reads them with one of several weights in the parameter {source.tensor}"
                )
            if groups != 1:
                run.axis.exclude(f"{out.name}, which reads them, is a grouped convolution (groups={groups})")
            module = layer_name(source.tensor)
            for name in (source.tensor, *source.noise):
                part, noise = run.slice(name, source.dim, source.start), name != source.tensor
                run.axis.readings.append(Reading(part, module, run.key, run.before_norm, out, noise))
        return self._product(x, x_dim, pieces)

    def produce(self, target: Entries, size: int, inputs: Iterable[Axis], again: bool = True) -> Pieces:
        """Opens an axis for what entries of a parameter produce.

        Args:
            target: the entries.
            size: how many outputs.
            inputs: what they are computed from.
            again: whether they are the same units wherever the entries produce something.

        Returns:
            What lies along the dimension of the outputs.
        """
        # A product of units lies in a tensor as one of its factors.
        ancestors = frozenset(other for axis in inputs for other in axis.same())
        ancestors = ancestors.union(*(axis.ancestors for axis in ancestors))
        incoming, state = Slice(target.tensor, target.dim, target.start), State.new()
        out = Axis(layer_name(target.tensor), size, incoming, ancestors, state.token)
        out.noise = [Slice(name, target.dim, target.start) for name in target.noise]
        self.axes.append(out)
        before = self._made.setdefault(incoming, out) if again else out
        if before is not out and not out.comes_from(before.same()):
            before.join(out, "")
        return (Piece(out, size, state=state),)

    def _product(self, x: Value, x_dim: int, made: Pieces) -> Value:
        dims = [renewed(pieces) for pieces in x.dims]
        dims[x_dim] = made
        return Value(Kind.ACTIVATION, tuple(dims))


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return -id(tensor)  # no other tensor shares the memory of one that has none of its own


def layer_name(tensor: str) -> str:
    """The layer that a weight belongs to: its module, or the weight itself where it may be one of several there."""
    module, _, name = tensor.rpartition(".")
    return module if module and name == "weight" else tensor
