"""What the optimizers for stacked parameters share: settings that differ by replica, and decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

Setting = float | Sequence[float] | Tensor
"""A number, or one a replica: a tensor [R], or a list, which becomes one."""


class ReplicatedOptimizer(torch.optim.Optimizer):
    """An optimizer whose step size and weight decay may differ by replica.

    ``lr`` and ``weight_decay`` of a group are numbers, or tensors [R] whose entry r is for row r of the first dimension
    of each of the group's parameters. They may be changed between steps, by another value or in place. (The schedulers
    of ``torch.optim.lr_scheduler`` change numbers and tensors of one entry only.) A list of R numbers becomes a tensor.

    Weight decay is decoupled from the gradient and from the step size: before the gradient step, w -= weight_decay * w.
    The decay of ``torch.optim.AdamW`` is lr * weight_decay; to get it, divide by lr.

    Args:
        params: parameters, or groups of them, as for every ``torch.optim.Optimizer``.
        defaults: settings of the groups that say nothing else; among them "lr" and "weight_decay".

    Raises:
        TypeError: if a setting is neither a number nor a tensor nor a list of numbers.
        ValueError: if a setting is negative, or is a tensor that does not fit the parameters.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self._broadcast: dict[tuple[str, Tensor], tuple[float | Tensor, int, Tensor]] = {}
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._broadcast = {}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, and checks its step size and weight decay.

        Args:
            param_group: "params", and settings that differ from the defaults.

        Raises:
            TypeError: if a setting is neither a number nor a tensor nor a list of numbers.
            ValueError: if a setting is negative, or is a tensor that does not fit the group's parameters.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for name in ("lr", "weight_decay"):
                group[name] = _as_setting(name, group[name])
                _check_setting(name, group[name], group["params"])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step for all parameters that have a gradient.

        Args:
            closure: computes the loss and its gradients once more, and returns the loss; seldom needed.

        Returns:
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            self.decay_weights(group, parameters)
            self._update(group, parameters, [parameter.grad for parameter in parameters])
        return loss

    def decay_weights(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Subtracts the weight decay of one step: w -= weight_decay * w.

        Args:
            group: the settings.
            parameters: parameters of the group.
        """
        if not (isinstance(group["weight_decay"], float | int) and group["weight_decay"] == 0):
            decay = self.per_parameter(group, "weight_decay", parameters)
            torch._foreach_addcmul_(parameters, parameters, decay, value=-1)

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Takes the gradient step for those parameters of a group that have a gradient, one or more."""
        raise NotImplementedError

    def per_parameter(self, group: dict[str, Any], name: str, parameters: list[Tensor]) -> list[Tensor]:
        """A setting, for each parameter shaped to multiply it; made once, and again when the setting has changed.

        Args:
            group: the settings.
            name: "lr" or "weight_decay".
            parameters: parameters of the group.

        Returns:
            For each parameter a tensor [] or [R, 1, ...], of its dtype and on its device.
        """
        # A list is kept as a tensor, whose version tells when it is changed.
        setting = group[name] = _as_setting(name, group[name])
        version = setting._version if isinstance(setting, Tensor) else 0
        shaped = []
        for parameter in parameters:
            known = self._broadcast.get((name, parameter))
            if known is None or known[0] is not setting or known[1] != version:
                known = (setting, version, _broadcast_setting(setting, parameter))
                self._broadcast[name, parameter] = known
            shaped.append(known[2])
        return shaped


def _as_setting(name: str, setting: Setting) -> float | Tensor:
    """A setting as a number or a tensor; of a list or tuple of numbers, float64 [R] on the CPU."""
    if isinstance(setting, Real | Tensor) and not isinstance(setting, bool):
        return setting
    entries = setting if isinstance(setting, list | tuple) else []
    if entries and all(isinstance(entry, Real) and not isinstance(entry, bool) for entry in entries):
        return torch.tensor([float(entry) for entry in entries], dtype=torch.float64, device="cpu")
    raise TypeError(
        f"{name} is {setting!r}; give a number, or a tensor or list of numbers [R] with one a replica, such as "
        f"{name}=torch.tensor([0.1, 0.2])"
    )


def _broadcast_setting(setting: float | Tensor, parameter: Tensor) -> Tensor:
    """A setting as a tensor [] or [R, 1, ...] that multiplies a parameter, with its dtype and device."""
    if not isinstance(setting, Tensor):
        return torch.full((), setting, dtype=parameter.dtype, device=parameter.device)
    value = setting.detach().to(parameter.device, parameter.dtype)
    return value.view(-1, *(1,) * (parameter.ndim - 1)) if value.ndim else value


def _check_setting(name: str, setting: float | Tensor, parameters: list[Tensor]) -> None:
    """Refuses a setting that is negative, no number, or a tensor that does not fit the parameters."""
    if not isinstance(setting, Tensor):
        if not setting >= 0:
            raise ValueError(f"{name} is {setting}; it has to be 0 or more")
        return
    if not bool((setting >= 0).all()):
        raise ValueError(f"{name} is {setting.tolist()}; every entry has to be 0 or more")
    for parameter in parameters if setting.ndim else ():
        if setting.ndim > 1 or parameter.ndim == 0 or len(setting) != len(parameter):
            raise ValueError(
                f"{name} has shape {tuple(setting.shape)}, but a parameter has shape {tuple(parameter.shape)}; give a "
                "number, or a tensor with one entry for each row of every parameter (one a replica)"
            )
