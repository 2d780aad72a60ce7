"""Everything that is measured of a network, by layer and in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supple.functional.sharding import gathered
from supple.methods.arguments import is_normalization
from supple.metrics.rank import ranks, spectral_norm
from supple.metrics.shapes import Shape
from supple.metrics.unit_features import flat, read_units
from supple.metrics.units import dead_units, dormancy, grama, linearized_units, saturated_share, sign_entropy
from supple.metrics.weights import distance, mean_magnitude, normalization_scales, update_ratio, zero_share
from supple.structure.description import UnitGroup, Units

_OF_OUTPUTS = ("dormant", "dead", "saturated", "linearized", "sign_entropy")
_RANKS = ("feature_rank", "effective_rank", "stable_rank")
_OF_WEIGHTS = ("weight_magnitude", "distance", "update_ratio", "gradient_magnitude", "zero_gradients")
MEASURES = (*_OF_OUTPUTS, "grama", *_RANKS, *_OF_WEIGHTS, "spectral_norm", "scale_magnitude")
"""What can be measured."""

_ENTRIES = 2**18
"""So many entries of a weight are remembered, to tell how far it moves."""

Number = tuple[str, str, Tensor]
"""Layer, or "" for all of them together; what is measured; a tensor without dimensions."""


class Measuring:
    """Measures a network.

    Args:
        model: the network.
        units: its hidden units.
        call: calls the model on the batch.
        shapes: the activation function of each group of units.
        measures: what to measure.
        thresholds: scores up to which units count as dormant, and as inactive by GraMa.
        sample: so many examples and positions are looked at in each layer.

    Attributes:
        initial: weights that distances are from, by name, as :meth:`remembered` gives them.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Units,
        call: Callable[[], Any],
        shapes: Sequence[Shape],
        measures: Sequence[str],
        thresholds: Sequence[float],
        sample: int,
    ) -> None:
        self.model, self.units, self.call, self.shapes = model, units, call, shapes
        self.measures, self.thresholds, self.sample = measures, thresholds, sample
        self.initial = {name: one.cpu() for name, one in self.remembered("distance").items()}

    def numbers(self, before: Mapping[str, Tensor]) -> Iterator[Number]:
        """Measures everything.

        Args:
            before: weights before the last update, as :meth:`remembered` gives them; empty if they are not known.

        Yields:
            Layer, name and number, of all that can be measured now: nothing of gradients where there are none.
        """
        every: dict[str, list[Tensor]] = defaultdict(list)
        for group, shape, features in zip(self.units, self.shapes, self._features(), strict=True):
            of_units = [] if features is None else self._of_outputs(shape, features)
            for name, values in (*of_units, *self._of_incoming(group)):
                every[name].append(values.float())
                yield group.name, name, values.float().mean()
            if features is not None and self._wants(_RANKS):
                for name, rank in self._chosen(_RANKS, ranks(features)):
                    yield group.name, name, torch.where(features.isfinite().all(), rank, torch.nan)
        for name, several in every.items():
            yield "", name, torch.cat([values.to(several[0].device) for values in several]).mean()
        yield from self._of_weights(before)

    def _wants(self, names: Iterable[str]) -> bool:
        return not set(names).isdisjoint(self.measures)

    def _chosen(self, names: Iterable[str], values: Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
        return ((name, value) for name, value in zip(names, values, strict=True) if name in self.measures)

    def _features(self) -> Sequence[Tensor | None]:
        """Features of each group, [E, n], at most ``sample`` rows; None where nothing is measured of them."""
        if not len(self.units) or not self._wants((*_OF_OUTPUTS, *_RANKS)):
            return [None] * len(self.units)

        def take(group: UnitGroup, activations: Tensor) -> Tensor:
            return _spread(flat(group, activations), self.sample)

        calls = read_units(self.model, self.units, self.call, take)
        return [_spread(torch.cat(several), self.sample) for several in calls]

    def _of_outputs(self, shape: Shape, features: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What is told of each unit by its outputs, [n], by name; NaN where they are not finite."""
        known = features.isfinite().all(dim=0)

        def told(name: str, values: Tensor) -> tuple[str, Tensor]:
            return name, torch.where(known, values, torch.nan)

        if "dormant" in self.measures:
            yield from self._below("dormant", dormancy(features))
        if "dead" in self.measures:
            yield told("dead", dead_units(features, shape.saturated, shape.tolerance))
        if "saturated" in self.measures:
            yield told("saturated", saturated_share(features, shape.saturated, shape.tolerance))
        if "linearized" in self.measures and shape.above is not None:
            yield told("linearized", linearized_units(features, shape.above, shape.below))
        if "sign_entropy" in self.measures and shape.zero is not None:
            yield told("sign_entropy", sign_entropy(features, shape.zero))

    def _of_incoming(self, group: UnitGroup) -> Iterator[tuple[str, Tensor]]:
        """What is told of each unit by the gradients of its incoming weights, [n], by name."""
        if "grama" not in self.measures:
            return
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        gradients = [
            part.view(gathered(parameters[part.tensor].grad).unsqueeze(0), group.size, leading=1)  # type: ignore[arg-type]
            for part in group.incoming
            if part.tensor in parameters and parameters[part.tensor].grad is not None
        ]
        if gradients:
            yield from self._below("grama", grama(gradients)[0])

    def _below(self, name: str, scores: Tensor) -> Iterator[tuple[str, Tensor]]:
        for threshold in self.thresholds:
            yield (
                name if len(self.thresholds) == 1 else f"{name}_{threshold:g}",
                torch.where(scores.isfinite(), scores <= threshold, torch.nan),
            )

    def _of_weights(self, before: Mapping[str, Tensor]) -> Iterator[Number]:
        parameters = dict(self._parameters())
        weights = {name: gathered(p).unsqueeze(0) for name, p in parameters.items()}
        gradients = {name: gathered(p.grad).unsqueeze(0) for name, p in parameters.items() if p.grad is not None}
        now = self.remembered("distance", "update_ratio" if before else "distance")
        initial = {name: one for name, one in self.initial.items() if name in now}
        layers = self._layers()
        functions: tuple[tuple[str, Callable[..., Tensor], tuple[Mapping[str, Tensor], ...]], ...] = (
            ("weight_magnitude", mean_magnitude, (weights,)),
            ("distance", distance, (initial, now)),
            ("update_ratio", update_ratio, (before, now)),
            ("gradient_magnitude", mean_magnitude, (gradients,)),
            ("zero_gradients", zero_share, (gradients,)),
        )
        for measure, function, (first, *others) in functions:
            if measure not in self.measures or not first:
                continue
            for layer, names in (("", list(first)), *((layer, [name]) for name, layer in layers.items())):
                if names[0] in first:
                    yield layer, measure, function(*([one[name] for name in names] for one in (first, *others)))[0]
        if "spectral_norm" in self.measures:
            for name, layer in layers.items():
                weight = weights[name].flatten(2)
                yield layer, "spectral_norm", torch.where(weight.isfinite().all(), spectral_norm(weight)[0], torch.nan)
        if "scale_magnitude" in self.measures:
            for layer, scale in normalization_scales(self.model).items():
                yield layer, "scale_magnitude", mean_magnitude([gathered(scale).unsqueeze(0)])[0]

    def _parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if p.is_floating_point() and p.numel())

    def _layers(self) -> dict[str, str]:
        """Layers by the name of their weight, of two dimensions or more."""
        norms = {id(p) for m in self.model.modules() if is_normalization(m) for p in m.parameters(recurse=False)}
        weights = ((name, p) for name, p in self._parameters() if p.ndim > 1 and id(p) not in norms)
        return {name: name.removesuffix(".weight") for name, _ in weights}

    def remembered(self, *measures: str) -> dict[str, Tensor]:
        """Copies of all weights, for what is measured by them.

        Args:
            measures: for what; nothing is copied where none of this is measured.

        Returns:
            By name [1, entries]: all entries of a weight, or some spread over it, and then scaled, so that the norm is
            about the weight's.
        """
        copies = {}
        for name, parameter in self._parameters() if self._wants(measures) else ():
            entries = gathered(parameter).reshape(-1)
            scale = max(len(entries) / _ENTRIES, 1) ** 0.5
            copies[name] = (_spread(entries, _ENTRIES).float() * scale).unsqueeze(0)
        return copies


def _spread(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, spread over all of them as multiples of the golden ratio are over a circle."""
    if len(rows) <= most:
        return rows
    places = torch.arange(most, device=rows.device, dtype=torch.float64).mul_(0.618033988749895).frac_()
    return rows[places.mul_(len(rows)).long()]
