"""Runs a copy of a model on tensors without values and notes what each operation does to its units."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from supple.structure.tracing.call import Call, mix
from supple.structure.tracing.layout import renewed
from supple.structure.tracing.operations import apply
from supple.structure.tracing.record import Boundary, Record, layer_name

_NORMALIZING: tuple[Callable[..., Tensor], ...] = (
    F.batch_norm,
    F.layer_norm,
    F.group_norm,
    F.instance_norm,
    F.rms_norm,
)
_DROPPING = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


def run(model: nn.Module, example: Any) -> Record:
    """Runs a copy of a model and notes what happens to the units.

    The copy's parameters and buffers have shapes but no values (``FakeTensorMode``), so nothing is computed, no memory
    is needed, and neither the model nor a random number generator can change. Operations are seen below autograd
    (``TorchDispatchMode``), where functions, methods and operators of any spelling are a few hundred ATen operations;
    a few functions that PyTorch takes apart in ways that depend on version and device are seen as they are called
    (``TorchFunctionMode``). Hooks see what modules take in and give out, which is where features can be read.

    Unlike symbolic tracing (``torch.fx``) this runs any Python code, such as loops and ``if`` over shapes; unlike
    ``torch.export`` it keeps the modules as they are called and needs no compiler. A decision that depends on the
    values of a tensor cannot be made. A model that makes one in training mode is run in evaluation mode instead, in
    which no layer is left out at random; one that makes it there too is an error.

    Args:
        model: any module; it runs in the mode it is in (training or evaluation).
        example: its input, of which only the shapes matter: a tensor, a tuple or list of arguments, or a mapping of
            keyword arguments.

    Returns:
        What was noted.

    Raises:
        ValueError: if the model cannot be copied, or does not run on the example; the message names the module.
    """
    try:
        return _run(model, example)
    except ValueError as error:
        if not (model.training and isinstance(error.__cause__, DataDependentOutputException)):
            raise
        with contextlib.suppress(ValueError):
            return _run(model, example, evaluating=True)
        raise


def _run(model: nn.Module, example: Any, evaluating: bool = False) -> Record:
    """What :func:`run` does, in the mode that the model is in, or evaluating."""
    kind = type(model).__name__
    own = [*model.named_parameters(), *model.named_buffers()]
    originals = {id(tensor): (tensor, name) for name, tensor in own}
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        twin = _twin(model, fake)
        if evaluating:
            twin.eval()
        record = Record(twin)
        _watch(twin, record)
    except Exception as error:
        raise ValueError(f"cannot trace {kind}: it cannot be copied ({type(error).__name__}: {error})") from error
    arguments, keywords = _arguments(_map(example, lambda tensor: fake.from_tensor(tensor)))
    for tensor in _tensors((arguments, keywords)):
        record.take_in(tensor)
    try:
        with _taken_apart(), torch.no_grad(), fake, _Operations(record, originals), _Functions(record):
            output = twin(*arguments, **keywords)
    except Exception as error:
        raise ValueError(_failure(kind, record, error, example)) from error
    for tensor in _tensors(output):
        record.give_out(tensor)
    for name, module in twin.named_modules():
        for tensor in _tensors(vars(module)):
            record.keep(tensor, name)
    return record


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


def _twin(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy of the model whose tensors have no values."""
    memo: dict[int, Any] = {}
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    for tensor in tensors:
        if is_lazy(tensor):
            raise ValueError("it has lazy parameters; run it once before")
        memo[id(tensor)] = fake.from_tensor(tensor)
    return copy.deepcopy(model, memo)


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    return (example,), {}


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of mappings and sequences with every tensor replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map(item, function) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, function) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(item, function) for item in value)
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
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
            if isinstance(value, Mapping):
                value = list(value.values())
            elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type | Sequence | set):
                value = list(vars(value).values())
            if isinstance(value, Sequence | set) and not isinstance(value, str | bytes | range):
                left += reversed(list(value))


def _watch(model: nn.Module, record: Record) -> None:
    """Has modules tell when they are called, and what they take in and give out."""

    def watch(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            record.stack.append(name)
            record.calls[name] += 1
            tensors = (value for value in keywords.values() if isinstance(value, Tensor))
            first = inputs[0] if inputs else next(tensors, None)
            if isinstance(first, Tensor):
                record.boundaries.append(Boundary(name, "input", record.value(first)))

        def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            record.stack.pop()
            if isinstance(output, Tensor):
                record.boundaries.append(Boundary(name, "output", record.value(output)))

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after)

    for name, module in model.named_modules():
        _drop_hooks(module)
        watch(name, module)


def _drop_hooks(module: nn.Module) -> None:
    """Removes hooks of others, which are not to see the copy; those of PyTorch compute weights, as in pruning."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(hooks.items()):
            if not any(kind.__module__.startswith("torch.nn.utils.") for kind in type(hook).__mro__):
                del hooks[key]


class _OriginalUsedError(Exception):
    """An operation takes in a tensor of the model itself, not of the copy."""


class _Operations(TorchDispatchMode):
    """Sees the operations of ATen.

    Args:
        record: takes what is noted.
        originals: the parameters and buffers of the model that was copied and their names, by id.
    """

    def __init__(self, record: Record, originals: Mapping[int, tuple[Tensor, str]]) -> None:
        super().__init__()
        self.record, self.originals = record, originals

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        record = self.record
        record.last = str(func)
        tensors = list(_tensors([args, list(kwargs.values())]))
        for tensor in tensors:
            if id(tensor) in self.originals:
                raise _OriginalUsedError(self.originals[id(tensor)][1])
        if record.quiet:
            return func(*args, **kwargs)
        # Before the operation, which may change them in place.
        shapes, values = [tensor.shape for tensor in tensors], [record.value(tensor) for tensor in tensors]
        output = func(*args, **kwargs)
        outputs = list(_tensors(output))
        if not outputs:
            return output
        # Higher-order operators have no schema.
        schema = getattr(func, "_schema", None)
        name, declared = (str(func), []) if schema is None else (schema.name.split("::")[-1], schema.arguments)
        in_place = name.endswith("_") and not name.endswith("__")
        given = {argument.name: argument.default_value for argument in declared if argument.has_default_value()}
        given |= dict(zip((argument.name for argument in declared), args, strict=False)) | kwargs
        pointwise = torch.Tag.pointwise in getattr(func, "tags", ())
        call = Call(name.rstrip("_") if in_place else name, given, tensors, shapes, values, outputs, pointwise)
        for tensor, value in zip(outputs, apply(record, call), strict=True):
            (record.write if in_place else record.set)(tensor, value)
        return output


class _Functions(TorchFunctionMode):
    """Sees the functions that are taken as a whole: normalization, dropout and recurrence."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        whole = func in _NORMALIZING or func in _DROPPING or name in _RECURRENT
        if self.record.quiet or not whole:
            return func(*args, **kwargs)
        self.record.quiet = True
        try:
            output = func(*args, **kwargs)
        finally:
            self.record.quiet = False
        self._note(func, name, args, kwargs, list(_tensors(output)))
        return output

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        record = self.record
        tensors = list(_tensors([args, list(kwargs.values())]))
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
                record.use(value)
            results = mix(record, call, f"they go into {record.place}, a recurrent layer ({name})")
        for tensor, result in zip(outputs, results, strict=True):
            record.set(tensor, result)


def _failure(kind: str, record: Record, error: Exception, example: Any) -> str:
    """What to tell of a trace that failed."""
    place = f"in module {record.place} (last operation: {record.last or 'none'})"
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return (
            f"cannot trace {kind}: in module {record.place} what it does depends on the values of a tensor ({error}), "
            "but tracing knows shapes only"
        )
    if isinstance(error, _OriginalUsedError):
        return (
            f"cannot trace {kind}: in module {record.place} a function uses {error} of the model it was made with, as "
            "a lambda in __init__ with self in it does, and not that of the copy that is traced; make it a method"
        )
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in _tensors(example))
    reason = str(error).strip().split("\n")[0].rstrip(".") or "no message"
    return f"cannot trace {kind}: it fails {place} on the example (shape {shapes}): {type(error).__name__}: {reason}"
