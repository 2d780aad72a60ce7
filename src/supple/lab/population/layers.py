"""Layers of stacked networks with their backward passes written out, and the batched products they are made of.

Activations are [R, width, B], or [S, width, B] for the input that the replicas of a seed share: weight times
activations is then one product a seed, and an update of the weights is a product added to them in place. Every layer
keeps what its backward pass needs; a backward pass takes dL/d(output), gives its parameters' gradients to a sink, and
returns dL/d(input).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from supple.lab.nn import StackedLayerNorm, StackedLinear
from supple.methods.arguments import choice

aten = torch.ops.aten

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS = get_args(Precision)
"""Precisions of products, from the most exact to the least."""

_LONG = 64
"""Width from which on the units of an example are neighbours in memory, and below which the examples of a unit are.
Products are then computed in the faster way (``benchmarks/layout.py`` measures it), and what meets element by element
lies alike."""


class Products:
    """The products of a training step; ``parameter``, one of the network's, tells device and type.

    - "float32": in the type of the parameters, as torch is set. This is the only one that follows the study.
    - "tf32": factors of float32 are cut to 10 bits behind the point, sums are float32; on GPUs that have it.
    - "bfloat16": factors and results are rounded to 7 bits behind the point. Parameters, activations, gradients kept
      for others and the optimizer's state stay in the type they have, as under ``torch.autocast``.
    """

    def __init__(self, precision: str, parameter: Tensor) -> None:
        self.precision = choice("precision", precision, PRECISIONS)
        if precision == "tf32" and parameter.device.type != "cuda":
            raise ValueError(
                f"precision is 'tf32', which GPUs have, but the networks are on {parameter.device.type!r}; "
                "choose 'float32' or 'bfloat16', or move the networks to a GPU"
            )
        if precision == "tf32" and parameter.dtype != torch.float32:
            raise ValueError(
                f"precision is 'tf32', which float32 products can have, but the networks are {parameter.dtype}; "
                "choose 'float32', which leaves products in the networks' type"
            )

    def applied(self) -> AbstractContextManager[None]:
        """Within it torch computes products as asked for; its own setting holds again afterwards."""
        return _tf32() if self.precision == "tf32" else nullcontext()

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """The product of [S, n, k] and [S, k, m], in their type."""
        if self.precision == "bfloat16":
            return torch.bmm(left.bfloat16(), right.bfloat16()).to(left.dtype)
        return torch.bmm(left, right)

    def add(self, term: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """A term that broadcasts to [S, n, m], plus the product."""
        if self.precision == "bfloat16":
            return self.product(left, right).add_(term)
        return torch.baddbmm(term, left, right)

    def write(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Writes the product into ``out`` [S, n, m]."""
        if self.precision == "bfloat16":
            out.copy_(self.product(left, right))
        else:
            torch.bmm(left, right, out=out)

    def subtract(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Subtracts the product from ``out`` [S, n, m], in place."""
        if self.precision == "bfloat16":
            out.sub_(self.product(left, right))
        else:
            out.baddbmm_(left, right, alpha=-1)


@contextmanager
def _tf32() -> Iterator[None]:
    """Within it float32 products of GPUs are computed in TF32."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):
        before = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        try:
            yield
        finally:
            # What it has from the setting of all devices is told as its own.
            every = torch.backends.fp32_precision  # type: ignore[attr-defined]
            matmul.fp32_precision = "none" if before == every else before
    else:
        # Before torch 2.9 there is but one setting, of CPUs and GPUs together. Later torch refuses to read it where a
        # program has set one of them alone.
        setting = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(setting)


class Sink(Protocol):
    """Where the gradients of parameters go."""

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Takes the gradient of a weight [R, out, in] as a batched product of [S, R / S * out, B] and [S, B, in]."""

    def gradient(self, parameter: Tensor, gradient: Tensor) -> None:
        """Takes a gradient of the parameter's shape."""


class Linear:
    """y = W x + b."""

    def __init__(self, module: StackedLinear, products: Products) -> None:
        self.weight, self.bias, self.products = module.weight, module.bias, products

    def forward(self, x: Tensor) -> Tensor:
        """From x [S, in, B], S dividing R, to [R, out, B]."""
        self.x = x
        replicas, outputs, inputs = self.weight.shape
        bias, weight = self.bias.view(len(x), -1, 1), self.weight.view(len(x), -1, inputs)
        if inputs < _LONG:
            return self.products.add(bias, weight, x).view(replicas, outputs, -1)
        y = self.products.add(bias.mT, x.mT, weight.mT)  # [S, B, R / S * out]
        y = y.unflatten(2, (-1, outputs)).transpose(1, 2)  # [S, R / S, B, out]
        if outputs < _LONG:
            return y.mT.contiguous().view(replicas, outputs, -1)
        return y.reshape(replicas, -1, outputs).mT

    def backward(self, d: Tensor, sink: Sink, first: bool = False) -> Tensor:
        """dL/dx = W^T d, dL/dW = d x^T, dL/db = sum of d over examples; for the first layer dL/dx is not computed."""
        d_input = d if first else self._back(d)
        sink.product(self.weight, self._by_seed(d), self.x.mT)
        sink.gradient(self.bias, d.sum(dim=2))
        return d_input

    def _by_seed(self, d: Tensor) -> Tensor:
        """dL/dy of the replicas of a seed below each other, [S, R / S * out, B]."""
        if len(self.x) == len(d) or d.shape[1] < _LONG:
            return d.reshape(len(self.x), -1, d.shape[2])
        return d.mT.unflatten(0, (len(self.x), -1)).transpose(1, 2).flatten(2).mT

    def _back(self, d: Tensor) -> Tensor:
        if self.weight.shape[2] < _LONG:
            return self.products.product(self.weight.mT, d)
        return self.products.product(d.mT, self.weight).mT


class Norm:
    """Layer normalization over the width: y = scale (x - mean) / sqrt(variance + eps) + shift."""

    def __init__(self, module: StackedLayerNorm) -> None:
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """From x [R, width, B] to the same shape."""
        # torch.var_mean over a dimension that is not the last takes five times as long.
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        self.inverse = variance.add_(self.module.eps).rsqrt_()
        self.normalized = centred.mul_(self.inverse)
        self.scale = self.module.scale.unsqueeze(2)
        return torch.addcmul(self.module.bias.unsqueeze(2), self.normalized, self.scale)

    def backward(self, d: Tensor, sink: Sink) -> Tensor:
        """dL/dx = (e - mean(e) - n mean(e n)) / std, with e = scale d and n the normalized input."""
        along = d * self.normalized
        d_scale = along.sum(dim=2)
        e = d * self.scale
        # In place, memory that is in the cache is used again.
        projection = along.mul_(self.scale).mean(dim=1, keepdim=True)
        d_input = e.sub_(e.mean(dim=1, keepdim=True)).sub_(self.normalized.mul_(projection)).mul_(self.inverse)
        sink.gradient(self.module.weight, d_scale)
        sink.gradient(self.module.bias, d.sum(dim=2))
        return d_input


class Activation:
    """An activation function by its name, element by element."""

    def __init__(self, name: str) -> None:
        self._forward, self._backward = _FUNCTIONS[name]

    def forward(self, z: Tensor) -> Tensor:
        """From z [R, units, B] to [R, width, B]."""
        self.z, self.y = z, self._forward(z)
        return self.y

    def backward(self, d: Tensor) -> Tensor:
        """dL/dz = d f'(z)."""
        return self._backward(d, self.z, self.y)


def _crelu(z: Tensor) -> Tensor:
    return torch.cat((z.relu(), (-z).relu_()), dim=1)


def _crelu_backward(d: Tensor, z: Tensor, y: Tensor) -> Tensor:
    positive, negative = aten.threshold_backward(d, y, 0).chunk(2, dim=1)
    return positive - negative


def _fourier(z: Tensor) -> Tensor:
    return torch.cat((z.sin(), z.cos()), dim=1)


def _fourier_backward(d: Tensor, z: Tensor, y: Tensor) -> Tensor:
    (d_sine, d_cosine), (sine, cosine) = d.chunk(2, dim=1), y.chunk(2, dim=1)
    return d_sine * cosine - d_cosine * sine


_FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "relu": (torch.relu, lambda d, z, y: aten.threshold_backward(d, y, 0)),
    "leaky_relu": (torch.nn.functional.leaky_relu, lambda d, z, y: aten.leaky_relu_backward(d, y, 0.01, True)),
    "elu": (torch.nn.functional.elu, lambda d, z, y: aten.elu_backward(d, 1, 1, 1, True, y)),
    "tanh": (torch.tanh, lambda d, z, y: aten.tanh_backward(d, y)),
    "sigmoid": (torch.sigmoid, lambda d, z, y: aten.sigmoid_backward(d, y)),
    "silu": (torch.nn.functional.silu, lambda d, z, y: aten.silu_backward(d, z)),
    "gelu": (torch.nn.functional.gelu, lambda d, z, y: aten.gelu_backward(d, z)),
    "crelu": (_crelu, _crelu_backward),
    "fourier": (_fourier, _fourier_backward),
}
