"""The benchmark: how fast populations train, against loops that train one network a process on the same cores."""

from supple.bench.plan import Plan
from supple.bench.results import Results
from supple.bench.running import run

__all__ = ["Plan", "Results", "run"]
