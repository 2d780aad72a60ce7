"""The benchmark: how fast populations train, against loops that train one network a process on the same cores."""

from supple.lab.bench.plan import Plan
from supple.lab.bench.results import Results
from supple.lab.bench.running import run

__all__ = ["Plan", "Results", "run"]
