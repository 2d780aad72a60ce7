"""Keeps neural networks able to learn: methods against loss of plasticity, for any PyTorch training loop."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supple.functional.initial import Constant, Distribution, Normal, TruncatedNormal, Uniform
    from supple.methods import (
        CBP,
        CPR,
        DASH,
        FIRE,
        L2,
        SNR,
        SWR,
        TRAC,
        UPGD,
        CChain,
        Chain,
        HareAndTortoise,
        InFeR,
        Isometry,
        L2Init,
        Method,
        NaP,
        Parseval,
        ReDo,
        ReGraMa,
        Reinitialized,
        Reset,
        ShrinkAndPerturb,
        ShrinkAndRedraw,
        Spectral,
        Wasserstein,
        WeightClipping,
        chain,
    )
    from supple.metrics import watch
    from supple.probing import Probe, probe
    from supple.structure import (
        Consumer,
        Excluded,
        Feature,
        Initial,
        InitialDistributions,
        Norm,
        Slice,
        UnitGroup,
        Units,
        initial_distributions,
        units,
    )

__version__ = "0.1.0"

__all__ = [
    "CBP",
    "CPR",
    "DASH",
    "FIRE",
    "L2",
    "SNR",
    "SWR",
    "TRAC",
    "UPGD",
    "CChain",
    "Chain",
    "Constant",
    "Consumer",
    "Distribution",
    "Excluded",
    "Feature",
    "HareAndTortoise",
    "InFeR",
    "Initial",
    "InitialDistributions",
    "Isometry",
    "L2Init",
    "Method",
    "NaP",
    "Norm",
    "Normal",
    "Parseval",
    "Probe",
    "ReDo",
    "ReGraMa",
    "Reinitialized",
    "Reset",
    "ShrinkAndPerturb",
    "ShrinkAndRedraw",
    "Slice",
    "Spectral",
    "TruncatedNormal",
    "Uniform",
    "UnitGroup",
    "Units",
    "Wasserstein",
    "WeightClipping",
    "chain",
    "initial_distributions",
    "probe",
    "units",
    "watch",
]

_HOMES = ("functional.initial", "structure", "methods", "metrics", "probing")
"""The modules that have these names."""

_FLOORS = ("functional", "structure", "optim", "methods", "metrics", "probing", "surgery")


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is first asked for, so that the command line answers before torch is there."""
    if name in _FLOORS:
        return import_module(f"supple.{name}")
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"supple.{home}")
            if name in getattr(module, "__all__", vars(module)):  # a module in it may have the same name
                globals()[name] = found = getattr(module, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """All that can be asked for, also what was not yet."""
    return sorted({*globals(), *__all__, *_FLOORS})
