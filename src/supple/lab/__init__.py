"""The laboratory: comparisons of methods on many networks at once. ``pip install "supple[lab]"``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supple.lab.study.results import Results, load

__all__ = ["Results", "load"]


def __getattr__(name: str) -> Any:
    """Imports what reads results when it is first asked for, since it needs packages that take a while to load."""
    if name in __all__:
        from supple.lab.study import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
