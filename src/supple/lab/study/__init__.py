"""Studies: what is to be compared, running it, and its results."""

from supple.lab.study.results import Results, load

__all__ = ["Results", "load"]
