"""What a method is made for and made with: its model, optimizer, parameters and settings, all checked."""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from supple.functional.sharding import block_of, is_sharded
from supple.structure.overrides import names_matching
from supple.structure.parametrized import computed_from
from supple.structure.stacked import Stacked

Selector = str | type[nn.Module] | Callable[[str, nn.Parameter], bool]
"""A parameter name or glob pattern, a class of module (its direct parameters), or a function of name and parameter."""

Selectors = Selector | Sequence[Selector]

_TRAINABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_WHOLE = 2.0**53
"""Whole numbers up to here are exact in float64."""


def check_arguments(model: Any, optimizer: Any) -> None:
    """Checks what a method is made for."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; it has to be a torch.nn.Module")
    if optimizer is None:
        return
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; it has to be a torch.optim.Optimizer, or None")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        raise ValueError(
            f"the {type(optimizer).__name__} holds no parameter of this {type(model).__name__}; pass the optimizer "
            "that trains it, made after the model has its last parameters"
        )


def refuse_unknown(kind: type, unknown: Mapping[str, Any]) -> None:
    """Raises a TypeError for keyword arguments that a method does not take."""
    for name in unknown:
        known = [one for one in inspect.signature(kind).parameters if one not in ("model", "optimizer")]
        raise TypeError(
            f"{kind.__name__} has no argument {name!r}.{did_you_mean(name, known)} It has {', '.join(known)}"
        )


def did_you_mean(name: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Such as " Did you mean 'swr'?"; empty where none of the known names is so much alike."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=alike)
    return f" Did you mean {near[0]!r}?" if near else ""


def chosen_parameters(
    model: nn.Module,
    include: Selectors | None = None,
    exclude: Selectors | None = None,
    *,
    usual: Callable[[str, nn.Module, Tensor], bool],
    frozen: bool = False,
) -> dict[str, nn.Parameter]:
    """The parameters that a method acts on: those that train, are included and not excluded, and have any entry.

    Args:
        model: the network.
        include: which parameters; None: the usual ones. A shared parameter may be spoken of by any of its
            names.
        exclude: which of them not.
        usual: whether a method acts on a parameter if ``include`` says nothing, from its name and the module that
            holds it.
        frozen: whether those that are frozen are among them, which may train later; of these, what cannot be acted on
            is left out.

    Returns:
        Parameters by name as in ``model.named_parameters()``, shared ones once.

    Raises:
        ValueError: if none are left, a selector that is a name, pattern or class matches nothing, or one of them cannot
            be acted on: it is no real floating-point tensor, lies on another device than the others, or is sharded in
            another way than in blocks.
        TypeError: if a selector is of another kind.

    Warns:
        UserWarning: if weights are computed from some, which are left out for that.
    """
    candidates = {n: p for n, p in model.named_parameters() if p.numel() > 0 and (p.requires_grad or frozen)}
    if not any(parameter.requires_grad for parameter in candidates.values()):
        raise ValueError(f"{type(model).__name__} has no parameter with requires_grad=True; there is nothing to act on")
    if include is not None:
        included = _matching(model, include, "include")
    else:
        included = {
            name for name, parameter in candidates.items() if usual(name, holder(model, name), _one(model, parameter))
        }
    excluded = set() if exclude is None else _matching(model, exclude, "exclude")
    wanted = {name: p for name, p in candidates.items() if name in included and name not in excluded}
    chosen = {name: parameter for name, parameter in wanted.items() if parameter.requires_grad}
    if not chosen and include is None and exclude is None:
        raise ValueError(
            f"this {type(model).__name__} has no parameter of the kind that the method acts on; say which with include"
        )
    computed = computed_from(model)
    reasons = {name: reason for name, reason in computed.items() if name in chosen}
    left_out = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
    chosen = {name: parameter for name, parameter in chosen.items() if name not in reasons}
    if not chosen:
        raise ValueError(
            f"include and exclude leave no parameter of this {type(model).__name__} that trains; there is nothing to "
            f"act on{left_out}"
        )
    if reasons:
        warnings.warn(
            f"parameters that weights are computed from are left alone, since their entries are no weights:{left_out}\n"
            "exclude=..., where the method has it, says that this is known",
            UserWarning,
            stacklevel=4,
        )
    _check_parameters(chosen)
    device = next(iter(chosen.values())).device
    return {n: p for n, p in wanted.items() if n in chosen or (n not in computed and _may_train(p, device))}


def _may_train(parameter: nn.Parameter, device: torch.device) -> bool:
    """Whether a frozen parameter could be acted on if it trained; those of quantized weights could not."""
    plain = type(parameter) is nn.Parameter or is_sharded(parameter)
    if parameter.requires_grad or not plain or parameter.dtype not in _TRAINABLE or parameter.device != device:
        return False
    try:
        block_of(parameter)
    except ValueError:
        return False
    return True


def holder(model: nn.Module, name: str) -> nn.Module:
    """Finds the module that holds a parameter.

    Args:
        model: the network.
        name: the parameter.

    Returns:
        The module.
    """
    # Not get_submodule, which what torch.jit.script made does not have.
    return functools.reduce(getattr, name.split(".")[:-1], model)


def _one(model: nn.Module, parameter: Tensor) -> Tensor:
    """One network's part of a parameter."""
    return parameter[0] if isinstance(model, Stacked) else parameter


def is_matrix(name: str, module: nn.Module, parameter: Tensor) -> bool:
    """Whether a parameter is the weight of a linear layer, a convolution or the like.

    Args:
        name: the parameter.
        module: the module that holds it.
        parameter: the parameter, of one network.

    Returns:
        The answer; no for embeddings and normalizations (those over several dimensions have scales of as many), and for
        what is called otherwise than a weight, such as learned positions.
    """
    called = "weight" in name.rpartition(".")[2]
    return parameter.ndim > 1 and called and not is_embedding(module) and not is_normalization(module)


def is_normalization(module: nn.Module) -> bool:
    """Whether a module is a normalization layer, PyTorch's or, by its name, somebody else's.

    Args:
        module: any module.

    Returns:
        The answer.
    """
    return "norm" in type(module).__name__.lower()


def is_embedding(module: nn.Module) -> bool:
    """Whether a module is an embedding, PyTorch's or, by its name, somebody else's.

    Args:
        module: any module.

    Returns:
        The answer.
    """
    return "embedding" in type(module).__name__.lower()


def layers_from_last(model: nn.Module) -> list[nn.Module]:
    """Finds the layers from the last one back, in the order of modules; a layer is a module with a weight matrix.

    An output layer that shares its weight with an embedding is one.

    Args:
        model: the network.

    Returns:
        The modules.
    """
    layers = [
        module
        for module in model.modules()
        if any(
            p.numel() > 0 and is_matrix(name, module, _one(model, p))
            for name, p in module.named_parameters(recurse=False)
        )
    ]
    return layers[::-1]


def matrices_in(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], stated: Mapping[str, int] | None
) -> dict[str, int]:
    """How many matrices lie one below the other in each weight, as queries, keys and values do.

    Args:
        model: the network.
        parameters: the weights, by name.
        stated: what the user says of some, by name or pattern; of PyTorch's own layers it is known.

    Returns:
        The numbers by name.

    Raises:
        ValueError: if a name or pattern matches nothing, or a number does not divide the weight's outputs.
    """
    found = {name: _stacked_in(holder(model, name), name.rpartition(".")[2]) for name in parameters}
    for key, number in ({} if stated is None else stated).items():
        found |= {name: number for name in names_matching(model, key, "blocks") if name in found}
    for name, number in found.items():
        outputs = _one(model, parameters[name]).shape[0]
        if not isinstance(number, int) or number < 1 or outputs % number:
            raise ValueError(f"blocks of {name} is {number!r}; it has to divide its {outputs} outputs")
    return found


def _stacked_in(module: nn.Module, name: str) -> int:
    if isinstance(module, nn.MultiheadAttention) and name == "in_proj_weight":
        return 3
    gates = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
    return next((number for kind, number in gates.items() if isinstance(module, kind)), 1)


def _matching(model: nn.Module, selectors: Selectors, what: str) -> set[str]:
    if isinstance(selectors, str) or callable(selectors):
        selectors = [selectors]
    if isinstance(selectors, Mapping | bytes | Tensor) or not isinstance(selectors, Iterable):
        raise TypeError(f"{what} is {selectors!r:.60}; it is neither {_SELECTORS}, nor a list of these")
    names: set[str] = set()
    for selector in selectors:
        if isinstance(selector, str | type):
            names |= set(names_matching(model, selector, what))
        elif callable(selector) and not isinstance(selector, nn.Module):
            names |= {name for name, parameter in model.named_parameters() if _says(what, selector, name, parameter)}
        else:
            raise TypeError(f"{what} {selector!r:.60} is neither {_SELECTORS}")
    return names


_SELECTORS = "a parameter name, a pattern, a class of module, nor a function of name and parameter"


def _says(what: str, function: Callable[[str, nn.Parameter], Any], name: str, parameter: nn.Parameter) -> bool:
    try:
        return bool(function(name, parameter))
    except Exception as error:
        raise TypeError(
            f"{what} {function!r:.60} does not say of {name} and its parameter whether it is meant: {error}"
        ) from error


def _check_parameters(parameters: dict[str, nn.Parameter]) -> None:
    """Refuses parameters that cannot be acted on."""
    first = next(iter(parameters))
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise ValueError(
                f"parameter {name} is {parameter.dtype}; only real floating-point parameters can be acted on. Leave it "
                f"out with exclude={name!r} where the method has it, or freeze it with requires_grad_(False)"
            )
        if parameter.device != parameters[first].device:
            raise ValueError(
                f"the parameters lie on several devices: {first} on {parameters[first].device}, {name} on "
                f"{parameter.device}. Make one method for the parameters of each device, with include=..., or move the "
                "network to one device first"
            )
        try:
            block_of(parameter)
        except ValueError as error:
            raise ValueError(f"parameter {name}: {error}") from error


def one_a_replica(name: str, value: Any, replicas: int | None, kind: str) -> Tensor:
    """A setting as a tensor on the CPU, [] or [R]; where ``replicas`` is None, of a single network, one number."""
    try:
        numbers = value.detach().cpu() if isinstance(value, Tensor) else torch.tensor(value)
        if numbers.is_floating_point() and not isinstance(value, Tensor):
            numbers = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        if "verflow" in str(error):
            raise ValueError(f"{name} is {value!r}, which does not fit into 64 bits") from error
        raise TypeError(f"{name} is {value!r}; it has to be a {kind}") from error
    if numbers.dtype == torch.bool or numbers.is_complex() or _holds_a_switch(value):
        raise TypeError(f"{name} is {value!r}; it has to be a {kind}")
    if numbers.ndim > 1 or (numbers.ndim == 1 and len(numbers) != replicas):
        remedy = "; this network is a single one" if replicas is None else f" or {replicas} {kind}s, one a replica"
        raise ValueError(f"{name} has shape {tuple(numbers.shape)}; it has to be a {kind}{remedy}")
    return numbers


def _holds_a_switch(value: Any) -> bool:
    """Whether there is True or False among several numbers."""
    return isinstance(value, list | tuple) and any(isinstance(one, bool) or _holds_a_switch(one) for one in value)


def in_range(name: str, numbers: Tensor, low: float, high: float, whole: bool) -> Tensor:
    """Checks the range of a setting, and gives it as float64, or int64 where it has to be whole."""
    numbers = numbers.double()
    high = min(high, _WHOLE) if whole else high
    wrong = ~((numbers >= low) & (numbers <= high) & numbers.isfinite())
    if whole:
        wrong |= numbers != numbers.floor()
    if wrong.any():
        kind = "a whole number" if whole else "a finite number"
        upper = "" if high in (float("inf"), _WHOLE) else f" and at most {high:g}"
        raise ValueError(f"{name} is {numbers[wrong].view(-1)[0]:g}; it has to be {kind} of at least {low:g}{upper}")
    return numbers.to(torch.int64) if whole else numbers


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """Checks a setting that is one of several words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; it has to be one of {', '.join(map(repr, allowed))}")
    return value


def restore(tensors: Mapping[Any, Tensor] | Sequence[Tensor], saved: Mapping[Any, Tensor] | Sequence[Tensor]) -> None:
    """Copies saved tensors back into the tensors they were saved from; nothing is written if one does not fit."""
    if len(tensors) != len(saved):
        raise ValueError(
            f"the state has {len(saved)} tensors where {len(tensors)} are needed; was it saved with other settings?"
        )
    keys = list(tensors) if isinstance(tensors, Mapping) else range(len(tensors))
    for key in keys:
        if isinstance(saved, Mapping) and key not in saved:
            raise ValueError(f"the state has no tensor for {key}")
        if tensors[key].shape != saved[key].shape:
            raise ValueError(
                f"the state has a tensor of shape {tuple(saved[key].shape)}, not {tuple(tensors[key].shape)}"
            )
    for key in keys:
        tensors[key].copy_(saved[key])


def frames() -> Iterator[FrameType]:
    """Goes through the frames of Python functions that are running.

    Yields:
        The frame of the caller, then of what called it, and so on.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def frames_within() -> int:
    """Counts the frames of supple and of torch above the caller, so that a warning can name what called them.

    Returns:
        The ``stacklevel`` of a warning of the caller.
    """
    running = list(frames())  # this function's own is the first
    within = itertools.takewhile(
        lambda one: one.f_globals.get("__name__", "").startswith(("supple.", "torch.")), running
    )
    return len(list(within))
