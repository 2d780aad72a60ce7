"""What has to hold for every model that is traced."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

import supple
from supple import Slice, UnitGroup, Units
from supple.methods.layer import Chosen

MIXING = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
"""Normalizations in which units see each other."""


def call(model: nn.Module, example: Any) -> Any:
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def outputs(given: Any) -> list[Tensor]:
    """The tensors of an output, floating-point ones."""
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        given = list(given.values())
    return [t for item in given for t in outputs(item)] if isinstance(given, list | tuple) else []


def double(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example.double() if example.is_floating_point() else example
    if isinstance(example, dict):
        return {key: double(value) for key, value in example.items()}
    return tuple(double(value) for value in example)


def readers(group: UnitGroup) -> list[str]:
    return [consumer.weight.tensor.removesuffix(".weight") for consumer in group.consumers]


NO_UNITS = ("does not use it", "gives its outputs out", "looks its entries up", "makes no units of it")


def assert_accounted(model: nn.Module, found: Units) -> None:
    """Each weight is in a group, or left out by its own name or that of its layer."""
    printed = repr(found)
    parts = {part.tensor for group in found for part in group.parts()}
    for name, parameter in model.named_parameters():
        layers = (name, name.rpartition(".")[0], name.partition(".parametrizations.")[0])
        left_out = any(f"excluded: {layer}{after}" in printed for layer in layers for after in (":", "["))
        assert parameter.ndim < 2 or name in parts or left_out, name


def assert_found(found: Units, groups: dict[str, tuple[int, list[str]]], excluded: dict[str, str]) -> None:
    assert {group.name: (group.size, readers(group)) for group in found} == groups
    assert len({group.name for group in found}) == len(found)
    reasons = {item.name: item.reason for item in found.excluded}
    assert len(reasons) == len(found.excluded)
    assert set(reasons) >= set(excluded)
    assert all(any(words in reason for words in NO_UNITS) for name, reason in reasons.items() if name not in excluded)
    for name, reason in excluded.items():
        assert reason in reasons[name], name


def stated(found: Units) -> dict[str, supple.Distribution]:
    """What is written into replaced units; small layers do not tell by their values."""
    known: dict[str, supple.Distribution] = {"*": supple.Constant(0.0)}
    for group in found:
        known |= {part.tensor: supple.Normal(0.0, 0.5) for part in group.incoming}
        known |= {norm.scale.tensor: supple.Constant(1.0) for norm in group.norms if norm.scale}
    return known


def disturb(model: nn.Module) -> None:
    """Parameters and running statistics get values without a meaning."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor += noise.abs() if name.endswith("bias") else 0.3 * noise  # so that few units are dead
        for name, tensor in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))


@contextlib.contextmanager
def silenced(model: nn.Module, group: UnitGroup, unit: int) -> Iterator[None]:
    """Sets to 0 what every layer that reads a unit takes in from it."""
    handles = []
    for consumer in group.consumers:
        module = model.get_submodule(consumer.weight.tensor.removesuffix(".weight"))
        dim = 1 if isinstance(module, _ConvNd) else -1
        layout = Slice("", dim, consumer.weight.start, consumer.weight.copies, consumer.weight.repeat)

        def zero(module: nn.Module, inputs: tuple[Tensor, ...], layout: Slice = layout) -> tuple[Tensor, ...]:
            silent = inputs[0].clone()
            layout.view(silent, group.size)[unit] = 0
            return (silent, *inputs[1:])

        handles.append(module.register_forward_pre_hook(zero))
    yield
    for handle in handles:
        handle.remove()


def features(model: nn.Module, group: UnitGroup, example: Any) -> Tensor:
    """What is read of a group, units in front; of all inputs of a module that is called several times."""
    seen: list[Tensor] = []
    module = model.get_submodule(group.feature.module)

    def before(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.append((inputs[0] if inputs else next(iter(keywords.values()))).clone())

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen.append(output.clone())

    if group.feature.where == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    call(model, example)
    handle.remove()
    return group.feature.view(torch.cat(seen), group.size)


def close(one: Any, other: Any) -> bool:
    pairs = list(zip(outputs(one), outputs(other), strict=True))
    assert pairs
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-10) for a, b in pairs)


def living(model: nn.Module, group: UnitGroup, example: Any) -> tuple[int, Any]:
    """A unit that has a part in the output, and the output without it."""
    output = call(model, example)
    for unit in reversed(range(group.size)):
        with silenced(model, group, unit):
            expected = call(model, example)
        if not close(output, expected):
            return unit, expected
    raise AssertionError(f"no unit of {group.name} has a part in the output")


@torch.no_grad()
def assert_replacing_silences(model: nn.Module, example: Any, found: Units) -> None:
    """Replacing a unit, as a method does, cuts it and nothing else off."""
    model, example = model.double().eval(), double(example)
    method = supple.CBP(model, units=found, initial=stated(found))
    disturb(model)
    start = copy.deepcopy(model.state_dict())
    for group in found:
        unit, expected = living(model, group, example)
        others = [u for u in range(group.size) if u != unit]
        before = features(model, group, example)

        for consumer in group.consumers:
            consumer.weight.view(model.get_parameter(consumer.weight.tensor), group.size)[unit] = 0
        assert close(call(model, example), expected)
        model.load_state_dict(start)

        for part in (*group.incoming, *group.bias):
            part.view(model.get_parameter(part.tensor), group.size)[unit] = 0
        constant = features(model, group, example)
        model.load_state_dict(start)

        layer = next(layer for layer in method.layers if layer.group == group)
        layer.replace(Chosen(torch.tensor([0]), torch.tensor([unit])))
        output, after = call(model, example), features(model, group, example)
        with silenced(model, group, unit):
            assert close(call(model, example), output)
        norms = [model.get_submodule(norm.scale.tensor.rpartition(".")[0]) for norm in group.norms if norm.scale]
        mixing = any(isinstance(norm, MIXING) for norm in norms)
        if not mixing:
            assert close(output, expected)
        if not mixing or group.feature_after_norm is not None:
            assert torch.equal(after[others], before[others])
            assert not torch.allclose(after[unit], before[unit])
            # Without incoming weights nothing of the input is left in the unit, and the others are as they were.
            torch.testing.assert_close(constant[others], before[others])
            assert float(constant[unit].amax() - constant[unit].amin()) < 1e-12
        model.load_state_dict(start)


@torch.no_grad()
def assert_whole(model: nn.Module, example: Any, found: Units) -> None:
    """Without incoming weights, whatever the biases, nothing of the input is left in a unit."""
    model, example = model.double().eval(), double(example)
    for group in found:
        start = {name: value.clone() for name, value in model.state_dict().items()}
        unit = group.size - 1
        for part in group.incoming:
            part.view(model.get_parameter(part.tensor), group.size)[unit] = 0
        for part in group.bias:
            # A unit may have a bias for each position.
            part.view(model.get_parameter(part.tensor), group.size)[unit] = float(torch.rand(())) + 0.5
        feature = features(model, group, example)[unit]
        spread = float(feature.amax() - feature.amin())
        assert spread < 1e-9, f"{group.name} holds features that its own weights do not make: {spread}"
        model.load_state_dict(start)


def everything(model: nn.Module) -> list[Any]:
    """All that tracing must leave as it is."""
    state: list[Any] = [torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))]  # noqa: NPY002
    for name, module in model.named_modules():
        state += [name, module.training, sorted(vars(module)), len(module._forward_hooks)]
        state += [len(module._forward_pre_hooks), len(module._forward_hooks_with_kwargs)]
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        state += [name, id(tensor), tensor._version, tensor.detach().clone()]
        state += [] if tensor.grad is None else [id(tensor.grad), tensor.grad.clone()]
    return state


def assert_untouched(model: nn.Module, before: list[Any]) -> None:
    for old, new in zip(before, everything(model), strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new


def assert_methods_take_steps(model: nn.Module, example: Any, found: Units) -> None:
    """A short training with both unit methods: units are replaced, and all stays finite."""
    model.train()
    initial = stated(found)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    methods = [
        supple.CBP(model, optimizer, units=found, maturity=0, replacement_rate=0.5, absorb_mean=True, initial=initial),
        supple.ReDo(
            model, optimizer, units=found, frequency=1, threshold=1.0, when_all_zero="replace", initial=initial
        ),
    ]
    for _ in range(2):
        optimizer.zero_grad()
        given = outputs(call(model, example))
        sum(t.square().mean() for t in given if t.is_floating_point()).backward()
        optimizer.step()
        for method in methods:
            method.step()
    assert all(bool(t.isfinite().all()) for t in [*outputs(call(model, example)), *model.parameters()])
    assert all(int(method.reinitialized.total) > 0 for method in methods)
    assert int(methods[0].reinitialized.total) >= sum(group.size // 2 for group in found)
    for method in methods:
        method.close()
