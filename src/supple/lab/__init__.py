"""The laboratory: comparisons of methods on many networks at once. ``pip install "supple[lab]"``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supple.lab.nn.stack import stack
    from supple.lab.population.problem import Curve, Metric, Problem
    from supple.lab.streams.tasks import Task
    from supple.lab.study.compare import compare
    from supple.lab.study.results import Results, load

__all__ = ["Curve", "Metric", "Problem", "Results", "Task", "compare", "load", "stack"]

_HOMES = {
    "stack": "nn.stack",
    "Curve": "population.problem",
    "Metric": "population.problem",
    "Problem": "population.problem",
    "Task": "streams.tasks",
    "compare": "study.compare",
    "Results": "study.results",
    "load": "study.results",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, since what reads results needs packages that take a while to load."""
    if name in _HOMES:
        return getattr(import_module(f"supple.lab.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
