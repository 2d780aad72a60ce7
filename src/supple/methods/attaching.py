"""What lets a method act by itself around each step of its optimizer, through the optimizer's own hooks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.hooks import RemovableHandle

from supple.functional.initial import Distribution, from_dict
from supple.methods.arguments import frames

if TYPE_CHECKING:
    from supple.methods.base import Method

KEY = "supple"
"""Under which the first group of an optimizer's ``state_dict()`` holds the state of the attached method.

An optimizer without a method keeps what it does not know there, through any number of saves and loads, until a method
is attached that takes it. ``torch.distributed.checkpoint`` keeps it too.
"""

_STEP = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
"""What runs a step between its hooks."""


class Attachment:
    """Lets a method act around each step of its optimizer, and its state travel with the optimizer's.

    Relied on: ``step`` of the optimizer is what updates the weights.

    Args:
        method: the method.
        checkpoint: whether the optimizer's ``state_dict()`` holds the method's state.
    """

    def __init__(self, method: Method, checkpoint: bool) -> None:
        self.method = method
        self.optimizer = _optimizer_of(method)
        self._acting = self._skipped = False
        _check(method, self.optimizer, checkpoint)
        self._handles = around_steps(self.optimizer, self._before, self._after)
        try:
            if checkpoint:
                self._carry()
        except BaseException:
            self.remove()
            raise
        for one in (method, *method.parts):
            one.attachment = self

    def remove(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()
        for one in (self.method, *self.method.parts):
            one.attachment = None

    def check(self, method: Method) -> None:
        """Raises a RuntimeError if a method is called by anybody else.

        Args:
            method: the method that is called.
        """
        if not self._acting:
            raise RuntimeError(
                f"{type(method).__name__} is attached to the {type(self.optimizer).__name__} and acts by itself around "
                "each of its steps, so calling it as well would let it act twice; leave the call out, or detach() it"
            )

    # Around a step.

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # A GradScaler lets fused optimizers see an overflow by themselves, and tells them by this. Reading it waits for
        # the device, as the scaler itself does with all other optimizers.
        overflow = getattr(optimizer, "found_inf", None)
        self._skipped = overflow is not None and bool(overflow)
        if self._skipped or not self.method.acts_before_step:
            return None
        if getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError(
                f"{type(self.method).__name__} needs the gradients before the step, which this fused "
                f"{type(optimizer).__name__} gets scaled from the GradScaler; call scaler.unscale_(optimizer) before "
                "scaler.step(optimizer)"
            )
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._act(self.method.before_step)
            return None
        watched = self._watched(closure)
        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, kwargs | {"closure": watched})

    def _watched(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that computes gradients, after which the method adds to them."""
        evaluated = False

        def evaluate() -> Any:
            nonlocal evaluated
            loss = closure()
            for part in self.method.parts:
                if not (evaluated and part.reshapes):
                    self._act(part.before_step)
            evaluated = True
            return loss

        return evaluate

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._skipped:
            self._act(self.method.step)

    def _act(self, what: Callable[[], None]) -> None:
        self._acting = True
        try:
            what()
        finally:
            self._acting = False

    # With the optimizer's state.

    def _carry(self) -> None:
        """Takes over the state that the optimizer was loaded with, and lets it be saved and loaded from now on."""
        optimizer, kind = self.optimizer, type(self.optimizer).__name__
        self._handles += [
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]
        if KEY not in optimizer.state_dict()["param_groups"][0]:
            raise ValueError(
                f"state_dict() of this {kind} calls no hooks, so it cannot hold the state of a method; attach without "
                "checkpoint=True, and save method.state_dict() beside it"
            )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # torch.distributed.checkpoint loads only what is there already.
            for part in self.method.parts:
                if part.memory is not None:
                    part.memory.bear_all()
        group = optimizer.param_groups[0]
        if KEY in group:
            self.method.load_state_dict(group[KEY])
            del group[KEY]

    def _save(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        first, *others = state["param_groups"]
        state["param_groups"] = [first | {KEY: self.method.state_dict()}, *others]

    def _load(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        first, *others = state["param_groups"]
        if [len(group["params"]) for group in (first, *others)] != [len(g["params"]) for g in optimizer.param_groups]:
            return state  # which the optimizer refuses
        if KEY in first:
            self.method.load_state_dict(first[KEY])
        else:
            warnings.warn(
                f"the state that is loaded into the {type(optimizer).__name__} holds none of a method, as it was saved "
                f"without attach(checkpoint=True); {type(self.method).__name__} goes on as it is",
                UserWarning,
                stacklevel=3,
            )
        return state | {"param_groups": [{k: v for k, v in first.items() if k != KEY}, *others]}


def around_steps(
    optimizer: torch.optim.Optimizer, before: Callable[..., Any], after: Callable[..., None]
) -> list[RemovableHandle]:
    """Has something done around each step of an optimizer, once, and outside of compiled steps.

    The step of an optimizer may call that of its base class, whose hooks are called then as well: the outermost one
    counts. The step that only makes the optimizer's state is none.

    Args:
        optimizer: the optimizer.
        before: called before a step as a hook of ``register_step_pre_hook``.
        after: called after a step as a hook of ``register_step_post_hook``.

    Returns:
        What takes the hooks away.

    Raises:
        ValueError: if ``step`` of the optimizer calls no hooks.
    """
    if not (getattr(type(optimizer).step, "hooked", False) and hasattr(optimizer, "_optimizer_step_post_hooks")):
        raise ValueError(
            f"step() of this {type(optimizer).__name__} calls no hooks, so nothing can be attached to it; call "
            "method.step() after it, or watch.measure()"
        )

    # Of a class whose base class has a step of its own, too.
    nests = sum("step" in vars(kind) for kind in type(optimizer).__mro__) > 2

    def only(hook: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(hook)  # by whose name the compiler says what it cannot take into one graph
        def outermost(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
            none = (nests and _is_within_a_step(optimizer)) or _only_makes_state()
            return None if none else hook(optimizer, args, kwargs)

        return torch.compiler.disable(outermost)

    return [optimizer.register_step_pre_hook(only(before)), optimizer.register_step_post_hook(only(after))]


def saved_distributions(method: Method) -> dict[str, Distribution]:
    """The initial distributions in the state of a method that the optimizer was loaded with.

    Args:
        method: a method of the same kind, on the same parameters.

    Returns:
        By parameter name; nothing where the optimizer holds no such state.
    """
    saved = {} if method.optimizer is None else method.optimizer.param_groups[0].get(KEY, {})
    shapes = {name: list(parameter.shape) for name, parameter in method.parameters.items()}
    for state in saved.get("methods", [saved]):
        if state.get("method") == type(method).__name__ and state.get("shapes") == shapes:
            return {name: from_dict(one) for name, one in state["initial"].items()}
    return {}


def _optimizer_of(method: Method) -> torch.optim.Optimizer:
    found = {id(one.optimizer): one.optimizer for one in method.parts if one.optimizer is not None}
    if not found:
        raise ValueError(
            f"{type(method).__name__} has no optimizer around whose steps it could act; pass it as the second "
            f"argument: {type(method.parts[0]).__name__}(model, optimizer, ...)"
        )
    optimizer, *others = found.values()
    if others:
        raise ValueError(
            "the methods of this chain have different optimizers, which take their steps at other times; attach each "
            "of them by itself"
        )
    return optimizer


def _check(method: Method, optimizer: torch.optim.Optimizer, checkpoint: bool) -> None:
    """Raises if a method cannot be attached."""
    kind = type(optimizer).__name__
    for part in method.parts:
        part._check_usable()
        if part.attachment is not None:
            raise RuntimeError(f"{type(part).__name__} is attached already, to the {kind}; detach() it first")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for part in method.parts:
        trained = [name for name in part._written() if part.parameters[name].requires_grad]
        missing = [name for name in trained if id(part.parameters[name]) not in held]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"the {kind} does not hold {missing[0]}{others}, on which {type(part).__name__} acts, so its steps do "
                "not tell when they are trained; make a method for each optimizer, with include=... where it acts on "
                "weights; hidden units need all of their weights in one optimizer"
            )
    hooks = getattr(optimizer, "_optimizer_state_dict_post_hooks", {}).values()
    carried = [hook.__self__ for hook in hooks if isinstance(getattr(hook, "__self__", None), Attachment)]
    if checkpoint and carried:
        raise ValueError(
            f"the state of the {kind} holds that of {carried[0].method!r} already, and it holds one; make them one "
            "method: supple.chain(a, b).attach(checkpoint=True)"
        )


def _is_within_a_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is called by the step of a subclass, which calls the same hooks."""
    running = (frame for frame in frames() if frame.f_code is _STEP and frame.f_locals["args"][0] is optimizer)
    return len(list(islice(running, 2))) > 1


def _only_makes_state() -> bool:
    """Whether ``torch.distributed.checkpoint`` takes a step with gradients of 0, to have something to load into."""
    return "torch.distributed.checkpoint.state_dict" in sys.modules and any(
        frame.f_code.co_name == "_init_optim_state" for frame in islice(frames(), 12)
    )
