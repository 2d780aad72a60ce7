"""Studies: what is to be compared, running it, and its results."""

from supple.study.results import Results, load

__all__ = ["Results", "load"]
