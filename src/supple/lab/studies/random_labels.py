"""Random labels: the same images get new random labels in each task, which the network has to learn by heart.

Source: Lyle et al., "Understanding plasticity in neural networks", ICML 2023; with the sizes of Kumar, Marklund and
Van Roy, "Maintaining plasticity in continual learning via regenerative regularization", CoLLAs 2024: 1,200 images,
batches of 16, 400 passes a task, 50 tasks, and a network of two hidden layers of 100. Brightness is from 0 to 1 here,
and from -1 to 1 in their program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab import data
from supple.lab.nn import MLP
from supple.lab.population.problem import Problem
from supple.lab.streams import Shuffled

_IMAGES, _LABELS = random.purpose("random labels", "images"), random.purpose("random labels")


def make(
    name: str = "mnist10k",
    images: int = 1200,
    batch_size: int = 16,
    passes: int = 400,
    data_dir: Path | None = None,
    verify: bool = True,
) -> Problem:
    """The problem, with so many images of a data set; each seed has others.

    With ``channels`` above 0 the network is convolutional. ``name`` of the optimizer is that of a class of torch.optim.
    """
    source = data.load(name, data_dir, verify=verify)
    pixels = source.images.flatten(1)
    if not 0 < images <= len(pixels):
        raise ValueError(f"images is {images}; it has to be from 1 to {len(pixels)}, the images of {name}")

    def network(seed: int, hidden: int = 100, depth: int = 2, channels: int = 0) -> nn.Module:
        if channels:
            return convolutional(source.images.shape[1:], channels, hidden, source.classes)
        return MLP(pixels.shape[1], hidden, source.classes, depth, seed=seed)

    return Problem(
        network=network,
        optimizer=optimizer_named,
        stream=lambda seed: RandomLabels(pixels, source.classes, seed, images, batch_size, passes),
        loss=nn.functional.cross_entropy,
    )


def optimizer_named(parameters: Any, name: str = "Adam", lr: float = 1e-3) -> torch.optim.Optimizer:
    """An optimizer by the name of its class in torch.optim."""
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ValueError(f"name is {name!r}; it has to be that of a class of torch.optim, such as SGD or Adam")
    return kind(parameters, lr=lr)  # type: ignore[call-arg]


def convolutional(shape: Sequence[int], channels: int, hidden: int, classes: int) -> nn.Module:
    """Two convolutions of 5 x 5 and stride 2, the second with twice the channels, and a layer of hidden units."""
    features = nn.Sequential(
        nn.Unflatten(1, (-1, *shape[-2:])),
        nn.Conv2d(math.prod(shape[:-2]), channels, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
    )
    size = features(torch.zeros(1, math.prod(shape))).shape[1]
    return nn.Sequential(*features, nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, classes))


class RandomLabels:
    """The tasks of a seed."""

    def __init__(self, pixels: Tensor, classes: int, seed: int, images: int, batch_size: int, passes: int) -> None:
        self._seed = torch.tensor([seed])
        chosen = random.permutation(self._seed, _IMAGES, 0, len(pixels))[0, :images]
        self._pixels, self._classes = pixels[chosen] / 255, classes
        self._batch_size, self._passes = batch_size, passes

    def __getitem__(self, task: int) -> Shuffled:
        labels = random.words(self._seed, _LABELS, task, len(self._pixels))[0] % self._classes
        return Shuffled((self._pixels, labels), self._batch_size, self._passes)
