"""Batched matrix products in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor

from supple.methods.arguments import choice

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS = get_args(Precision)
"""Precisions of products, from the most exact to the least."""


class Products:
    """The products of a training step.

    - "float32": in the type of the parameters, as torch is set. This is the only one that follows the study.
    - "tf32": factors of float32 are cut to 10 bits behind the point, sums are float32; on GPUs that have it.
    - "bfloat16": factors and results are rounded to 7 bits behind the point. Parameters, activations, gradients kept
      for others and the optimizer's state stay in the type they have, as under ``torch.autocast``.

    Args:
        precision: one of :data:`PRECISIONS`.
        parameter: a parameter of the network, which tells device and type.

    Raises:
        ValueError: if the precision is none of them, or means nothing for this device or type.
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
        """The product.

        Args:
            left: [S, n, k].
            right: [S, k, m].

        Returns:
            [S, n, m], in the type of the factors.
        """
        if self.precision == "bfloat16":
            return torch.bmm(left.bfloat16(), right.bfloat16()).to(left.dtype)
        return torch.bmm(left, right)

    def add(self, term: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """A term plus the product.

        Args:
            term: broadcasts to [S, n, m].
            left: [S, n, k].
            right: [S, k, m].

        Returns:
            [S, n, m].
        """
        if self.precision == "bfloat16":
            return self.product(left, right).add_(term)
        return torch.baddbmm(term, left, right)

    def write(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Writes the product.

        Args:
            out: [S, n, m], written into.
            left: [S, n, k].
            right: [S, k, m].
        """
        if self.precision == "bfloat16":
            out.copy_(self.product(left, right))
        else:
            torch.bmm(left, right, out=out)

    def take_off(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Takes the product off.

        Args:
            out: [S, n, m], written into.
            left: [S, n, k].
            right: [S, k, m].
        """
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
