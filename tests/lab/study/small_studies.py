"""Studies and images that are small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

from supple.lab.data import LabelledImages
from supple.lab.study.spec import Study, from_dict

STRONG: dict[str, dict[str, Any]] = {
    "base": {},
    "l2": {"l2": 0.01},
    "shrink_and_perturb": {"l2": 1e-3, "variance": 1e-5},
    "cbp": {"maturity": 5, "replacement_rate": 0.02},
    "redo": {"frequency": 4, "threshold": 0.5},
    "swr": {"frequency": 5, "factor": 0.05},
}
"""Settings so strong that each method acts often in few steps."""


def study(methods: dict[str, dict[str, Any]] | None = None, **tables: Any) -> Study:
    """A study of tiny networks; keyword arguments replace its tables."""
    content = {
        "title": "tiny",
        "network": {"hidden": 8, "depth": 2},
        "problem": {"data": "mnist10k", "batch_size": 10},
        "run": {"tasks": 3, "seeds": [4, 7]},
        "measure": {"examples": 40, "disturbances": 1},
        "methods": STRONG if methods is None else methods,
    }
    return from_dict({**content, **tables}, "tiny.toml")


def images(count: int = 120) -> LabelledImages:
    """Noise of 5 x 5 pixels in ten classes."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 5, 5), generator=generator, dtype=torch.uint8)
    return LabelledImages(pixels, torch.randint(0, 10, (count,), generator=generator), 10, "noise")
