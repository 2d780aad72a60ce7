"""Optimizers for stacked parameters: a step size and a weight decay a replica."""

from supple.optim.adamw import AdamW
from supple.optim.replicated import ReplicatedOptimizer
from supple.optim.sgdw import SGDW

__all__ = ["SGDW", "AdamW", "ReplicatedOptimizer"]
