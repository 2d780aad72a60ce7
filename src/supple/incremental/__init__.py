"""Class-incremental training of a vision transformer."""

from supple.incremental.measures import AdditionEnd, AdditionStart, EpochMetrics
from supple.incremental.reset import RESETS
from supple.incremental.training import IncrementalTraining

__all__ = ["RESETS", "AdditionEnd", "AdditionStart", "EpochMetrics", "IncrementalTraining"]
