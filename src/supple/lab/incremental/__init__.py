"""Class-incremental training of a vision transformer."""

from supple.lab.incremental.measures import AdditionEnd, AdditionStart, EpochMetrics
from supple.lab.incremental.reset import RESETS
from supple.lab.incremental.training import IncrementalTraining

__all__ = ["RESETS", "AdditionEnd", "AdditionStart", "EpochMetrics", "IncrementalTraining"]
