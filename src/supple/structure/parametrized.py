"""Parameters that are no weights themselves: weights are computed from them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def computed_from(model: nn.Module) -> dict[str, str]:
    """Finds the parameters that weights are computed from: parametrizations, and the older hooks of ``torch.nn.utils``.

    An entry of such a parameter is no entry of the weight, and what a weight starts from says nothing of it. Some
    values it must not have at all: a row of 0 in the direction of a weight normalization makes its weights not finite.

    Args:
        model: any module.

    Returns:
        What is computed from it and how, by parameter name as in ``model.named_parameters()``.
    """
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        for parameter, how in _sources(module):
            layer = path.partition("parametrizations.")[0].rstrip(".")
            found[first[id(parameter)]] = f"{how} computes {f'a weight of {layer}' if layer else 'a weight'} from it"
    return found


def _sources(module: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
    if isinstance(module, ParametrizationList):
        kinds = ", ".join(type(one).__name__.lstrip("_") for one in module)
        yield from ((parameter, kinds) for parameter in module.parameters())
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            for suffix in ("_g", "_v", "_orig"):
                parameter = module._parameters.get(hook.name + suffix)
                if parameter is not None:
                    yield parameter, type(hook).__name__
