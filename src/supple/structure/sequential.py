"""Finding the hidden units of a ``torch.nn.Sequential`` from its modules alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

from supple.structure.description import Consumer, Excluded, Feature, Norm, Slice, UnitGroup, Units

_Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Threshold),
)
_POOLING = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.LPPool1d, nn.LPPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYER_NORM = (nn.LayerNorm, nn.RMSNorm)
_CHANNEL_NORM = (nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass
class _Open:
    """A layer whose units are followed to the layer that reads them."""

    name: str
    layer: _Layer
    size: int
    activation: str | None = None
    before_norm: Feature | None = None
    norms: tuple[Norm, ...] = ()
    flat: bool = False
    blocked: str | None = None


def is_chain(module: nn.Module | None) -> TypeGuard[nn.Sequential]:
    """Whether a module applies its children one after the other; a subclass may do anything else with them."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _flatten(model: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    modules: list[tuple[str, nn.Module]] = []
    # named_children() gives a module that is used twice only once.
    for name, module in model._modules.items():
        assert module is not None
        if is_chain(module):
            modules += _flatten(module, f"{prefix}{name}.")
        else:
            modules.append((prefix + name, module))
    return modules


def sequential(model: nn.Sequential) -> Units:
    """Finds the hidden units of a Sequential: those of a Linear or Conv that a later one reads.

    Raises:
        ValueError: if layers share parameters.
    """
    groups: list[UnitGroup] = []
    excluded: list[Excluded] = []
    current: _Open | None = None
    seen: set[int] = set()
    for name, module in _flatten(model):
        shared = any(id(parameter) in seen for parameter in module.parameters())
        if shared and (not isinstance(module, _ELEMENTWISE) or any(p.numel() > 1 for p in module.parameters())):
            raise ValueError(f"{name} shares its parameters with an earlier layer, so its units have no single place")
        seen.update(id(parameter) for parameter in module.parameters())
        if isinstance(module, _Layer):
            if current is not None:
                reason = current.blocked or _mismatch(current, name, module)
                if reason is None:
                    groups.append(_close(current, name, module))
                else:
                    excluded.append(Excluded(current.name, reason))
            size = module.out_features if isinstance(module, nn.Linear) else module.out_channels
            current = _Open(name, module, size)
            if not isinstance(module, nn.Linear) and module.groups != 1:
                current.blocked = f"it is a grouped convolution (groups={module.groups})"
            elif computed := _computed(module):
                current.blocked = f"its {computed}"
            continue
        if isinstance(module, nn.Sequential):
            excluded.append(Excluded(name, f"{type(module).__name__} has a forward of its own"))
        if current is not None:
            _follow(current, name, module)
    modules = dict(model.named_modules())

    def why(name: str) -> str:
        return f"a {type(modules[name.rpartition('.')[0]]).__name__} makes no units that are found here"

    return Units(groups, excluded).completed(model, why)


def _follow(current: _Open, name: str, module: nn.Module) -> None:
    """Takes one module between a layer and the next into account."""
    convolution = isinstance(current.layer, _CONVOLUTION)
    if isinstance(module, _ELEMENTWISE):
        current.activation = name
        slopes = module.num_parameters if isinstance(module, nn.PReLU) else 1
        if slopes > 1:
            if slopes % current.size:
                current.blocked = f"{name} has {slopes} slopes, not one for each of the {current.size} units"
            current.norms += (Norm(scale=Slice(f"{name}.weight", repeat=max(slopes // current.size, 1))),)
    elif isinstance(module, (*_BATCH_NORM, *_LAYER_NORM, *_CHANNEL_NORM)):
        current.blocked = current.blocked or _misfit(current, name, module)
        if current.blocked:
            return
        if current.activation is not None and current.before_norm is None:
            current.before_norm = Feature(name, "input", _layout(current.layer))
        current.norms += (_norm(name, module),)
    elif isinstance(module, nn.Flatten):
        if module.start_dim != 1 or module.end_dim != -1:
            current.blocked = (
                f"{name} flattens dimensions {module.start_dim} to {module.end_dim}, not all but the first"
            )
        current.flat = True
    elif isinstance(module, _POOLING):
        if not convolution or current.flat:
            current.blocked = f"{name}, a {type(module).__name__}, pools units, not positions"
    elif isinstance(module, nn.Sequential):
        current.blocked = f"{name}, a {type(module).__name__}, has a forward of its own"
    elif not isinstance(module, _PASSING):
        current.blocked = f"{name} is a {type(module).__name__}, which may mix units"


def _layout(layer: _Layer) -> Slice:
    return Slice("", dim=1 if isinstance(layer, _CONVOLUTION) else -1)


def _misfit(current: _Open, name: str, norm: nn.Module) -> str | None:
    """Why a normalization does not have one scale for each unit; None if it has."""
    if isinstance(norm, _LAYER_NORM):
        if isinstance(current.layer, _CONVOLUTION) or tuple(norm.normalized_shape) != (current.size,):
            return f"{name} normalizes over {tuple(norm.normalized_shape)}, not over the {current.size} units"
    elif current.flat:
        return f"{name} normalizes flattened positions, so a unit has several scales"
    else:
        channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
        if channels != current.size:
            return f"{name} normalizes {channels} channels, not the {current.size} units"
    computed = _computed(norm)
    return f"{name} normalizes them, but its {computed}" if computed else None


def _computed(module: nn.Module) -> str | None:
    """Which of weight and bias is no parameter that could be written; None if none is.

    Parametrizations put a property in the parameter's place, and older ones (and pruning) a plain attribute. Its value
    is not asked for: computing it may change the parametrization's state.
    """
    for name in ("weight", "bias"):
        if name not in module._parameters and (name in vars(module) or hasattr(type(module), name)):
            return f"{name} is computed by a parametrization"
    return None


def _norm(name: str, module: nn.Module) -> Norm:
    def part(attribute: str) -> Slice | None:
        return Slice(f"{name}.{attribute}") if getattr(module, attribute, None) is not None else None

    return Norm(part("weight"), part("bias"), part("running_mean"), part("running_var"))


def _mismatch(current: _Open, name: str, consumer: _Layer) -> str | None:
    """Why the consumer cannot read the units one by one; None if it can."""
    if not isinstance(consumer, nn.Linear) and consumer.groups != 1:
        return f"{name}, which reads them, is a grouped convolution (groups={consumer.groups})"
    if computed := _computed(consumer):
        return f"{name} reads them, but its {computed}"
    convolution = isinstance(current.layer, _CONVOLUTION)
    if not isinstance(consumer, nn.Linear):
        fits = convolution and not current.flat and consumer.in_channels == current.size
    elif convolution:
        fits = current.flat and consumer.in_features % current.size == 0
    else:
        fits = consumer.in_features == current.size
    return None if fits else f"{name}, which reads them, does not take in the {current.size} units one by one"


def _close(current: _Open, name: str, consumer: _Layer) -> UnitGroup:
    repeat = 1
    if isinstance(consumer, nn.Linear) and not isinstance(current.layer, nn.Linear):
        repeat = consumer.in_features // current.size
    read = Slice("", dim=-1 if isinstance(consumer, nn.Linear) else 1, repeat=repeat)
    at_consumer = Feature(name, "input", read)
    return UnitGroup(
        name=current.name,
        size=current.size,
        feature=current.before_norm or at_consumer,
        feature_after_norm=at_consumer if current.before_norm else None,
        incoming=(Slice(f"{current.name}.weight"),),
        bias=(Slice(f"{current.name}.bias"),) if current.layer.bias is not None else (),
        consumers=(
            Consumer(
                Slice(f"{name}.weight", dim=1, repeat=repeat),
                f"{name}.bias" if consumer.bias is not None else None,
            ),
        ),
        norms=current.norms,
    )
