"""What stands behind a layer of hidden units: both signs of each, its sine and cosine, or a normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from supple.structure.description import Units
from supple.structure.overrides import Overrides
from supple.surgery.operation import CONVOLUTIONS, Operation, distributions, draw


class Mirror(nn.Module):
    """Each unit, and then each unit's negated twin: [z, -z] along the dimension of units.

    Args:
        dim: the dimension.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> Tensor:
        """From n units to 2 n."""
        return torch.cat((z, -z), dim=self.dim)

    def extra_repr(self) -> str:
        """The dimension, for ``repr``."""
        return f"dim={self.dim}"


class Fourier(Mirror):
    """The sine of each unit, and then the cosine: [sin(z), cos(z)]; no activation function is applied to them."""

    def forward(self, z: Tensor) -> Any:
        """From n units to 2 n."""
        return Activated(torch.cat((z.sin(), z.cos()), dim=self.dim))


class Activated:
    """What an activation function gave out already: the activation function that is called next leaves it as it is.

    Args:
        tensor: the values.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        """Gives the values to an activation function; a RuntimeError if it is another one."""
        if function not in _FUNCTIONS:
            raise _wrong(getattr(function, "__name__", str(function)))
        values: Tensor = args[0].tensor
        return values

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        """Gives the values to an activation function that is called as a method."""
        if name not in _NAMES:
            raise AttributeError(str(_wrong(name)))
        return lambda *arguments, **keywords: self.tensor


def _wrong(name: str) -> RuntimeError:
    return RuntimeError(
        f"Fourier features stand for an activation function, but {name} is what reads the output of the layer. Call an "
        "activation function of torch right behind the layer, such as relu, or leave the layer out: units=..."
    )


_NAMES = (
    *(
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "rrelu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "tanh",
        "sigmoid",
    ),
    *("logsigmoid", "softplus", "softsign", "tanhshrink", "softshrink", "hardshrink", "hardtanh", "hardswish"),
    *("hardsigmoid", "threshold"),
)
_FUNCTIONS = {getattr(owner, name) for owner in (torch, nn.functional) for name in _NAMES if hasattr(owner, name)}


def crelu(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, example: Any = None, units: Units | None = None
) -> nn.Module:
    """Gives each hidden unit a twin of the opposite sign, so that a ReLU behind the layer becomes a CReLU.

    A layer then gives [z, -z] to its activation function, which makes [relu(z), relu(-z)] of it, and the layers that
    read the units have twice as many inputs. Their weights from the twins start at 0: with any activation function the
    network computes at first what it did. New second moments of an optimizer are the mean of the weight's others. What
    a weight of which half is 0 was drawn from does not show: methods that draw it again have to be told (``initial``).

    Args:
        model: the network; changed in place.
        optimizer: its optimizer, which gets the widened weights in the place of the old ones.
        example: what the model takes in, as for :func:`supple.units`; None for a ``torch.nn.Sequential``. With it the
            changed network is tried, and left as it was if it does not run.
        units: the hidden units to which it is done; None: all that are found.

    Returns:
        The network.

    Raises:
        ValueError: if the network's units are not found, or a layer cannot be changed; the network is as it was then.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> supple.surgery.crelu(model, optimizer)[2]
        Linear(in_features=16, out_features=2, bias=True)

    Source: Shang, Sohn, Almeida and Lee, "Understanding and improving convolutional neural networks via concatenated
    rectified linear units" (ICML 2016, arXiv 1603.05201); against loss of plasticity: Abbas, Zhao, Modayil, White and
    Machado, "Loss of plasticity in continual deep reinforcement learning" (CoLLAs 2023, arXiv 2303.07507).
    """
    operation = Operation(model, optimizer, example, units)
    for group in operation.units:
        place = operation.place(group)
        operation.put_behind(place, "mirror", Mirror(operation.dim(group)))
        operation.widen(group, lambda weight, name, number: torch.zeros_like(weight))
    return operation.done()


def fourier(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    example: Any = None,
    units: Units | None = None,
    initial: Overrides | None = None,
    seed: int = 0,
) -> nn.Module:
    """Makes deep Fourier features of the hidden units: [sin(z), cos(z)] in the place of an activation function.

    The activation function that the model calls right behind a layer, whichever of torch it is, is left out. The layers
    that read the units have twice as many inputs, and their weights from the units are drawn anew from their initial
    distribution, narrowed by sqrt(2) as twice as many come in; the optimizer forgets what it remembered of them. For
    layers as wide as before, make the network half as wide.

    Args:
        model: the network; changed in place.
        optimizer: its optimizer, which gets the widened weights in the place of the old ones.
        example: as for :func:`crelu`.
        units: as for :func:`crelu`.
        initial: initial distributions, where they are not to be worked out; see :func:`supple.initial_distributions`.
        seed: seed of the new weights.

    Returns:
        The network.

    Raises:
        ValueError: as :func:`crelu`, or if the initial distribution of a weight is not known.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> supple.surgery.fourier(model)[2]
        Linear(in_features=16, out_features=2, bias=True)
        >>> z = model[0].layer(torch.ones(1, 4))
        >>> bool((model[:2](torch.ones(1, 4)) == torch.cat((z.sin(), z.cos()), dim=1)).all())
        True

    Source: Lewandowski, Schuurmans and Machado, "Plastic learning with deep Fourier features" (ICLR 2025, arXiv
    2410.20634): the concatenation of sine and cosine in every layer. Written from its abstract; how the authors draw
    weights was not checked.
    """
    operation = Operation(model, optimizer, example, units)
    names = [consumer.weight.tensor for group in operation.units for consumer in group.consumers]
    drawn = distributions(model, names, initial)

    def fresh(weight: Tensor, name: str, number: int) -> Tensor:
        new = draw(drawn[name], seed, f"{name} {number}", weight)
        return drawn[name].mean + (new - drawn[name].mean) * 0.5**0.5

    for group in operation.units:
        place = operation.place(group)
        operation.put_behind(place, "fourier", Fourier(operation.dim(group)))
        operation.widen(group, fresh, anew=True)
    return operation.done()


def layer_norm(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, *, example: Any = None, units: Units | None = None
) -> nn.Module:
    """Puts a layer normalization between each layer of hidden units and its activation function.

    Behind a linear layer it is a ``torch.nn.LayerNorm``, behind a convolution a ``torch.nn.GroupNorm`` with one group,
    which normalizes each example over channels and positions. Layers that have a normalization are left alone.

    Args:
        model: the network; changed in place.
        optimizer: its optimizer, which gets the scales and shifts, in the group of the layer's weight.
        example: as for :func:`crelu`.
        units: as for :func:`crelu`.

    Returns:
        The network.

    Raises:
        ValueError: as :func:`crelu`, or if every layer has a normalization, or a linear one a single unit.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> [name for name, _ in supple.surgery.layer_norm(model).named_parameters()][:4]
        ['0.layer.weight', '0.layer.bias', '0.norm.weight', '0.norm.bias']

    Source: Ba, Kiros and Hinton, "Layer normalization" (arXiv 1607.06450), section 3; against loss of plasticity: Lyle
    et al., "Understanding plasticity in neural networks" (ICML 2023, arXiv 2303.01486).
    """
    operation = Operation(model, optimizer, example, units)
    bare = [group for group in operation.units if not group.norms]
    if not bare:
        raise ValueError(f"every layer of hidden units of the {type(model).__name__} has a normalization already")
    for group in bare:
        producer = operation.producer(group)
        if group.size == 1 and isinstance(producer, nn.Linear):
            raise operation.refused(group, "a layer normalization of a single unit is 0 whatever it is")
        norm = nn.GroupNorm(1, group.size) if isinstance(producer, CONVOLUTIONS) else nn.LayerNorm(group.size)
        norm.to(producer.weight)
        operation.put_behind(group.name, "norm", norm)
        operation.add(producer.weight, norm)
    return operation.done()
