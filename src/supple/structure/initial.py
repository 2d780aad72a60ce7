"""What each parameter of a model was initialized from.

In this order: what the user states; what a module states itself; PyTorch's rule for its layer, if the values agree with
it; what the values tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from supple.functional.initial import Constant, Distribution, Normal, Uniform
from supple.functional.sharding import gathered
from supple.structure.description import format_row
from supple.structure.goodness import Summary, agrees, summarize
from supple.structure.inference import Inference, infer, spread
from supple.structure.overrides import Overrides, checked, nearest, resolve
from supple.structure.rules import layer_rules, padding_rows, signs_of_training


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

    def __repr__(self) -> str:
        rows = [("parameter", "shape", "distribution", "source")]
        for name, initial in self._entries.items():
            drawn = "-" if initial.distribution is None else str(initial.distribution)
            fixed = "" if initial.fixed_row is None else f", row {initial.fixed_row} fixed"
            rows.append((name, " x ".join(map(str, self._shapes[name])) or "scalar", drawn + fixed, initial.source))
        return "\n".join(format_row(row, rows) for row in rows)


def initial_distributions(
    model: nn.Module,
    overrides: Overrides | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> InitialDistributions:
    """Finds what each parameter of a model was initialized from. Call it before training.

    A module may state it in a method ``initial_distributions()`` that returns a distribution by parameter name,
    relative to the module; that is believed, the outermost module first. PyTorch's layers follow their rules, but the
    rule is believed only if the values agree with it: people call ``torch.nn.init`` afterwards. All else is told from
    the values; see :mod:`supple.structure.inference` for what they can't tell.

    Args:
        model: any module, its parameters of any floating point dtype on any device.
        overrides: what the user states, by parameter name, pattern over names, or class of module; see
            :func:`supple.structure.overrides.resolve`.
        optimizer: the model's optimizer, if there is one: an optimizer that has made steps shows that the model was
            trained.

    Returns:
        An :class:`Initial` for each parameter, shared parameters once.

    Raises:
        ValueError: if an override matches nothing, a parameter has no values yet (lazy, or on the meta device), or a
            module states a parameter that it does not have.
        TypeError: if an override or what a module states is no distribution.

    Warns:
        UserWarning: if the model looks trained already. Then nothing is told from values any more, constants apart.
    """
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        _check_has_values(name, parameter)
    given = resolve(model, {} if overrides is None else overrides)
    own, rules = _statements(model)
    fixed_rows = padding_rows(model)
    entries: dict[str, Initial] = {}
    signs = list(signs_of_training(model, optimizer))
    for name, parameter in parameters.items():
        fixed_row = fixed_rows.get(name)
        if name in given:
            entries[name] = Initial(given[name], "override", fixed_row)
        elif name in own:
            entries[name] = Initial(*own[name], fixed_row)
        else:
            found, sign = _judge(parameter, rules.get(name, []), fixed_row)
            rule = next((distribution for distribution, _ in rules.get(name, [])), None)
            entries[name] = Initial(found.distribution, found.source, fixed_row, rule)
            signs += [f"{name} {sign}"] if sign else []
    if signs:
        entries = {name: _doubted(initial) for name, initial in entries.items()}
        warnings.warn(_trained_already(signs), UserWarning, stacklevel=2)
    return InitialDistributions(entries, {name: parameter.shape for name, parameter in parameters.items()})


def _check_has_values(name: str, parameter: Tensor) -> None:
    if is_lazy(parameter):
        raise ValueError(f"{name} is lazy and has no shape yet; run the model on one batch first")
    if parameter.is_meta:
        raise ValueError(
            f"{name} is on the meta device and has no values; "
            "make it real first: model.to_empty(device=...) and then initialize it, or load a checkpoint"
        )


_Statement = tuple[Distribution, str]


def _statements(model: nn.Module) -> tuple[dict[str, _Statement], dict[str, list[_Statement]]]:
    """What modules say of themselves and what the rules of their layers say, by parameter name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own: dict[str, _Statement] = {}
    rules: dict[str, list[_Statement]] = {}
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
                checked(distribution, f"{kind}.initial_distributions()[{relative!r}]")
                own.setdefault(names[id(inside[relative])], (distribution, f"own rule of {kind}"))
        layer, distributions = layer_rules(module)
        for relative, distribution in distributions.items():
            if relative in inside:
                rules.setdefault(names[id(inside[relative])], []).append((distribution, f"rule of {layer}"))
    return own, rules


def _judge(parameter: Tensor, rules: list[_Statement], fixed_row: int | None) -> tuple[Inference, str]:
    """What a parameter was initialized from by rule or values, and the sign of training that it shows, if any."""
    if not parameter.is_floating_point():
        return Inference(
            None, f"unknown: entries of {parameter.dtype} are not told; state what they were drawn from"
        ), ""
    # A sharded parameter is gathered: all its values tell, and the same on every process.
    summary = summarize(gathered(parameter), fixed_row)
    for distribution, source in rules:
        if agrees(distribution, summary):
            return Inference(distribution, source, recognized=True), ""
    inferred = infer(summary, parameter.shape)
    for distribution, source in rules:
        if _looks_trained(distribution, inferred, summary, parameter.ndim):
            reason = f"follows neither the {source} ({distribution}) nor another well-known initializer"
            return Inference(None, f"unknown: {reason}; trained already?"), reason
    return inferred, ""


def _looks_trained(rule: Distribution, inferred: Inference, summary: Summary, ndim: int) -> bool:
    """Whether values that break a rule look more like those it gave, trained, than like another initialization.

    Where the rule says a constant, other entries than a well-known initializer's come from training. Biases (one
    dimension) are hardly ever drawn from a normal distribution, but trained ones look like that. Other entries look
    trained if their spread is still near the rule's and their distribution is of its family or of none.
    """
    if inferred.recognized or not summary.finite:
        return False
    if isinstance(rule, Constant):
        return True
    near = 0.8 < summary.std / spread(rule) < 1.25
    if ndim == 1 and not isinstance(inferred.distribution, Uniform):
        return isinstance(inferred.distribution, Normal) or near
    return near and (inferred.distribution is None or type(inferred.distribution) is type(rule))


def _doubted(initial: Initial) -> Initial:
    """What remains known of a parameter when the model was trained: its values may fit an initializer by accident."""
    if not initial.source.startswith("values: ") or isinstance(initial.distribution, Constant):
        return initial
    return replace(initial, distribution=None, source="unknown: the values of a trained model do not tell")


def _trained_already(signs: list[str]) -> str:
    shown = "".join(f"\n  {sign}" for sign in signs[:5])
    more = f"\n  and {len(signs) - 5} more" if len(signs) > 5 else ""
    return (
        f"The model looks trained already:{shown}{more}\n"
        "Its values no longer tell what they were initialized from. Construct the method before training and load a "
        "checkpoint afterwards, or state the initial distributions: pass initial={name: distribution} to the method "
        "(overrides=... of initial_distributions)."
    )
