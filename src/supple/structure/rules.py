"""What PyTorch's own layers draw their parameters from, and the signs that a model was trained.

The rules are those of the layers' ``reset_parameters`` in PyTorch 2.6 to 2.13. A subclass follows the rule of its base
unless it overrides that method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.rnn import RNNBase, RNNCellBase

from supple.functional.initial import Constant, Distribution, Normal, Uniform
from supple.structure.named import fans

Rules = dict[str, Distribution]


def _within(bound: float) -> Distribution:
    return Uniform(-bound, bound) if bound > 0 else Constant(0.0)


def _inverse_root(size: int) -> float:
    return 1 / math.sqrt(size) if size > 0 else 0.0


def _xavier_uniform(shape: torch.Size) -> Distribution:
    return _within(math.sqrt(3) * math.sqrt(2) * _inverse_root(sum(fans(shape))))


def _xavier_normal(shape: torch.Size) -> Distribution:
    return Normal(0.0, math.sqrt(2) * _inverse_root(sum(fans(shape))))


def _fan_in(module: nn.Module) -> Rules:
    # kaiming_uniform_ with a = sqrt(5) has the bound sqrt(6 / ((1 + 5) fan_in)); the bias takes the same.
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    bound = _inverse_root(fans(weight.shape)[0])
    return {"weight": _within(bound), "bias": _within(bound)}


def _bilinear(module: nn.Module) -> Rules:
    assert isinstance(module, nn.Bilinear)
    bound = _inverse_root(module.in1_features)
    return {"weight": _within(bound), "bias": _within(bound)}


def _embedding(module: nn.Module) -> Rules:
    return {"weight": Normal(0.0, 1.0)}


def _normalization(module: nn.Module) -> Rules:
    return {"weight": Constant(1.0), "bias": Constant(0.0)}


def _prelu(module: nn.Module) -> Rules:
    assert isinstance(module, nn.PReLU)
    return {"weight": Constant(module.init)}


def _recurrent(module: nn.Module) -> Rules:
    assert isinstance(module, RNNBase | RNNCellBase)
    bound = _inverse_root(module.hidden_size)
    return {name: _within(bound) for name, _ in module.named_parameters(recurse=False)}


def _attention(module: nn.Module) -> Rules:
    rules: Rules = {"in_proj_bias": Constant(0.0), "out_proj.bias": Constant(0.0)}
    for name, parameter in module.named_parameters(recurse=False):
        if name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            rules[name] = _xavier_uniform(parameter.shape)
        elif name in ("bias_k", "bias_v"):
            rules[name] = _xavier_normal(parameter.shape)
    return rules


def _transformer(module: nn.Module) -> Rules:
    return {
        name: _xavier_uniform(parameter.shape) for name, parameter in module.named_parameters() if parameter.ndim > 1
    }


_RULES: tuple[tuple[type[nn.Module], str, Callable[[nn.Module], Rules]], ...] = (
    (nn.Linear, "reset_parameters", _fan_in),
    (_ConvNd, "reset_parameters", _fan_in),
    (nn.Bilinear, "reset_parameters", _bilinear),
    (nn.Embedding, "reset_parameters", _embedding),
    (nn.EmbeddingBag, "reset_parameters", _embedding),
    (_NormBase, "reset_parameters", _normalization),
    (nn.LayerNorm, "reset_parameters", _normalization),
    (nn.GroupNorm, "reset_parameters", _normalization),
    (nn.RMSNorm, "reset_parameters", _normalization),
    (nn.PReLU, "reset_parameters", _prelu),
    (RNNBase, "reset_parameters", _recurrent),
    (RNNCellBase, "reset_parameters", _recurrent),
    (nn.MultiheadAttention, "_reset_parameters", _attention),
    (nn.Transformer, "_reset_parameters", _transformer),
)


def layer_rules(module: nn.Module) -> tuple[str, Rules]:
    """What a layer of PyTorch draws its parameters from.

    Args:
        module: any module.

    Returns:
        (name, rules): the layer's public name, such as ``"torch.nn.Linear"``, and the distribution by name relative to
        the module. Names may be among them that the module does not have (no bias). For a module that is none of
        PyTorch's layers or has a ``reset_parameters`` of its own: ``("", {})``.

    Source: ``reset_parameters`` of each layer of PyTorch.
    """
    for base, method, rules in _RULES:
        if isinstance(module, base) and getattr(type(module), method) is getattr(base, method):
            public = next(
                (c.__name__ for c in type(module).__mro__ if getattr(nn, c.__name__, None) is c), base.__name__
            )
            return f"torch.nn.{public}", rules(module)
    return "", {}


def padding_rows(model: nn.Module) -> dict[str, int]:
    """The rows of embeddings that stand for padding: 0 at first and never trained.

    Args:
        model: any module.

    Returns:
        Index of the row, 0 or more, by name of the embedding's weight as in ``model.named_parameters()``.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    # By what it has rather than its class: quantized and other embeddings of one's own have the same.
    for module in model.modules():
        row, weight = getattr(module, "padding_idx", None), getattr(module, "weight", None)
        # A parametrized weight is computed from other parameters and has no name.
        if type(row) is int and isinstance(weight, nn.Parameter) and weight.ndim >= 2 and id(weight) in names:
            found[names[id(weight)]] = row % weight.shape[-2]
    return found


def signs_of_training(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, names: Collection[str] | None = None
) -> Iterator[str]:
    """What, besides parameters, shows that a model was trained: running statistics and the state of an optimizer.

    Args:
        model: any module.
        optimizer: its optimizer, or None.
        names: the parameters that matter; None: all that train.

    Yields:
        A sentence for each sign.
    """
    parameters = dict(model.named_parameters())
    if names is None:
        names = [name for name, parameter in parameters.items() if parameter.requires_grad]
    matter = {parameters[name] for name in names}
    for name, module in model.named_modules():
        # One without parameters belongs to the layers around it.
        concerned = set(module.parameters(recurse=False)) & matter or len(matter) == len(parameters)
        if isinstance(module, _NormBase) and module.track_running_stats and concerned:
            tracked = module.num_batches_tracked
            # Of a stacked network there is one a replica.
            if tracked is not None and (batches := int(tracked.max())) > 0:
                yield f"{name or 'the model'} has counted {batches} batches"
            elif not untrained(module):
                yield f"{name or 'the model'} has a running mean that is not 0 or a running variance that is not 1"
    if optimizer is not None:
        stepped = sum(parameter in matter and _stepped(state) for parameter, state in optimizer.state.items())
        if stepped:
            yield f"the optimizer has made steps on {stepped} parameters"


def untrained(module: nn.Module) -> bool:
    """Whether a module keeps running statistics and they show that it has seen no batch yet.

    Args:
        module: any module.

    Returns:
        True or False.
    """
    if not isinstance(module, _NormBase) or not module.track_running_stats:
        return False
    tracked, mean, variance = module.num_batches_tracked, module.running_mean, module.running_var
    return (
        (tracked is None or not bool(tracked.any()))
        and (mean is None or not bool((mean != 0).any()))
        and (variance is None or not bool((variance != 1).any()))
    )


def _stepped(state: dict[str, object]) -> bool:
    # Some optimizers (Adagrad) have a state before the first step; its step is 0.
    if "step" in state:
        step = state["step"]
        return bool(step > 0) if isinstance(step, torch.Tensor | int | float) else True
    return any(value is not None for value in state.values())
