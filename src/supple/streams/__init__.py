"""Non-stationary problems: streams of tasks, as functions of (seed, task)."""

from supple.streams.permuted import PermutedStream, Task

__all__ = ["PermutedStream", "Task"]
