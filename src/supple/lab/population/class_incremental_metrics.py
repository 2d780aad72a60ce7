"""What is measured of a network that learns more and more classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supple.lab.data.augmentation import Augmentation
from supple.lab.nn import ResNet, ViT, activations
from supple.lab.streams.class_incremental import ClassIncrementalStream, Part
from supple.metrics import dormant_units, feature_rank, hits, mean_magnitude, normalization_scales

_CHUNK = 100
"""Images whose hidden features are held at a time: those of 1,000 images would take gigabytes."""


@dataclass(frozen=True)
class AdditionStart:
    """The network with which the training on an addition's classes begins.

    Shares of dormant units, of the MLPs or between the convolutions of a block, and ranks of what the output layer
    reads, are measured on images of the classes before, where there are any, and of the new ones; magnitudes are mean
    absolute values.
    """

    dormant_before: float | None
    dormant_new: float
    rank_before: int | None
    rank_new: int
    weight_magnitude: float
    scale_magnitude: float


@dataclass(frozen=True)
class AdditionEnd:
    """The network with which the training on an addition's classes ends; where the best is restored, that.

    ``best_epoch`` is the first with the best validation accuracy; ``class_accuracy`` is in order of arrival.
    """

    best_epoch: int
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    class_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class EpochMetrics:
    """What was measured of an epoch. Losses are cross-entropies over the classes seen so far, in nats.

    Training images are augmented, and measured before the step that learns from them; validation and test images after
    the epoch. A run has diverged when a loss was not finite, in this epoch or before; it is then not trained any
    further, its losses are not a number and its accuracies 0. Only the first epoch of an addition has a ``start``, and
    only the last an ``end``.
    """

    epoch: int
    classes: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float
    reinitialized: int
    diverged: bool
    start: AdditionStart | None = None
    end: AdditionEnd | None = None


@torch.no_grad()
def evaluate(
    network: nn.Module, logits: Callable[[Tensor], Tensor], part: Part, augmentation: Augmentation, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats and accuracy on images without augmentation, in evaluation mode; two scalars.

    ``logits`` gives the outputs of the classes in question for images: [B, C, H, W] to [B, classes].
    """
    training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=part.images.device)
    right = torch.zeros((), dtype=torch.int64, device=part.images.device)
    for images, labels in zip(part.images.split(batch_size), part.labels.split(batch_size), strict=True):
        outputs = logits(augmentation.normalize(images))
        loss += nn.functional.cross_entropy(outputs, labels, reduction="sum")
        right += hits(outputs.mT.unsqueeze(0), labels.view(1, 1, -1))[0]
    network.train(training)
    return loss / len(part), right.double() / len(part)


@torch.no_grad()
def at_start(network: ViT | ResNet, stream: ClassIncrementalStream, addition: int, count: int) -> AdditionStart:
    """Measures the network with which the training on an addition's classes begins, on at most ``count`` images."""
    before = stream.examples(addition, count, new=False)
    dormant_before, rank_before = _units_and_rank(network, before) if len(before) else (None, None)
    dormant_new, rank_new = _units_and_rank(network, stream.examples(addition, count, new=True))
    scales = [scale.unsqueeze(0) for scale in normalization_scales(network).values()]
    weights = [parameter.unsqueeze(0) for parameter in network.parameters()]
    return AdditionStart(
        dormant_before,
        dormant_new,
        rank_before,
        rank_new,
        float(mean_magnitude(weights)),
        float(mean_magnitude(scales)),
    )


def _units_and_rank(network: ViT | ResNet, x: Tensor) -> tuple[float, int]:
    """Share of dormant units, and rank of what the output layer reads, on some images."""
    dormant, last = [], []
    units = -1 if isinstance(network, ViT) else 1
    for some in x.split(_CHUNK):
        found = activations(network, some)
        hidden = [features.movedim(units, -1).flatten(0, -2) for features in found.hidden]
        dormant.append(torch.cat([dormant_units(features) for features in hidden]))
        last.append(found.last)
    share = torch.stack(dormant).all(dim=0).float().mean()
    return float(share), int(feature_rank(torch.cat(last)))
