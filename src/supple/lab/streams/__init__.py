"""Streams of tasks."""

from supple.lab.streams.class_incremental import ClassIncrementalStream
from supple.lab.streams.permuted import PermutedStream

__all__ = ["ClassIncrementalStream", "PermutedStream"]
