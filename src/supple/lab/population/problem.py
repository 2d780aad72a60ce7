"""A problem of one's own: the network, the optimizer, the stream, the loss and the metric of a comparison."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from supple.lab.streams.tasks import Stream


@dataclass(frozen=True)
class Metric:
    """What networks are compared by, beside their loss.

    Args:
        name: what it is, such as "accuracy".
        function: from the output of one network and the targets of a batch to a tensor without dimensions; it is
            averaged over the batches of a task.
        lower: whether lower is better.
        share: whether it is a share, from 0 to 1, that is shown in per cent.
        after: whether the function takes also the output for the same inputs after the step, between the two.
    """

    name: str
    function: Callable[..., Tensor] | None
    lower: bool = False
    share: bool = False
    after: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f'the name of the metric is {self.name!r}; it has to be a word, such as "accuracy"')
        for switch in ("lower", "share", "after"):
            if not isinstance(getattr(self, switch), bool):
                raise TypeError(f"{switch} of the metric {self.name} is {getattr(self, switch)!r}; it has to be a bool")


def said(error: Exception) -> str:
    """What an error in somebody's program says, with its kind where the words alone do not tell, as of a KeyError."""
    plain = isinstance(error, AttributeError | OSError | RuntimeError | TypeError | ValueError)
    return str(error) if plain else f"{type(error).__name__}: {error}"


def accuracy(output: Tensor, targets: Tensor) -> Tensor:
    """Share of classes that are found: the output of the right class is above all others.

    Args:
        output: [..., classes], or as ``torch.nn.functional.cross_entropy`` takes it [B, classes, ...].
        targets: whole numbers [...]; those below 0 do not count.

    Returns:
        A tensor without dimensions.
    """
    if output.shape[:-1] != targets.shape:
        output = output.movedim(1, -1)
    right = output.gather(-1, targets.clamp(min=0).unsqueeze(-1))
    hits = ((output >= right).sum(-1) == 1) & (targets >= 0)
    return hits.sum() / (targets >= 0).sum()


ACCURACY = Metric("accuracy", accuracy, share=True)
"""The metric of classes where nothing else is said."""

LOSS = Metric("loss", None, lower=True)
"""The metric of anything else where nothing else is said."""


@dataclass(frozen=True)
class Problem:
    """What methods are compared on: everything of the training but the method.

    Networks of several seeds and settings are trained together where ``torch.func.vmap`` can compute them
    (:func:`supple.lab.stack`), and the optimizer acts on each entry by itself, as those of ``torch.optim`` from SGD to
    Adam do; others, and what has hooks on gradients or on the optimizer, are trained one after the other. A run learns
    as the same network does alone, in a loop with ``method.step()`` after ``optimizer.step()``.

    Args:
        network: makes a network from a seed, and what ``[network]`` of the study says by name. torch's generator is
            seeded with the seed before.
        optimizer: makes its optimizer from the parameters, and what ``[optimizer]`` says by name.
        stream: a function from a seed to tasks: a sequence, or any other iterable. A task is an iterable of batches, or
            a ``Dataset`` or ``DataLoader`` of them; a batch is a pair of the inputs, a tensor (or a tuple or dict of
            them, which the network takes as arguments) and the targets, a tensor. The same seed has to give the same
            batches, as often as it is asked. Tasks may be given themselves, without a function, and a ``Dataset`` or
            ``DataLoader`` is a stream of which each task is one pass. See :class:`supple.lab.Task` for tests, and for
            what is learned without being measured.
        loss: from the output of one network and the targets to a tensor without dimensions.
        metric: what networks are compared by; None: accuracy where the targets are classes, else the loss.
        batch_size: examples a batch where a task is a ``Dataset``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> def stream(seed):  # of ten tasks; torch's generator is one of the seed
        ...     return [TensorDataset(torch.randn(64, 4), torch.randint(3, (64,))) for task in range(10)]
        >>> problem = supple.lab.Problem(
        ...     network=lambda seed, hidden=8: nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3)),
        ...     optimizer=lambda parameters, lr=0.1: torch.optim.SGD(parameters, lr=lr),
        ...     stream=stream,
        ...     loss=nn.functional.cross_entropy,
        ... )
    """

    network: Callable[..., nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    stream: Stream
    loss: Callable[[Any, Tensor], Tensor]
    metric: Metric | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, what in (("network", "a seed"), ("optimizer", "parameters")):
            made = getattr(self, name)
            if not callable(made) or isinstance(made, nn.Module):
                raise TypeError(f"{name} is {type(made).__name__}; it has to be a function that makes one from {what}")
        if not callable(self.loss) or isinstance(self.loss, type):
            raise TypeError(
                f"loss is {self.loss!r}; it has to be a function of outputs and targets, such as "
                "torch.nn.functional.cross_entropy"
            )
        if not isinstance(self.metric, Metric | None):
            raise TypeError(f'metric is {self.metric!r}; it has to be supple.lab.Metric("name", function), or None')
        if self.metric is not None and self.metric is not LOSS and self.metric.function is None:
            raise TypeError(f"metric {self.metric.name!r} has no function; give it one of outputs and targets")
        if not isinstance(self.batch_size, Integral):
            raise TypeError(f"batch_size is {self.batch_size!r}; it has to be a whole number")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it has to be 1 or more")


@dataclass(frozen=True)
class Curve:
    """A problem that trains by itself, such as reinforcement learning; each run is trained alone.

    Args:
        learn: from a seed and a maker of methods to a curve: numbers, which may come one by one (``yield``), one a
            task. ``make(model, optimizer)`` makes the method of a run, which then acts by itself after each step of the
            optimizer; of what it returns, ``boundary()`` is called where the data changes. Where the hidden units need
            an example to be found: ``make(model, optimizer, example)``. What ``[network]`` and ``[optimizer]`` of the
            study say comes as the mappings ``make.network`` and ``make.optimizer``, and has to be read. The generators
            of torch, numpy and Python are seeded with the seed before; a run that is taken up again starts anew, and
            has to give the same numbers.
        metric: what the numbers are; its function is not used.

    Example:
        >>> import torch
        >>> def learn(seed, make):
        ...     model = torch.nn.Linear(2, 1)
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     make(model, optimizer)
        ...     for task in range(3):
        ...         loss = model(torch.ones(1, 2)).square().mean()
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        ...         yield -loss.item()
        >>> problem = supple.lab.Curve(learn)
    """

    learn: Callable[[int, Any], Iterable[float]]
    metric: Metric = Metric("return", None)

    def __post_init__(self) -> None:
        try:
            with suppress(ValueError):  # what is compiled may not say what it takes
                inspect.signature(self.learn).bind(0, None)
        except TypeError as error:
            raise TypeError(
                f"learn is {self.learn!r}; it has to be a function of a seed and a maker of methods: {error}"
            ) from error
        if not isinstance(self.metric, Metric):
            raise TypeError(f'metric is {self.metric!r}; it has to be supple.lab.Metric("name", None)')
