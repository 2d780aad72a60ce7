"""Sees what a model does while it runs: the calls of its modules, and the operations in them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from supple.structure.pointwise import is_pointwise
from supple.structure.tracing.call import Call, mix
from supple.structure.tracing.course import Course
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.operations import apply
from supple.structure.tracing.record import Boundary, Record, layer_name
from supple.structure.tracing.values import Kind

_NORMALIZING: tuple[Callable[..., Tensor], ...] = (
    F.batch_norm,
    F.layer_norm,
    F.group_norm,
    F.instance_norm,
    F.rms_norm,
)
_DROPPING = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
_LEAVING = ("numpy", "tolist", "__array__", "__dlpack__")


class OriginalUsedError(Exception):
    """An operation takes in a tensor of the model itself, not of the copy."""


@contextlib.contextmanager
def watching(
    model: nn.Module,
    record: Record,
    course: Course,
    originals: Mapping[int, tuple[Tensor, str]],
    unknown: Mapping[str, str],
) -> Iterator[None]:
    """Notes in the record what a model does that is called meanwhile.

    Operations are seen below autograd (``TorchDispatchMode``), where functions, methods and operators of any spelling
    are a few hundred ATen operations; a few functions that PyTorch takes apart in ways that depend on version and
    device are seen as they are called (``TorchFunctionMode``). Hooks see what modules take in and give out, which is
    where features can be read.

    Args:
        model: a copy of a model; hooks are left on it.
        record: takes what is noted.
        course: which way the pass goes where chance or values decide.
        originals: the parameters and buffers of the model that was copied and their names, by id.
        unknown: the modules that are not looked into, with what is wrong with them.
    """
    for name, module in model.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            _drop_hooks(module)
            _watch(name, module, record)
        if name in unknown:
            module.forward = _unseen(module, record, f"{name}, which cannot be followed ({unknown[name]})")
    with _taken_apart(), _Operations(record, course, originals), _Functions(record):
        yield


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a nest of mappings, sequences and plain objects."""
    # What was seen is kept, so that nothing else gets its id.
    seen: dict[int, Any] = {}
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif id(value) not in seen:
            seen[id(value)] = value
            inside: list[Any] = []
            if isinstance(value, Mapping):
                inside = list(value.values())
            elif isinstance(value, Sequence | set) and not isinstance(value, str | bytes | range):
                inside = list(value)
            elif not isinstance(value, nn.Module | type):
                slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
                inside = [getattr(value, name, None) for name in slots] + list(getattr(value, "__dict__", {}).values())
            left += reversed(inside)


@contextlib.contextmanager
def _taken_apart() -> Iterator[None]:
    """No whole transformer layers in one operation, and no checks of what distributions are made with."""
    fast, validate = torch.backends.mha.get_fastpath_enabled(), Distribution._validate_args
    torch.backends.mha.set_fastpath_enabled(False)
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        Distribution.set_default_validate_args(validate)


def _watch(name: str, module: nn.Module, record: Record) -> None:
    """Has a module tell when it is called, and what it takes in and gives out."""

    def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if record.quiet:
            return
        record.stack.append(name)
        record.calls[name] += 1
        tensors = (value for value in keywords.values() if isinstance(value, Tensor))
        first = inputs[0] if inputs else next(tensors, None)
        if isinstance(first, Tensor):
            record.boundaries.append(Boundary(name, "input", record.value(first)))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if record.quiet:
            return
        record.stack.pop()
        if isinstance(output, Tensor):
            record.boundaries.append(Boundary(name, "output", record.value(output)))

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)


def _unseen(module: nn.Module, record: Record, what: str) -> Callable[..., Any]:
    """The forward of a module that is run as a whole: what goes in is mixed, its own parameters are used."""
    forward = module.forward

    def run(*inputs: Any, **keywords: Any) -> Any:
        held = [value for one in module.modules() for value in vars(one).values()]
        tensors = [*tensors_in((inputs, keywords)), *module.parameters(), *tensors_in(held)]
        tensors = list({id(tensor): tensor for tensor in tensors}.values())
        values, shapes = [record.value(tensor) for tensor in tensors], [tensor.shape for tensor in tensors]
        before, record.quiet = record.quiet, True
        try:
            with _disable_current_modes(), torch.enable_grad():
                output = forward(*inputs, **keywords)
        finally:
            record.quiet = before
        for value in values:
            record.use(value, "it")
            for parameter in value.parameters():
                record.excluded.setdefault(layer_name(parameter), f"it is in {what}")
        outputs = list(tensors_in(output))
        call = Call("it", {}, tensors, shapes, values, outputs, pointwise=False)
        for tensor, value in zip(outputs, mix(record, call, f"they go into {what}"), strict=True):
            record.set(tensor, replace(value, kind=Kind.ACTIVATION))
        return output

    return run


def _drop_hooks(module: nn.Module) -> None:
    """Removes hooks of others, which are not to see the copy; a few are part of what the model computes.

    Those of PyTorch compute weights, as in pruning; those that Transformers sets at the first call collect outputs of
    layers, from which the model computes losses.
    """
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(hooks.items()):
            homes = [getattr(hook, "__module__", None) or "", *(kind.__module__ for kind in type(hook).__mro__)]
            if not any(home.startswith(("torch.nn.utils.", "transformers.")) for home in homes):
                del hooks[key]


class _Operations(TorchDispatchMode):
    """Sees the operations of ATen."""

    def __init__(self, record: Record, course: Course, originals: Mapping[int, tuple[Tensor, str]]) -> None:
        super().__init__()
        self.record, self.course, self.originals = record, course, originals

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        record = self.record
        record.last = str(func)
        tensors = list(tensors_in([args, list(kwargs.values())]))
        for tensor in tensors:
            if id(tensor) in self.originals:
                raise OriginalUsedError(self.originals[id(tensor)][1])
        if record.quiet:
            return self.course.run(func, args, kwargs, record.place)
        # Before the operation, which may change them in place.
        shapes, values = [tensor.shape for tensor in tensors], [record.value(tensor) for tensor in tensors]
        record.operations.add((record.place, record.last, frozenset().union(*(v.parameters() for v in values))))
        output = self.course.run(func, args, kwargs, record.place)
        outputs = list(tensors_in(output))
        if not outputs:
            if torch.Tag.data_dependent_output in getattr(func, "tags", ()):
                for axis in (axis for value in values for axis in value.everything()):
                    axis.exclude(f"what {record.place} does depends on their values")
            return output
        # Higher-order operators have no schema.
        schema = getattr(func, "_schema", None)
        name, declared = (str(func), []) if schema is None else (schema.name.split("::")[-1], schema.arguments)
        in_place = name.endswith("_") and not name.endswith("__")
        given = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in declared), args, strict=False)) | kwargs
        call = Call(name.rstrip("_") if in_place else name, given, tensors, shapes, values, outputs, is_pointwise(func))
        for tensor, value in zip(outputs, apply(record, call), strict=True):
            (record.write if in_place else record.set)(tensor, value)
        return output


class _Functions(TorchFunctionMode):
    """Sees the functions that are taken as a whole (normalization, dropout, recurrence), or that leave PyTorch."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _LEAVING and args:
            self.record.leave(self.record.value(args[0]))
        whole = func in _NORMALIZING or func in _DROPPING or name in _RECURRENT
        if self.record.quiet or not whole:
            return func(*args, **kwargs)
        self.record.quiet = True
        try:
            output = func(*args, **kwargs)
        finally:
            self.record.quiet = False
        self._note(func, name, args, kwargs, list(tensors_in(output)))
        return output

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        record = self.record
        tensors = list(tensors_in([args, list(kwargs.values())]))
        values = [record.value(tensor) for tensor in tensors]
        call = Call(name, {}, tensors, [tensor.shape for tensor in tensors], values, outputs, pointwise=False)
        if func in _NORMALIZING:
            given = inspect.signature(func).bind(*args, **kwargs).arguments
            value, shape = record.value(given["input"]), given.get("normalized_shape")
            parameters = tuple(given.get(key) for key in ("weight", "bias", "running_mean", "running_var"))
            first, many = (1, 1) if shape is None else (len(value.dims) - len(shape), len(shape))
            results = [record.normalize(value, first, many, parameters)]
        elif func in _DROPPING:
            value = record.value(args[0] if args else kwargs["input"])
            results = [replace(value, dims=tuple(map(renewed, value.dims)))]
        else:
            for parameter in {p for value in call.values for p in value.parameters()}:
                module = layer_name(parameter).rpartition(".")[0] or record.place
                record.excluded[module] = f"it is a recurrent layer ({name}), whose units are its state"
            for value in call.values:
                record.use(value, name)
            results = mix(record, call, f"they go into {record.place}, a recurrent layer ({name})")
        for tensor, result in zip(outputs, results, strict=True):
            record.set(tensor, result)
