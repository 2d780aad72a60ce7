"""What a model is made of: its hidden units, and what its parameters were initialized from."""

from supple.structure.description import Consumer, Excluded, Feature, Norm, Slice, UnitGroup, Units
from supple.structure.find import units
from supple.structure.initial import Initial, InitialDistributions, initial_distributions
from supple.structure.stacked import Stacked

__all__ = [
    "Consumer",
    "Excluded",
    "Feature",
    "Initial",
    "InitialDistributions",
    "Norm",
    "Slice",
    "Stacked",
    "UnitGroup",
    "Units",
    "initial_distributions",
    "units",
]
