"""Keeps neural networks able to learn: methods against loss of plasticity, for any PyTorch training loop."""

from supple.functional.initial import Constant, Distribution, Normal, TruncatedNormal, Uniform
from supple.methods import CBP, L2, SWR, Chain, Method, ReDo, Reinitialized, ShrinkAndPerturb, chain
from supple.structure import (
    Consumer,
    Excluded,
    Feature,
    Initial,
    InitialDistributions,
    Norm,
    Slice,
    UnitGroup,
    Units,
    initial_distributions,
    units,
)

__version__ = "0.1.0"

__all__ = [
    "CBP",
    "L2",
    "SWR",
    "Chain",
    "Constant",
    "Consumer",
    "Distribution",
    "Excluded",
    "Feature",
    "Initial",
    "InitialDistributions",
    "Method",
    "Norm",
    "Normal",
    "ReDo",
    "Reinitialized",
    "ShrinkAndPerturb",
    "Slice",
    "TruncatedNormal",
    "Uniform",
    "UnitGroup",
    "Units",
    "chain",
    "initial_distributions",
    "units",
]
