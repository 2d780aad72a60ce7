"""Non-stationary problems: streams of tasks, as functions of (seed, task)."""

from supple.lab.streams.incremental import ClassIncrementalStream
from supple.lab.streams.permuted import PermutedStream, Task

__all__ = ["ClassIncrementalStream", "PermutedStream", "Task"]
