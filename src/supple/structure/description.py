"""What a hidden unit is made of: where its features are read, which weights come in and which go out.

The description is in terms of one network. A network stacked for R replicas has the same description; its tensors only
have one more dimension in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import torch
from torch import Tensor, nn

from supple.structure.stacked import Stacked


@dataclass(frozen=True)
class Slice:
    """The entries of a tensor that belong to the units of a group, along one of its dimensions.

    Along ``dim``, from ``start`` on, entries are laid out as [copies, units, repeat]. A Linear that reads n units has
    copies = repeat = 1; one that reads n channels of flattened 4 x 4 images has repeat = 16; one behind CReLU, which
    gives each unit and then each negated twin, has copies = 2.

    Args:
        tensor: name of the parameter or buffer in the model.
        dim: dimension of one network's tensor along which units lie; may be negative.
        start: first entry of the group along ``dim``, 0 or more.
        copies: how often the whole group appears, 1 or more.
        repeat: how many neighbouring entries belong to one unit, 1 or more.

    Raises:
        ValueError: if ``start``, ``copies`` or ``repeat`` is too small.
    """

    tensor: str
    dim: int = 0
    start: int = 0
    copies: int = 1
    repeat: int = 1

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("copies", 1), ("repeat", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} of the slice of {self._name} is {getattr(self, name)}; it has to be {least} or more"
                )

    @property
    def _name(self) -> str:
        # A feature's layout names no tensor: it is of the activations.
        return self.tensor or "the activations"

    def view(self, tensor: Tensor, units: int, leading: int = 0) -> Tensor:
        """The group's entries as a view with the units in front.

        Args:
            tensor: the tensor, with ``leading`` dimensions more than one network's in front.
            units: number of units in the group.
            leading: number of dimensions in front that are not of one network's tensor (1: replicas).

        Returns:
            A view [*leading, units, ...] of every entry that belongs to each unit.

        Raises:
            ValueError: if the tensor has no such dimension, or is too short for the group.
        """
        ndim = tensor.ndim - leading
        if not -ndim <= self.dim < ndim:
            raise ValueError(
                f"{self._name} has {ndim} dimensions (replicas apart), but units are to lie along dim={self.dim}; dim "
                f"has to be at least {-ndim} and below {ndim}"
            )
        dim = self.dim % ndim + leading
        length = self.copies * units * self.repeat
        if self.start + length > tensor.shape[dim]:
            raise ValueError(
                f"{self._name} has {tensor.shape[dim]} entries along dimension {self.dim}, but {units} units need "
                f"entries {self.start} to {self.start + length - 1} (copies={self.copies}, repeat={self.repeat})"
            )
        part = tensor.narrow(dim, self.start, length).unflatten(dim, (self.copies, units, self.repeat))
        return part.movedim(dim + 1, leading)

    def index(self, shape: torch.Size, units: int, device: torch.device) -> tuple[int, int, Tensor]:
        """Row-major index in the tensor of each entry of each unit.

        Args:
            shape: shape of one network's tensor.
            units: number of units in the group.
            device: where the result lies.

        Returns:
            (first, stride, offsets): entry j of unit u, in the order of :meth:`view`, has index
            ``first + u * stride + offsets[j]``. ``offsets`` is int64 with the shape of one unit's entries.
        """
        view = self.view(torch.empty(shape, device="meta"), units)
        offsets = torch.zeros((), dtype=torch.int64, device=device)
        for size, stride in zip(view.shape[1:], view.stride()[1:], strict=True):
            offsets = offsets.unsqueeze(-1) + torch.arange(size, device=device) * stride
        return int(view.storage_offset()), view.stride(0), offsets


@dataclass(frozen=True)
class Feature:
    """Where the features of a group are read: what a module of the model takes in or gives out.

    Args:
        module: name of the module.
        where: "input" (its first argument; called with keywords only, the first of them that is a tensor) or "output".
        layout: which dimension of the activations counts units, and how; its ``tensor`` is not used.
    """

    module: str
    where: Literal["input", "output"]
    layout: Slice

    def view(self, activations: Tensor, units: int, leading: int = 0) -> Tensor:
        """The features with the units in front.

        Args:
            activations: what the module takes in or gives out, with ``leading`` dimensions more than one network's.
            units: number of units in the group.
            leading: number of dimensions in front that are not of one network's activations (1: replicas).

        Returns:
            A view [*leading, units, ...]; the rest are copies, repeats, examples and positions.

        Raises:
            ValueError: if the activations do not fit the layout.
        """
        return self.layout.view(activations, units, leading)

    @staticmethod
    def argument(inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """What counts as a module's input.

        Args:
            inputs: its positional arguments.
            keywords: its keyword arguments.

        Returns:
            The first argument; called with keywords only, the first of them that is a tensor, or None.
        """
        tensors = (value for value in keywords.values() if isinstance(value, Tensor))
        return inputs[0] if inputs else next(tensors, None)


@dataclass(frozen=True)
class Consumer:
    """A layer that reads the units.

    Args:
        weight: the entries of its weight that leave the units.
        bias: name of its bias, or None. It may stand in for the mean of what is read at the group's feature, so it is
            None too where the layer receives something else, such as the same units behind pooling.
    """

    weight: Slice
    bias: str | None = None


@dataclass(frozen=True)
class Norm:
    """A normalization layer between the units and what reads them, or a parameter with an entry for each of them.

    Args:
        scale: the units' entries of its scale, or of their slopes, thresholds and the like; None where it has none.
        shift: the units' entries of its shift, or None.
        running_mean: the units' entries of the running mean (batch normalization), or None.
        running_var: the units' entries of the running variance, or None.
    """

    scale: Slice | None = None
    shift: Slice | None = None
    running_mean: Slice | None = None
    running_var: Slice | None = None


@dataclass(frozen=True)
class UnitGroup:
    """Hidden units of one layer.

    Args:
        name: name of the module that produces them.
        size: number of units, 1 or more.
        feature: where their output is read: what the next layer receives, or, where a normalization stands between the
            activation and the next layer, what that normalization receives.
        incoming: weights into the units.
        bias: biases of the units.
        consumers: the layers that read the units.
        norms: normalizations of the units.
        feature_after_norm: where the output is read behind a normalization that follows the activation; None where
            there is no such normalization.

    Raises:
        ValueError: if ``size`` is below 1.
    """

    name: str
    size: int
    feature: Feature
    incoming: tuple[Slice, ...]
    consumers: tuple[Consumer, ...]
    bias: tuple[Slice, ...] = ()
    norms: tuple[Norm, ...] = ()
    feature_after_norm: Feature | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size of the unit group {self.name!r} is {self.size}; it has to be 1 or more")

    def parts(self) -> Iterator[Slice]:
        """All entries of parameters and buffers that belong to the units or read them."""
        yield from self.incoming
        yield from self.bias
        for consumer in self.consumers:
            yield consumer.weight
        for norm in self.norms:
            four = (norm.scale, norm.shift, norm.running_mean, norm.running_var)
            yield from (part for part in four if part is not None)


@dataclass(frozen=True)
class Excluded:
    """A layer whose units are left alone.

    Args:
        name: name of the module that produces them.
        reason: why.
    """

    name: str
    reason: str


class Units(Sequence[UnitGroup]):
    """The hidden units of a model, a group a layer; prints as a table.

    Args:
        groups: the groups that were found, or that were written by hand.
        excluded: the layers that were left out, with the reason.
    """

    def __init__(self, groups: Sequence[UnitGroup], excluded: Sequence[Excluded] = ()) -> None:
        self.groups = tuple(groups)
        self.excluded = tuple(excluded)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.groups[index]

    def __iter__(self) -> Iterator[UnitGroup]:
        return iter(self.groups)

    def completed(self, model: nn.Module, why: Callable[[str], str]) -> Units:
        """The same with every weight left out that is spoken of nowhere, so that nothing is silently absent.

        Args:
            model: the model.
            why: says why a parameter, given by its name, makes no units.

        Returns:
            Units of which each parameter of the model with two dimensions or more is in a group or left out.
        """
        first = {id(p): name for name, p in model.named_parameters()}
        named = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        used = {named.get(part.tensor) for group in self for part in group.parts()}
        left_out = {item.name.partition("[")[0] for item in self.excluded}
        matrices = [name for name, p in model.named_parameters() if p.ndim - isinstance(model, Stacked) > 1]
        several = Counter(name.rpartition(".")[0] for name in matrices)
        rest = []
        for name in matrices:
            layer, whole = name.rpartition(".")[0], name.partition(".parametrizations.")[0]
            recurrent = isinstance(model.get_submodule(layer), nn.RNNBase | nn.RNNCellBase)
            above = {name, name.removesuffix(".weight"), whole} | (
                {layer} if recurrent or several[layer] == 1 else set()
            )
            if name not in used and above.isdisjoint(left_out):
                rest.append(Excluded(name.removesuffix(".weight"), why(name)))
        return Units(self.groups, (*self.excluded, *rest))

    def _rows(self) -> list[tuple[str, ...]]:
        """The table that is printed, with its headings."""

        def names(slices: Sequence[Slice | None]) -> str:
            return ", ".join(dict.fromkeys(part.tensor for part in slices if part is not None)) or "-"

        rows: list[tuple[str, ...]] = [("layer", "units", "features read at", "in", "out", "normalization")]
        for group in self.groups:
            rows.append(
                (
                    group.name,
                    str(group.size),
                    f"{group.feature.where} of {group.feature.module}",
                    names((*group.incoming, *group.bias)),
                    names([consumer.weight for consumer in group.consumers]),
                    names([part for norm in group.norms for part in (norm.scale, norm.shift)]),
                )
            )
        return rows

    def __repr__(self) -> str:
        lines = [format_row(row, rows) for rows in [self._rows()] for row in rows]
        lines += [f"excluded: {item.name}: {item.reason}" for item in self.excluded]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        left_out = html_table([("left out", "because"), *((item.name, item.reason) for item in self.excluded)])
        return html_table(self._rows()) + (left_out if self.excluded else "")


def format_row(row: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One row of a plain table: each cell padded to the widest of its column.

    Args:
        row: the cells.
        rows: all rows of the table, which the widths are taken from.

    Returns:
        The line.
    """
    widths = [max(len(other[i]) for other in rows) for i in range(len(row))]
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """A table as a notebook shows it.

    Args:
        rows: the cells of each row; the first row are headings.

    Returns:
        The table in HTML.
    """
    lines = [
        "".join(f"<{kind} style='text-align: left'>{escape(cell)}</{kind}>" for cell in row)
        for kind, row in zip(["th"] + ["td"] * (len(rows) - 1), rows, strict=True)
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
