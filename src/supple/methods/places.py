"""Noticing that a model has got other parameters than those a method was made for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from supple.functional.sharding import is_sharded


class Places:
    """Where the parameters of a model are held.

    Args:
        model: the model.
        parameters: those of its parameters that matter, by name.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        modules: dict[str, tuple[dict[str, nn.Module | None], str, nn.Module]] = {}
        self._parameters = []
        for name, parameter in parameters.items():
            *path, last = name.split(".")
            module = model
            for depth, key in enumerate(path):
                holder, module = module._modules, module.get_submodule(key)
                modules[".".join(path[: depth + 1])] = (holder, key, module)
            # fully_shard lets a module hold gathered parameters for a time; the sharded ones are still those.
            if not is_sharded(parameter):
                self._parameters.append((name, module._parameters, last, parameter, parameter.device, parameter.dtype))
        self._modules = list(modules.items())

    def check(self) -> None:
        """Checks that the model still holds the same parameters, where they were and of the same type.

        Raises:
            RuntimeError: if not; the message says what to do.
        """
        for path, (holder, key, module) in self._modules:
            if holder.get(key) is not module:
                raise RuntimeError(
                    f"module {path} of the model was replaced after this method was made; make the method, and the "
                    "optimizer, after that"
                )
        for name, held, last, parameter, device, dtype in self._parameters:
            if held.get(last) is not parameter:
                raise RuntimeError(
                    f"the model's parameters were replaced after this method was made ({name}), as by "
                    "load_state_dict(assign=True); make the method after that, or load without assign"
                )
            if parameter.device != device or parameter.dtype != dtype:
                raise RuntimeError(
                    f"{name} was {dtype} on {device} when this method was made and is {parameter.dtype} on "
                    f"{parameter.device} now; make the method, and the optimizer, after model.to(...)"
                )
