"""Streams of tasks."""

from supple.lab.streams.class_incremental import ClassIncrementalStream
from supple.lab.streams.permuted import PermutedStream
from supple.lab.streams.tasks import SeedStream, Task

__all__ = ["ClassIncrementalStream", "PermutedStream", "SeedStream", "Task"]
