"""Non-stationary problems: streams of tasks, as functions of (seed, task)."""

from supple.streams.incremental import ClassIncrementalStream
from supple.streams.permuted import PermutedStream, Task

__all__ = ["ClassIncrementalStream", "PermutedStream", "Task"]
