"""Optimizers for stacked parameters, with a step size and a weight decay a replica; the one-cycle schedule."""

from supple.optim.adamw import AdamW
from supple.optim.one_cycle import one_cycle
from supple.optim.replicated import ReplicatedOptimizer
from supple.optim.sgdw import SGDW

__all__ = ["SGDW", "AdamW", "ReplicatedOptimizer", "one_cycle"]
