"""Permuted labels: a stream of images, single or a few at a time, whose classes change places every 2,500 images.

Source: Elsayed and Mahmood, "Addressing loss of plasticity and catastrophic forgetting in continual learning", ICLR
2024, label-permuted EMNIST, and its measure of plasticity; with MNIST, since EMNIST is none of our data sets.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab import data
from supple.lab.population.problem import ACCURACY, Metric, Problem
from supple.lab.streams import Made

_IMAGES, _CLASSES = random.purpose("label permutation", "images"), random.purpose("label permutation", "classes")


def plasticity(before: Tensor, after: Tensor, targets: Tensor) -> Tensor:
    """Which share of its loss on each example a step takes away, at least 0, averaged over the examples.

    max(1 - L(after) / max(L(before), eps), 0) with eps = 1e-8 [section 2 of the paper], so it is from 0 to 1.
    """
    first, then = (nn.functional.cross_entropy(output, targets, reduction="none") for output in (before, after))
    return (1 - then / first.clamp(min=1e-8)).clamp(0, 1).mean()


PLASTICITY = Metric("plasticity", plasticity, share=True, after=True)
"""The paper's measure."""


def make(
    name: str = "mnist10k",
    samples: int = 2500,
    batch_size: int = 1,
    metric: str = "plasticity",
    data_dir: Path | None = None,
    verify: bool = True,
) -> Problem:
    """The problem, with so many images a task; networks are compared by "plasticity", or by "accuracy"."""
    metrics = {"plasticity": PLASTICITY, "accuracy": ACCURACY}
    if metric not in metrics:
        raise ValueError(f"metric is {metric!r}; it has to be one of {', '.join(metrics)}")
    source = data.load(name, data_dir, verify=verify)
    pixels, labels = source.images.flatten(1), source.labels

    def network(seed: int, hidden: int = 300) -> nn.Module:
        """The paper's has 300 hidden units, and then half as many."""
        sizes = (pixels.shape[1], hidden, hidden // 2, source.classes)
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    return Problem(
        network=network,
        optimizer=lambda parameters, lr=0.01: torch.optim.SGD(parameters, lr=lr),
        stream=lambda seed: PermutedLabels(pixels, labels, source.classes, seed, samples, batch_size),
        loss=nn.functional.cross_entropy,
        metric=metrics[metric],
    )


class PermutedLabels:
    """The tasks of a seed: images drawn at random, whose classes have changed places."""

    def __init__(self, pixels: Tensor, labels: Tensor, classes: int, seed: int, samples: int, batch_size: int) -> None:
        self._seed, self._pixels, self._labels, self._classes = torch.tensor([seed]), pixels, labels, classes
        self._samples, self._batch_size = samples, batch_size

    def __getitem__(self, task: int) -> Made:
        places, size = random.permutation(self._seed, _CLASSES, task, self._classes)[0], self._batch_size

        def batch(number: int) -> tuple[Tensor, Tensor]:
            chosen = random.words(self._seed, _IMAGES, task, size, number * size)[0] % len(self._pixels)
            return self._pixels[chosen] / 255, places[self._labels[chosen]]

        return Made(self._samples // size, batch)
