"""Streams of tasks."""

from supple.lab.streams.class_incremental import ClassIncrementalStream
from supple.lab.streams.permuted import PermutedStream
from supple.lab.streams.tasks import Made, SeedStream, Shuffled, Task

__all__ = ["ClassIncrementalStream", "Made", "PermutedStream", "SeedStream", "Shuffled", "Task"]
