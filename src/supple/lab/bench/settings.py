"""What is trained: networks, optimizers and methods at the settings of the study, and the images.

Settings are those of permuted MNIST in Hernandez-Garcia, Dohare, Luo and Sutton, "Reinitializing weights vs units for
maintaining plasticity in neural networks", arXiv 2508.00212: of the small network for widths below 50, of the large one
below 500, and of the extra large one above. The study sweeps the methods of the extra large network and names no best
point, so a point of the middle of each sweep stands for it. AdamW is in the study for the large network only; elsewhere
the methods have the same settings as with SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch

from supple.lab.data import LabelledImages, mnist10k
from supple.lab.nn import StackedMLP
from supple.lab.study.methods import BASE, method_class
from supple.lab.study.shipped import find
from supple.lab.study.spec import Study, read
from supple.methods import Method, registry
from supple.optim import SGDW, AdamW

BATCH = 30
STEP_SIZES = {"sgd": 0.05, "adamw": 5e-4}
"""Step size of each optimizer."""

METHODS = (BASE, *registry.METHODS)
"""Names of the methods; base is plain training."""

Settings = Mapping[str, float]

_EXTRA_LARGE: Mapping[str, Settings] = {
    "base": {},
    "l2": {"l2": 1e-4},
    "shrink_and_perturb": {"l2": 1e-4, "variance": 1e-7},
    "swr": {"frequency": 16384, "factor": 1e-7},
    "cbp": {"maturity": 1000, "replacement_rate": 1e-4},
    "redo": {"frequency": 8192, "threshold": 1e-3},
}


def method_settings(method: str, hidden: int, optimizer: str) -> Settings:
    """Settings of a method for a network of some width.

    Args:
        method: one of :data:`METHODS`.
        hidden: units of each hidden layer.
        optimizer: one of :data:`STEP_SIZES`.

    Returns:
        Settings by name; none for base.
    """
    if hidden >= 500:
        return _EXTRA_LARGE[method]
    size = "small" if hidden < 50 else "large_adam" if optimizer == "adamw" else "large"
    return _study(size).methods[method]


@cache
def _study(size: str) -> Study:
    return read(find(f"permuted_mnist/{size}")[0])


def make_optimizer(name: str, network: StackedMLP) -> torch.optim.Optimizer:
    """An optimizer with a step size a replica, as in a comparison of settings.

    Args:
        name: one of :data:`STEP_SIZES`.
        network: the networks.

    Returns:
        The optimizer.
    """
    kind: Callable[..., torch.optim.Optimizer] = {"sgd": SGDW, "adamw": AdamW}[name]
    step_sizes = torch.full((network.replicas,), STEP_SIZES[name], device=network.seeds.device)
    return kind(network.parameters(), lr=step_sizes)


def make_method(
    method: str, network: StackedMLP, optimizer: torch.optim.Optimizer, settings: Settings
) -> Method | None:
    """A method for stacked networks, with the same settings for all.

    Args:
        method: one of :data:`METHODS`.
        network: the networks.
        optimizer: their optimizer.
        settings: from :func:`method_settings`.

    Returns:
        The method; None for base.
    """
    arguments: dict[str, Any] = dict(settings)
    make: Any = method_class(method)
    return None if make is None else make(network, optimizer, **arguments)


def action_share(method: str, settings: Settings, hidden: int) -> float:
    """Share of the steps at which a method does more than count, in the long run.

    SWR and ReDo act every ``frequency`` steps. CBP replaces k = rate * (eligible units) units of a layer a step; in
    the long run k * maturity units are not yet eligible, so k = rate * (hidden - k * maturity), that is
    k = rate * hidden / (1 + rate * maturity); and it acts at every step or, where k is below 1, every 1 / k steps.

    Args:
        method: one of :data:`METHODS`.
        settings: from :func:`method_settings`.
        hidden: units of each hidden layer.

    Returns:
        The share; 0 for what does the same at every step (base, L2, shrink and perturb).
    """
    if "frequency" in settings:
        return 1 / settings["frequency"]
    if method == "cbp":
        rate = settings["replacement_rate"]
        return min(1.0, rate * hidden / (1 + rate * settings["maturity"]))
    return 0.0


@cache
def images(count: int = 60_000) -> LabelledImages:
    """As many images as the study's tasks have, which are the 10,000 that are part of supple, again and again.

    What a step costs does not depend on what is on an image, and so the benchmark downloads nothing.

    Args:
        count: how many.

    Returns:
        The images.
    """
    some = mnist10k()
    chosen = torch.arange(count) % len(some)
    return LabelledImages(some.images[chosen], some.labels[chosen], some.classes, some.name)
