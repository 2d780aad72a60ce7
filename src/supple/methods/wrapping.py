"""What trainers wrap around an optimizer, and the optimizer inside."""

from __future__ import annotations

import torch


def unwrapped_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside of what a trainer makes of it.

    Accelerate and Lightning wrap optimizers in classes that keep the real one in an attribute ``optimizer``.

    Args:
        optimizer: the optimizer, wrapped or not.

    Returns:
        The innermost optimizer.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer
