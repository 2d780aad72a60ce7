"""What a reinitialization changes at once: the loss, the gradient, and the activations on the batch of its step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from supple.lab.nn import StackedMLP, output_and_activations
from supple.methods import Method
from supple.metrics import mean_magnitude


@dataclass(frozen=True, eq=False)
class Disturbance:
    """Networks just before and just after a method acted, on the batch of that step.

    Args:
        step: steps of the task that had been taken, this one included.
        reinitialized: int64 [R], entries or units reinitialized; 0 where nothing was, or it was not to be measured.
        loss_before: [R], cross-entropy in nats after the optimizer's step and before the method's.
        loss_after: [R], the same after the method's step.
        gradient_before: [R], mean absolute gradient over all parameters, before.
        gradient_after: [R], the same after.
        mean_change: [R, depth], for each hidden layer the absolute change of the mean of its activations over the
            units, averaged over the examples. Mean and standard deviation over the units are what a layer normalization
            after the activation normalizes by.
        std_change: [R, depth], the same for the standard deviation over the units.
    """

    step: int
    reinitialized: Tensor
    loss_before: Tensor
    loss_after: Tensor
    gradient_before: Tensor
    gradient_after: Tensor
    mean_change: Tensor
    std_change: Tensor


@dataclass(frozen=True, eq=False)
class _Probe:
    """Networks on one batch: loss [R], mean absolute gradient [R], and [R, B] a layer of activation statistics."""

    loss: Tensor
    gradient: Tensor
    means: list[Tensor]
    stds: list[Tensor]


@torch.enable_grad()
def _probe(network: StackedMLP, x: Tensor, y: Tensor) -> _Probe:
    output, found = output_and_activations(network, x)
    targets = y.repeat_interleave(network.replicas // len(y), dim=0)
    losses = torch.nn.functional.cross_entropy(output.mT, targets, reduction="none").mean(dim=1)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(losses.sum(), parameters)
    hidden = [features.detach() for features in found.hidden]
    return _Probe(
        losses.detach(),
        mean_magnitude(gradients),
        [features.mean(dim=-1) for features in hidden],
        [features.std(dim=-1, correction=0) for features in hidden],
    )


def step_and_measure(
    network: StackedMLP, method: Method, wanted: Tensor, x: Tensor, y: Tensor, step: int
) -> Disturbance:
    """Lets a method act after the optimizer's step, and measures the networks before and after on that step's batch.

    ``wanted``, bool [R] on the CPU, says which networks are to be measured; for others reinitialized is 0. The batch is
    x [S, B, inputs] and y int64 [S, B].

    Source: Hernandez-Garcia et al. (arXiv 2508.00212), disturbance of activations by a reinitialization.
    """
    before = _probe(network, x, y)
    method.step()
    after = _probe(network, x, y)
    return Disturbance(
        step,
        method.reinitialized.last * wanted.to(before.loss.device),
        before.loss,
        after.loss,
        before.gradient,
        after.gradient,
        _change(before.means, after.means),
        _change(before.stds, after.stds),
    )


def _change(before: list[Tensor], after: list[Tensor]) -> Tensor:
    return torch.stack([(b - a).abs().mean(dim=-1) for b, a in zip(before, after, strict=True)], dim=-1)


class Sampler:
    """Which steps of a task to measure: a few at which a method may act, ``each`` so many in each replica.

    Task k starts to look after floor(steps * frac(k * golden ratio)) steps, so that over many tasks every part of a
    task is looked at alike. What is measured of a replica does not depend on the others.
    """

    def __init__(self, index: int, steps: int, each: int, method: Method | None) -> None:
        self._start = int(steps * (index * 0.618033988749895 % 1))
        self._method = method if each else None
        self._left = torch.zeros(0) if method is None else each * method.ever_due().to(torch.int64)

    def wanted(self, step: int) -> Tensor | None:
        """In which replicas to measure what the method does after this step (1, 2, ...); they then count as measured.

        Bool [R] on the CPU; None for none.
        """
        if self._method is None or step <= self._start:
            return None
        due = self._method.due_next() & (self._left > 0)
        if not due.any():
            return None
        self._left -= due.to(self._left.dtype)
        if not self._left.any():
            self._method = None
        return due
