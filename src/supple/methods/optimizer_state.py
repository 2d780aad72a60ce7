"""What an optimizer gives a new entry, for any optimizer."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class FreshState:
    """The state that an optimizer gives entries that have just come to be.

    It is found by letting a copy of the optimizer take its first step on a small parameter of its own, with a gradient
    of zero and no weight decay. The parameter's entries are 0 and 1: where the state they get differs, the state
    follows the parameter (the average of ASGD), and the new value of the entry enters into it.

    Args:
        optimizer: the optimizer; its own parameters and state are not touched.
        replicas: number of networks stacked in its parameters, whose settings may differ.
        parameters: the parameters whose entries will be made fresh, by name.

    Raises:
        ValueError: if one of them is not the optimizer's, or the optimizer cannot take such a step.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, replicas: int, parameters: Mapping[str, torch.nn.Parameter]
    ) -> None:
        self._optimizer = optimizer
        self._replicas = replicas
        self._known: dict[
            tuple[int, torch.dtype, torch.device], tuple[list[Any], dict[str, tuple[Tensor, Tensor]]]
        ] = {}
        for name, parameter in parameters.items():
            try:
                self._fresh(parameter)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    def entries(self, parameter: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The state tensors of a parameter that have an entry for each of its entries.

        Args:
            parameter: one of the optimizer's parameters.

        Returns:
            For each such tensor: (state, offset, slope), where the fresh state of an entry of value w in replica r is
            offset[r] + slope[r] * w; both are [R]. Empty before the optimizer's first step.

        Raises:
            ValueError: if the parameter is not one of the optimizer's, or the optimizer keeps its state in tensors of
                another shape.
        """
        state: dict[str, Any] = self._optimizer.state.get(parameter, {})
        if not state:
            return []
        fresh = self._fresh(parameter)
        found = []
        for key, (offset, slope) in fresh.items():
            tensor = state.get(key)
            if tensor is None:
                continue
            if tensor.shape != parameter.shape:
                raise ValueError(
                    f"{type(self._optimizer).__name__} keeps {key!r} of a parameter of shape {tuple(parameter.shape)} "
                    f"in shape {tuple(tensor.shape)}, so single entries cannot be made fresh; "
                    'use optimizer_state="keep"'
                )
            found.append((tensor, offset, slope))
        return found

    def _group(self, parameter: Tensor) -> tuple[int, dict[str, Any]]:
        for number, group in enumerate(self._optimizer.param_groups):
            if any(parameter is other for other in group["params"]):
                return number, group
        raise ValueError(
            f"a parameter of shape {tuple(parameter.shape)} is not in the {type(self._optimizer).__name__} that was "
            'given; pass the optimizer of the whole network, or use optimizer_state="keep"'
        )

    def _fresh(self, parameter: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        number, group = self._group(parameter)
        key = (number, parameter.dtype, parameter.device)
        # A scheduler may have changed the step size, which some optimizers (Rprop) give a new entry.
        settings = [_version(value) for name, value in group.items() if name != "params"]
        known = self._known.get(key)
        if known is None or known[0] != settings:
            known = self._known[key] = (settings, self._probe(parameter, group))
        return known[1]

    def _probe(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        probe = torch.zeros(self._replicas, 2, dtype=parameter.dtype, device=parameter.device, requires_grad=True)
        with torch.no_grad():
            probe[:, 1] = 1
        probe.grad = torch.zeros_like(probe)
        kind = type(self._optimizer)
        # Optimizer.__getstate__, which copy.copy asks, leaves out what a subclass keeps in attributes of its own; and
        # what the twin writes into dicts must not stay in the optimizer.
        twin = object.__new__(kind)
        attributes = vars(self._optimizer).items()
        vars(twin).update({name: copy.copy(value) if isinstance(value, dict) else value for name, value in attributes})
        twin.state = defaultdict(dict)
        twin.param_groups = [{**group, "params": [probe]}]
        if "weight_decay" in group:
            twin.param_groups[0]["weight_decay"] = 0.0
        # The user's hooks and the step that a scheduler has wrapped belong to the real optimizer only.
        twin._optimizer_step_pre_hooks = OrderedDict()
        twin._optimizer_step_post_hooks = OrderedDict()
        try:
            kind.step(twin)
        except Exception as error:
            raise ValueError(
                f"what {kind.__name__} gives a new entry cannot be found, because a step with a gradient of 0 fails "
                f'({error}); use optimizer_state="keep"'
            ) from error
        # Some optimizers move the parameter even with a gradient of zero (ASGD by its lambd), and the state with it.
        zero, one = probe.detach().unbind(dim=1)
        found = {}
        for name, value in twin.state[probe].items():
            if isinstance(value, Tensor) and value.shape == probe.shape:
                slope = (value[:, 1] - value[:, 0]) / (one - zero)
                found[name] = (value[:, 0] - slope * zero, slope)
        return found


def _version(value: Any) -> Any:
    """Something that differs after a setting was replaced or, if it is a tensor, written into."""
    return (id(value), value._version) if isinstance(value, Tensor) else value
