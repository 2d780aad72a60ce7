"""The one-cycle schedule: a setting that goes up and down once, on straight lines."""

from __future__ import annotations


def one_cycle(step: int, steps: int, start: float, peak: float, end: float, rise: float = 0.3) -> float:
    """A setting at a step of a cycle: up from ``start`` to ``peak``, then down to ``end``.

    Args:
        step: which step of the cycle, 0 <= step < steps.
        steps: number of steps of the cycle.
        start: value at the first step.
        peak: value where the way down begins, ``rise * steps - 1`` steps after the first, which may be between two.
        end: value at the last step.
        rise: share of the steps that goes up.

    Returns:
        The value. With the defaults of ``torch.optim.lr_scheduler.OneCycleLR(anneal_strategy="linear")``, ``start`` is
        a 25th of ``peak`` and ``end`` a 10,000th of ``start``.

    Raises:
        ValueError: if there is no such step.

    Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates",
    arXiv 1708.07120; in two phases as in PyTorch.
    """
    if not 0 <= step < steps:
        raise ValueError(f"step is {step}; a cycle of {steps} steps has steps from 0 to {steps - 1}")
    top = rise * steps - 1
    if step <= top and top > 0:
        return start + (peak - start) * step / top
    return peak + (end - peak) * (step - top) / (steps - 1 - top)
