"""Runs copies of a model and notes what each operation does to its units."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.nn.parameter import is_lazy

from supple.structure.tracing.course import Course, Decision
from supple.structure.tracing.record import Record
from supple.structure.tracing.watch import OriginalUsedError, tensors_in, watching

_ENOUGH = 8
"""So many passes in a row that show nothing new are taken for a sign that there is nothing more to see."""
_MOST = 64
"""Passes with random numbers, and again with turned decisions."""


def run(model: nn.Module, example: Any) -> list[Record]:
    """Runs copies of a model and notes what happens to the units, in as many passes as there is something to see.

    A copy's parameters and buffers have shapes but no values (``FakeTensorMode``), so nothing is computed and no memory
    is needed. Unlike symbolic tracing (``torch.fx``) this runs any Python code, such as loops and ``if`` over shapes;
    unlike ``torch.export`` it keeps the modules as they are called and needs no compiler.

    Only a model that does not run so, as it decides by the values of a tensor (``if``, ``nonzero``, ``.item()``), is
    copied with its values. If it does not run so either, although it does where nobody looks on, the module in which it
    fails is run as a whole, and what goes into it is left out. Each decision that always went one way is then turned
    once, to see the other way; where that ends in an error, it tells nothing. Where random numbers are drawn, passes
    with others follow until these show nothing new.

    Args:
        model: any module. It runs in the mode it is in and, if that is evaluation, in training mode too.
        example: its input: a tensor; a tuple or list of arguments; a mapping of keyword arguments; or anything else
            that holds tensors, such as a dataclass, a named tuple or a ``TensorDict``, as the only argument.

    Returns:
        What was noted in each pass.

    Raises:
        ValueError: if the model cannot be copied, or does not run on the example; the message names the module.

    Warns:
        UserWarning: if a model in evaluation mode does not run in training mode.
    """
    records = _Passes(model, example, model.training).records
    if not model.training:
        try:
            records += _Passes(model, example, True).records
        except ValueError as error:
            message = "in training mode, so that only what reads units in evaluation mode was seen"
            warnings.warn(f"{error}, {message}", stacklevel=4)
    return records


class _Passes:
    """The passes of a model in training or evaluation mode."""

    def __init__(self, model: nn.Module, example: Any, training: bool) -> None:
        self.model, self.example, self.training = model, example, training
        self.records: list[Record] = []
        self._values = False
        self._unknown: dict[str, str] = {}
        self._seen: set[Any] = set()
        self._decided: dict[Decision, set[bool]] = {}
        course = Course()
        try:
            with _silent("torch._subclasses.fake_tensor"):
                self._run(course)
        except ValueError:
            if any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers(), *tensors_in(example)]):
                raise
            self._values = True
            course = self._with_values()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first pass has told
            if course.chance:
                self._repeat()
            self._turn()

    def _with_values(self) -> Course:
        """The first pass with values: a module in which that fails is not looked into, nor what holds it if it must."""
        failure: _FailedError | None = None
        while True:
            course = Course()
            try:
                self._run(course)
            except _FailedError as error:
                failure = failure or error
                place = next((name for name in reversed(error.stack) if name not in self._unknown), "")
                if not place or isinstance(error.__cause__, OriginalUsedError) or len(self._unknown) >= _MOST:
                    raise failure from failure.__cause__
                self._unknown[place] = f"{type(error.__cause__).__name__}: {error.__cause__}".split("\n")[0]
            else:
                return course

    def _repeat(self) -> None:
        """Runs with other random numbers until nothing new is seen."""
        for lean in ("low", "high"):
            with contextlib.suppress(ValueError):
                self._run(Course(lean=lean))
        nothing = 0
        for seed in range(1, _MOST):
            nothing = 0 if self._run(Course(seed)) else nothing + 1
            if nothing == _ENOUGH:
                break

    def _turn(self) -> None:
        """Has each decision that always went one way go the other way once."""
        always = [decision for decision, outcomes in self._decided.items() if len(outcomes) == 1]
        for decision in always[:_MOST]:
            with contextlib.suppress(ValueError):
                self._run(Course(turned=decision))

    def _run(self, course: Course) -> bool:
        """One pass; says whether something new was seen."""
        with course.random_numbers(self.model):
            record = _pass(self.model, self.example, self.training, course, self._values, self._unknown)
        for decision, outcome in course.decisions.items():
            self._decided.setdefault(decision, set()).add(outcome)
        self.records.append(record)
        before = len(self._seen)
        self._seen |= record.seen()
        return len(self._seen) > before


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Lets a logger say nothing: what is impossible without values is tried with them."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class _FailedError(ValueError):
    """A pass that failed, with the names of the modules that were running, the outermost first."""

    def __init__(self, message: str, stack: list[str]) -> None:
        super().__init__(message)
        self.stack = stack


def _pass(
    model: nn.Module, example: Any, training: bool, course: Course, values: bool, unknown: Mapping[str, str]
) -> Record:
    """One pass of a copy of the model, with values or without."""
    kind = type(model).__name__
    originals = {id(tensor): (tensor, name) for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    fake = None if values else FakeTensorMode(allow_non_fake_inputs=True)
    what = "it"
    try:
        held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
        twin = _copied(model, [*model.parameters(), *model.buffers(), *held], fake)
        if training and not model.training:
            twin.train()
        what = "the example"
        arguments, keywords = arguments_of(_copied(example, tensors_in(example), fake))
    except Exception as error:
        raise ValueError(f"cannot trace {kind}: {what} cannot be copied ({type(error).__name__}: {error})") from error
    record = Record(twin)
    for tensor in tensors_in((arguments, keywords)):
        record.take_in(tensor)
    try:
        with torch.no_grad(), fake or contextlib.nullcontext(), watching(twin, record, course, originals, unknown):
            output = twin(*arguments, **keywords)
    except Exception as error:
        raise _FailedError(_failure(kind, record, error, example), record.stack) from error
    for tensor in tensors_in(output):
        record.give_out(tensor)
    for name, module in twin.named_modules():
        for tensor in tensors_in(vars(module)):
            record.keep(tensor, name)
    record.forget()
    return record


def _copied(value: Any, tensors: Iterable[Tensor], fake: FakeTensorMode | None) -> Any:
    """A copy of anything that holds these tensors, whose tensors have no values where there is a mode for that."""
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if is_lazy(tensor):
            raise ValueError("it has lazy parameters; run it once before")
        if fake is not None:
            memo[id(tensor)] = fake.from_tensor(tensor)
        elif not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()  # which deepcopy refuses
    return copy.deepcopy(value, memo)


def arguments_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a model is called with on an example: (arguments, keyword arguments)."""
    # A TensorDict is a mapping too, but one argument, with methods of a tensor; so is a named tuple.
    if isinstance(example, Mapping) and not hasattr(example, "clone"):
        return (), dict(example)
    if isinstance(example, tuple | list) and not hasattr(example, "_fields"):
        return tuple(example), {}
    return (example,), {}


def _failure(kind: str, record: Record, error: Exception, example: Any) -> str:
    """What to tell of a pass that failed."""
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return (
            f"cannot trace {kind}: in module {record.place} what it does depends on the values of a tensor ({error}), "
            "but tensors on the meta device have none"
        )
    if isinstance(error, OriginalUsedError):
        return (
            f"cannot trace {kind}: in module {record.place} a function uses {error} of the model it was made with, as "
            "a lambda in __init__ with self in it does, and not that of the copy that is traced; make it a method"
        )
    place = f"in module {record.place} (last operation: {record.last or 'none'})"
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(example))
    reason = str(error).strip().split("\n")[0].rstrip(".") or "no message"
    return f"cannot trace {kind}: it fails {place} on the example (shape {shapes}): {type(error).__name__}: {reason}"
