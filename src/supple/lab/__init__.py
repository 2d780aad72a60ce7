"""The laboratory: comparisons of methods on many networks at once. ``pip install "supple[lab]"``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supple.lab.nn.stack import stack
    from supple.lab.study.results import Results, load

__all__ = ["Results", "load", "stack"]


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, since what reads results needs packages that take a while to load."""
    if name in __all__:
        return getattr(import_module("supple.lab.nn.stack" if name == "stack" else "supple.lab.study.results"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
