"""Every method and every variant of it, for what holds for all of them."""

import itertools

import torch

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


def redo(utility, **words):
    settings = {"frequency": [4, 6, 3, 10, 7, 5], "threshold": [0.9, 0.3, 0.5, 0.2, 0.0, 0.4]}
    return supple.ReDo, settings, {"utility": utility, **words}


UNIT_UTILITIES = ["contribution", "magnitude", "activation", "gradient"]
SWR_VARIANTS = itertools.product(
    ["gradient", "magnitude", "random"], ["threshold", "proportional"], ["resample", "mean"]
)

STRENGTHS = [0.1, 0.0, 0.5, 0.05, 0.02, 1.0]
PERIODS = [7, 5, 8, 3, 9, 4]

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
    "CBP adaptable averaged": cbp("adaptable_contribution", decay=0.8),
    "CBP feature by input": cbp("feature_by_input"),
    "CBP random": cbp("random"),
    "CBP drawn": cbp("contribution", counting="draw"),
    "CBP absorbing": cbp("activation", absorb_mean=True),
    "CBP of 2024": cbp("contribution", decay=0.99, counting="draw", absorb_mean=True),
    **{f"ReDo {utility}": redo(utility) for utility in UNIT_UTILITIES},
    "ReDo in backward": redo("activation", order="in_backward"),
    "L2 Init": (supple.L2Init, {"strength": STRENGTHS}, {}),
    "L2 Init huber decoupled": (supple.L2Init, {"strength": STRENGTHS}, {"norm": "huber", "decoupled": True}),
    "Wasserstein": (supple.Wasserstein, {"strength": STRENGTHS}, {}),
    "Wasserstein decoupled": (supple.Wasserstein, {"strength": STRENGTHS}, {"decoupled": True}),
    "clipping": (supple.WeightClipping, {"factor": [0.5, 0.9, 0.7, 0.6, 0.8, 1.0]}, {}),
    "NaP": (supple.NaP, {"frequency": [1, 3, 2, 5, 1, 4]}, {"norms": "project"}),
    "isometry": (supple.Isometry, {"strength": STRENGTHS, "scale": [1, 0.5, 2, 1, 1, 3]}, {}),
    "Parseval": (supple.Parseval, {"strength": STRENGTHS}, {}),
    "Parseval normalized": (supple.Parseval, {"strength": STRENGTHS}, {"groups": 2, "normalize_rows": True}),
    "spectral": (supple.Spectral, {"strength": STRENGTHS}, {}),
    "FIRE": (supple.FIRE, {"every": [7, 5, 0, 3, 9, 4]}, {}),
    "shrink and redraw": (supple.ShrinkAndRedraw, {"shrink": [0.9, 0.5, 1, 0.4, 0.8, 0.7], "every": PERIODS}, {}),
    "shrink to start": (
        supple.ShrinkAndRedraw,
        {"perturb": [0.9, 0.5, 1, 0.4, 0.8, 0.7], "every": PERIODS},
        {"toward": "start"},
    ),
    "DASH": (supple.DASH, {"minimum": [0.3, 0.1, 0.5, 0.2, 0.7, 0.9]}, {}),
    "hare and tortoise": (
        supple.HareAndTortoise,
        {"momentum": [0.9, 0.5, 0.7, 0.99, 0.3, 0.8], "interval": PERIODS},
        {},
    ),
    "reset": (supple.Reset, {"every": PERIODS}, {}),
    "reset to start": (supple.Reset, {"every": PERIODS}, {"layers": 0, "to": "start"}),
    "UPGD": (supple.UPGD, {"std": [0.01, 0.0, 0.1, 0.02, 0.001, 0.05], "decay": [0.9, 0.5, 0, 0.99, 0.7, 0.8]}, {}),
    "UPGD local": (supple.UPGD, {"weight_decay": [0.1, 0, 0.2, 0.01, 0, 0.5]}, {"scaling": "local", "protect": False}),
    "ReGraMa": (supple.ReGraMa, {"frequency": PERIODS, "threshold": [0.9, 0.3, 0.5, 0.7, 0.8, 1.0]}, {}),
    "SNR": (supple.SNR, {"threshold": [6, 12, 9, 20, 15, 7]}, {"minimum": 5, "maximum": 40, "update_every": 1}),
    "CPR": (supple.CPR, {"replacement_rate": [0.1, 0.0, 0.5, 0.3, 0.05, 1.0], "frequency": PERIODS}, {}),
    "TRAC": (supple.TRAC, {}, {"first": 0.1}),
    "C-CHAIN": (supple.CChain, {"strength": STRENGTHS}, {"ratio": 0, "window": 5}),
    "InFeR": (supple.InFeR, {"strength": STRENGTHS, "scale": [1.0, 0.5, 2, 10, 3, 0]}, {"heads": 3}),
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


def needs_step_size(name):
    """Whether the method takes the step size of the optimizer."""
    return "decoupled" in name or name in ("isometry", "UPGD", "UPGD local")


def build(name, model, optimizer=None, replica=None, **more):
    """A method with the settings of all replicas, or those of one."""
    kind, settings, words = EVERY[name]
    if optimizer is None and needs_step_size(name):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if replica is not None:
        settings = {key: values[replica] for key, values in settings.items()}
    return kind(model, optimizer, **settings, **words, **more)
