"""Every method and every variant of it, for what holds for all of them."""

import itertools

import supple


def swr(utility, pruning, reinit, decay=0.0):
    factor = {"threshold": [0.2, 0.3, 0.5, 0.1, 0.7, 0.4], "proportional": [0.02, 0.1, 0.3, 0.05, 0.2, 0.15]}[pruning]
    settings = {"frequency": [3, 5, 4, 7, 2, 9], "factor": factor, "decay": [decay, 0.0, 0.5 * decay] * 2}
    return supple.SWR, settings, {"utility": utility, "pruning": pruning, "reinit": reinit}


def cbp(utility, decay=0.0, **words):
    settings = {
        "maturity": [2, 10, 5, 0, 7, 20],
        "replacement_rate": [0.01, 0.03, 0.0, 0.02, 0.1, 0.05],
        "decay": [decay, 0.0, 0.5 * decay] * 2,
    }
    return supple.CBP, settings, {"utility": utility, **words}


def redo(utility):
    settings = {"frequency": [4, 6, 3, 10, 7, 5], "threshold": [0.9, 0.3, 0.5, 0.2, 0.0, 0.4]}
    return supple.ReDo, settings, {"utility": utility}


UNIT_UTILITIES = ["contribution", "magnitude", "activation", "gradient"]
SWR_VARIANTS = itertools.product(
    ["gradient", "magnitude", "random"], ["threshold", "proportional"], ["resample", "mean"]
)

EVERY = {
    "L2": (supple.L2, {"l2": [0.0, 1e-4, 1e-3, 1e-2, 1e-5, 2e-4]}, {}),
    "S&P": (
        supple.ShrinkAndPerturb,
        {"l2": [1e-4, 0.0, 1e-3, 1e-4, 1e-5, 0.0], "variance": [1e-7, 0.0, 1e-5, 1e-6, 1e-8, 1e-4]},
        {},
    ),
    **{f"SWR {' '.join(words)}": swr(*words) for words in SWR_VARIANTS},
    "SWR averaged": swr("gradient", "threshold", "resample", decay=0.8),
    **{f"CBP {utility}": cbp(utility) for utility in UNIT_UTILITIES},
    **{f"CBP {utility} averaged": cbp(utility, decay=0.8) for utility in UNIT_UTILITIES},
    "CBP drawn": cbp("contribution", counting="draw"),
    "CBP absorbing": cbp("activation", absorb_mean=True),
    "CBP of 2024": cbp("contribution", decay=0.99, counting="draw", absorb_mean=True),
    **{f"ReDo {utility}": redo(utility) for utility in UNIT_UTILITIES},
}
"""name -> (class, settings with one value for each of six replicas, words)"""

FEW = [
    "L2",
    "S&P",
    "SWR gradient threshold resample",
    "SWR averaged",
    "CBP contribution",
    "CBP of 2024",
    "ReDo activation",
]
"""One of each kind."""


def build(name, model, optimizer=None, replica=None, **more):
    """A method with the settings of all replicas, or those of one."""
    kind, settings, words = EVERY[name]
    if replica is not None:
        settings = {key: values[replica] for key, values in settings.items()}
    return kind(model, optimizer, **settings, **words, **more)
