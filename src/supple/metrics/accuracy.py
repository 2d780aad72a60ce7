"""Accuracy of many networks at once."""

from __future__ import annotations

from torch import Tensor


def hits(logits: Tensor, target: Tensor) -> Tensor:
    """How many examples are classified rightly: the logit of the right class is above all others.

    A tie is no hit, so that a network whose logits are all the same scores 0. Comparing with the right logit takes a
    tenth of the time of an argmax over a dimension that is not the last.

    Args:
        logits: [R, classes, B].
        target: int64 [R, 1, B], the right classes.

    Returns:
        int64 [R].
    """
    return ((logits >= logits.gather(1, target)).sum(dim=1) == 1).sum(dim=1)
