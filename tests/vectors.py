"""Reads what named programs gave on scripted inputs (tests/vectors, one file a method), and makes networks of it."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@lru_cache
def _file(name: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text())


def cases(name: str) -> list[dict[str, Any]]:
    """The cases of a file."""
    return _file(name)["cases"]


def tensors(values: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Nested lists by name, as tensors."""
    return {name: torch.tensor(value, dtype=dtype) for name, value in values.items()}


def network_of(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """The network of a case, with its initial values."""
    layers: dict[str, nn.Module] = {}
    for layer in case["architecture"]:
        kind, name = layer["kind"], layer["name"]
        if kind == "Linear":
            layers[name] = nn.Linear(layer["in_features"], layer["out_features"], layer["bias"])
        elif kind == "Conv2d":
            layers[name] = nn.Conv2d(
                layer["in_channels"], layer["out_channels"], layer["kernel_size"], bias=layer["bias"]
            )
        elif kind == "LayerNorm":
            layers[name] = nn.LayerNorm(layer["shape"])
        else:
            layers[name] = getattr(nn, kind)()
    model = nn.Sequential(*layers.values()).to(dtype)
    load(model, case["parameters"])
    return model


def load(model: nn.Module, values: dict[str, Any]) -> None:
    """Writes recorded values into the parameters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(values[name], dtype=parameter.dtype))


def gradients_of(step: dict[str, Any], model: nn.Module) -> None:
    """Gives the parameters the gradients of a step."""
    for name, parameter in model.named_parameters():
        parameter.grad = torch.tensor(step["gradients"][name], dtype=parameter.dtype)


def optimizer_of(case: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a case."""
    settings = {key: value for key, value in case["optimizer"].items() if key != "name"}
    return getattr(torch.optim, case["optimizer"]["name"])(model.parameters(), **settings)
