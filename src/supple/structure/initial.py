"""What each parameter of a model was initialized from.

In this order: what the user states; what a module states itself; PyTorch's rule for its layer, if the values agree with
it; what the values tell.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from supple.functional.initial import Constant, Distribution, Each, Fixed, Normal, TruncatedNormal, Uniform
from supple.functional.sharding import gathered
from supple.structure.description import format_row, html_table
from supple.structure.inference import Inference, Statement, Values, alike
from supple.structure.overrides import Overrides, checked, nearest, resolve
from supple.structure.rules import layer_rules, padding_rows, signs_of_training, untrained
from supple.structure.stacked import Stacked

_CHANCE = 1e-3
"""Chance that the true initializer of some tensor of a network is turned down, and an estimate taken instead."""

_LARGE = 200
"""Entries that tell a scale to some 5%."""


@dataclass(frozen=True)
class Initial:
    """What a parameter was initialized from.

    Args:
        distribution: the distribution of its entries, or None where it is unknown.
        source: how that is known: ``"override"``, ``"own rule of ..."``, ``"rule of torch.nn.Linear"``,
            ``"values: ..."``, or ``"unknown: "`` and the reason.
        fixed_row: the padding row of an embedding, which is never reinitialized, or None.
        rule: what PyTorch's layer draws this parameter from by itself, whether it was drawn from that or not; None for
            other modules.
    """

    distribution: Distribution | None
    source: str
    fixed_row: int | None = None
    rule: Distribution | None = None


class InitialDistributions(Mapping[str, Initial]):
    """What each parameter of a model was initialized from, by name; prints as a table.

    Args:
        entries: by parameter name, as in ``model.named_parameters()``.
        shapes: shape of each parameter.
    """

    def __init__(self, entries: Mapping[str, Initial], shapes: Mapping[str, torch.Size]) -> None:
        self._entries = dict(entries)
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> Initial:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def require(self, names: Iterable[str] | None = None) -> dict[str, Distribution]:
        """The distributions of parameters that have to be known.

        Args:
            names: the parameters, or None for all.

        Returns:
            Distribution by parameter name.

        Raises:
            ValueError: if one is unknown, or no parameter has that name.
        """
        required: dict[str, Distribution] = {}
        unknown: list[str] = []
        for name in self._entries if names is None else names:
            if name not in self._entries:
                raise ValueError(f"the model has no parameter {name!r}{nearest(name, self._entries)}")
            initial = self._entries[name]
            if initial.distribution is None:
                unknown.append(name)
            else:
                required[name] = initial.distribution
        if unknown:
            lines = "\n".join(f"  {name}: {self._entries[name].source}" for name in unknown)
            raise ValueError(
                f"what these parameters were initialized from is unknown:\n{lines}\n"
                f"State it: pass initial={{{unknown[0]!r}: supple.Normal(0.0, 0.02)}} to the method (overrides=... of "
                "initial_distributions); a key is a name, a pattern such as 'encoder.*.weight', or a class of module. "
                "Or freeze the parameter with requires_grad_(False)."
            )
        return required

    def require_means(self, names: Iterable[str]) -> dict[str, Distribution]:
        """Distributions of which only the mean matters: those that are known, and else the constant mean of the rule.

        Whatever a weight of PyTorch's layers is drawn from, its mean is 0, and that of a normalization's scale is 1.

        Args:
            names: the parameters.

        Returns:
            Distribution by parameter name.

        Raises:
            ValueError: if a parameter has neither a known distribution nor a rule.
        """
        names = list(names)
        means: dict[str, Distribution] = {
            name: Constant(entry.rule.mean)
            for name, entry in self._entries.items()
            if entry.distribution is None and entry.rule is not None
        }
        return self.require(name for name in names if name not in means) | {n: means[n] for n in names if n in means}

    def _rows(self) -> list[tuple[str, ...]]:
        """The table that is printed, with its headings."""
        rows: list[tuple[str, ...]] = [("parameter", "shape", "distribution", "source")]
        for name, initial in self._entries.items():
            drawn = "-" if initial.distribution is None else str(initial.distribution)
            fixed = "" if initial.fixed_row is None else f", row {initial.fixed_row} fixed"
            rows.append((name, " x ".join(map(str, self._shapes[name])) or "scalar", drawn + fixed, initial.source))
        return rows

    def __repr__(self) -> str:
        return "\n".join(format_row(row, rows) for rows in [self._rows()] for row in rows)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._rows())


def initial_distributions(
    model: nn.Module,
    overrides: Overrides | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    names: Collection[str] | None = None,
) -> InitialDistributions:
    """Finds what each parameter of a model was initialized from. Call it before training.

    A module may state it in a method ``initial_distributions()`` that returns a distribution by parameter name,
    relative to the module; that is believed, the outermost module first. PyTorch's layers follow their rules, but the
    rule is believed only if the values agree with it: people call ``torch.nn.init`` afterwards. All else is told from
    the values: by the well-known initializer that fits, whose mean and bounds are then exact, or by an estimate; see
    :mod:`supple.structure.inference`. A vector of few entries, or of which some were set, tells none; in a network that
    was not trained each of its entries starts again from the value it has.

    Values look trained where well-known initializers fit no longer. Of such a parameter the distribution is unknown,
    unless others of its module are as training never leaves them. If more parameters of the network look trained than
    untouched, it was trained, and no more is told from values but constants.

    Args:
        model: any module, its parameters of any floating point dtype on any device.
        overrides: what the user states, by parameter name, pattern over names, or class of module; see
            :func:`supple.structure.overrides.resolve`.
        optimizer: the model's optimizer, if there is one: an optimizer that has made steps shows that the model was
            trained.
        names: the parameters that are asked about. Only they are evidence of training; None: all that are not frozen.

    Returns:
        An :class:`Initial` for each parameter, shared parameters once.

    Raises:
        ValueError: if an override matches nothing, a parameter has no values yet (lazy, or on the meta device), or a
            module states a parameter that it does not have.
        TypeError: if an override or what a module states is no distribution.

    Warns:
        UserWarning: if the model looks trained already.
    """
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        _check_has_values(name, parameter)
    given = resolve(model, {} if overrides is None else overrides)
    own, rules = _statements(model)
    fixed_rows = padding_rows(model)
    told = {name: statement for name, statement in own.items() if name not in given}
    told |= {name: (distribution, "override") for name, distribution in given.items()}
    untold = {name: parameter for name, parameter in parameters.items() if name not in told}
    # The values of stacked networks are those of many, which tell nothing of one.
    mixed = untold if isinstance(model, Stacked) else {}
    found = {} if mixed else _told_by_values(untold, rules, fixed_rows, _depths(model))
    if names is None:
        names = [name for name, parameter in parameters.items() if parameter.requires_grad]
    evidence = {name: found[name] for name in names if name in found}
    untouched = {name for name, inference in evidence.items() if inference.untouched}
    fresh = {_module(name) for name in untouched} | {path for path, one in model.named_modules() if untrained(one)}
    doubtful = {name for name, inference in found.items() if inference.doubt and _module(name) not in fresh}
    signs = list(signs_of_training(model, optimizer, names))
    if len(doubtful & evidence.keys()) > len(untouched):
        signs += [f"{name} {inference.doubt}" for name, inference in evidence.items() if name in doubtful]
    if signs:
        warnings.warn(_trained_already(signs), UserWarning, stacklevel=2)
    entries = {name: Initial(*statement, fixed_rows.get(name)) for name, statement in told.items()}
    unknown = "unknown: the stacked networks do not tell"
    known_rules = {name: each[0][0] for name, each in rules.items() if each}
    entries |= {name: Initial(None, unknown, fixed_rows.get(name), known_rules.get(name)) for name in mixed}
    for name, inference in found.items():
        source, distribution = inference.source, inference.distribution
        set_ = isinstance(distribution, Constant | Fixed) and inference.untouched
        if signs and source.startswith("values: ") and not set_:
            distribution, source = None, "unknown: the values of a trained model do not tell"
        elif not signs and inference.own is not None and fixed_rows.get(name) is None:
            distribution, source = inference.own, "values: each its own, as they do not tell more"
        if name in doubtful:
            distribution, source = None, f"unknown: {inference.doubt}; trained already?"
        entries[name] = Initial(distribution, source, fixed_rows.get(name), known_rules.get(name))
    return InitialDistributions(
        {name: entries[name] for name in parameters}, {name: parameter.shape for name, parameter in parameters.items()}
    )


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _depths(model: nn.Module) -> tuple[int, ...]:
    """How many layers the network may have: the lengths of its lists of modules."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential))
    return tuple(sorted({len(module) for module in lists} - {0}))


def _told_by_values(
    parameters: Mapping[str, Tensor],
    rules: Mapping[str, list[Statement]],
    fixed_rows: Mapping[str, int],
    depths: tuple[int, ...],
) -> dict[str, Inference]:
    """What the values of parameters tell when they are seen together."""
    limit = math.log(max(1, len(parameters)) / _CHANCE)
    # A sharded parameter is gathered: all its values tell, and the same on every process.
    values = {
        name: Values(gathered(parameter), fixed_rows.get(name), rules.get(name, []), depths, limit)
        for name, parameter in parameters.items()
    }
    votes = Counter(fit for one in values.values() if len(one.shape) > 1 for fit in one.fits)
    found = {name: one.infer(votes, {}) for name, one in values.items()}
    # Small tensors may be drawn as larger ones are.
    likes = _shared({name: (values[name], one) for name, one in found.items() if values[name].shape.numel() >= _LARGE})
    unexplained = sum(one.unexplained for one in values.values())
    return {name: one.infer(votes, likes, unexplained) for name, one in values.items()}


def _shared(large: Mapping[str, tuple[Values, Inference]]) -> dict[str, Distribution]:
    """Distributions that other tensors may have: uniforms with sharp edges, and normals that explain two tensors."""
    told = {
        name: (values, one)
        for name, (values, one) in large.items()
        if not one.doubt and (one.untouched or one.source.startswith("values: "))
    }
    likes: dict[str, Distribution] = {}
    for name, (_, inference) in sorted(told.items(), key=lambda one: -one[1][0].shape.numel()):
        distribution = inference.distribution
        if isinstance(distribution, Uniform):
            shared = inference.untouched
        else:
            drawn = [
                values for values, other in told.values() if isinstance(other.distribution, Normal | TruncatedNormal)
            ]
            shared = isinstance(distribution, Normal) and sum(one.may_be(distribution) for one in drawn) > 1
        if shared and distribution and not any(alike(distribution, other) for other in likes.values()):
            likes[name] = distribution
    return likes


def _check_has_values(name: str, parameter: Tensor) -> None:
    if is_lazy(parameter):
        raise ValueError(f"{name} is lazy and has no shape yet; run the model on one batch first")
    if parameter.is_meta:
        raise ValueError(
            f"{name} is on the meta device and has no values; "
            "make it real first: model.to_empty(device=...) and then initialize it, or load a checkpoint"
        )


def _statements(model: nn.Module) -> tuple[dict[str, Statement], dict[str, list[Statement]]]:
    """What modules say of themselves and what the rules of their layers say, by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own: dict[str, Statement] = {}
    rules: dict[str, list[Statement]] = {}
    for path, module in model.named_modules():
        inside = dict(module.named_parameters(remove_duplicate=False))
        kind = type(module).__name__
        # Asked of the class: a wrapper such as a compiled module hands on attributes, but its names differ.
        if callable(getattr(type(module), "initial_distributions", None)):
            for relative, distribution in module.initial_distributions().items():
                if relative not in inside:
                    raise ValueError(
                        f"{kind}.initial_distributions() of {path or 'the model'} states {relative!r}, which is no "
                        f"parameter of it{nearest(relative, inside)}"
                    )
                # Networks that are stacked have values of their own where one network has.
                if not (isinstance(module, Stacked) and isinstance(distribution, Each | Fixed)):
                    checked(distribution, f"{kind}.initial_distributions()[{relative!r}]")
                own.setdefault(names[id(inside[relative])], (distribution, f"own rule of {kind}"))
        layer, distributions = layer_rules(module)
        for relative, distribution in distributions.items():
            if relative in inside:
                rules.setdefault(names[id(inside[relative])], []).append((distribution, f"rule of {layer}"))
    return own, rules


def _trained_already(signs: list[str]) -> str:
    shown = "".join(f"\n  {sign}" for sign in signs[:5])
    more = f"\n  and {len(signs) - 5} more" if len(signs) > 5 else ""
    return (
        f"The model looks trained already:{shown}{more}\n"
        "Its values no longer tell what they were initialized from. Construct the method before training and load a "
        "checkpoint afterwards, or state the initial distributions: pass initial={name: distribution} to the method "
        "(overrides=... of initial_distributions)."
    )
