"""Probes a network: lets copies of it and fresh networks learn the same new tasks, and compares their curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from supple.probing.curves import Array, Interval, interval, steps_to
from supple.probing.judging import Judge
from supple.probing.learning import Learn, Learning
from supple.probing.networks import Factory, Origin
from supple.probing.tasks import Data, RandomLabels
from supple.probing.variants import Make, Variants, by_layer, cures
from supple.structure.description import html_table


class Comparison(NamedTuple):
    """A number of the probed network's curves and of the fresh ones', as means over seeds, and how they differ.

    Attributes:
        model: the probed network's.
        fresh: the fresh networks'.
        difference: the first minus the second, with the 98% interval of its mean.
    """

    model: float
    fresh: float
    difference: Interval


class Probe:
    """How a network learns new tasks, compared with fresh ones; made by :func:`probe`, and printed as a table.

    Attributes:
        verdict: what is to be said, such as "slower by 23% (11 to 34%)".
        slowdown: how many more steps it needs for the same losses, as a share: 0.23 is 23% more; with its 98% interval.
        area: the mean over the curves.
        steps: steps until ``level`` is reached, all there were where it is not.
        final: the mean over the last tenth of the curves.
        level: the loss (or the score) that ``steps`` are counted to.
        curves: "model" and "fresh": the curves [seeds, points], means over stretches of steps.
        budget: length of a curve.
        diverged: with how many seeds the probed network came to a loss that is not finite.
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        fresh: Factory,
        learn: Learn,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        seeds: Sequence[int],
        *,
        higher: bool = False,
        level: float | None = None,
        margin: float = 0.1,
        progress: bool = True,
    ) -> None:
        self.origin, self.higher = Origin(model, fresh, seeds), higher
        self.learning = Learning(self.origin, learn, optimizer, higher, progress)
        self.losses = self.learning.losses({"model": self.origin.trained, "fresh": self.origin.fresh})
        self.budget = self.learning.budget
        self.judge = Judge(self.losses["fresh"][:, 0], self.origin.single, margin)
        sign = -1 if higher else 1
        self.curves = {name: sign * curves for name, curves in self.losses.items()}
        ours, theirs = self.losses.values()
        self.diverged = int((~np.isfinite(ours).all(axis=1)).sum())
        change = self.judge.change(ours, theirs)
        self.slowdown = self.judge.share(change)
        scale = self.budget / ours.shape[1]
        middle = float(np.minimum.accumulate(theirs, axis=1).mean(axis=0)[theirs.shape[1] // 2])
        self.level = sign * middle if level is None else level
        last = max(1, ours.shape[1] // 10)
        self.area = _compared(sign * ours.mean(axis=1), sign * theirs.mean(axis=1))
        self.steps = _compared(*(scale * steps_to(each, sign * self.level) for each in (ours, theirs)))
        self.final = _compared(sign * ours[:, -last:].mean(axis=1), sign * theirs[:, -last:].mean(axis=1))
        self.verdict = self.judge.verdict(change, self.budget)

    def by_layer(self, blocks: Iterable[str] | None = None) -> Variants:
        """Probes the network with one block at a time replaced by a fresh one: where was plasticity lost?

        Args:
            blocks: names of modules; None: the parts of the network that have parameters, of containers
                (``Sequential``, ``ModuleList``, ``ModuleDict``) their parts.

        Returns:
            A row a block, in the network's order, after one for the network as it is.

        Raises:
            ValueError: if a name is none of a module with parameters.

        Example:
            >>> import torch, supple
            >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> task = supple.probing.RandomLabels(torch.randn(64, 4), steps=20)
            >>> [row.name for row in supple.probe(make(), make, task).by_layer().rows]
            ['as it is', '0 fresh', '2 fresh']
        """
        return by_layer(self, blocks)

    def cures(self, methods: Iterable[Make] | dict[str, Make]) -> Variants:
        """Probes the network again after each of some methods: what would help?

        A method that acts at boundaries acts once, as at one. With any other the network first learns one more task,
        of another seed, for the budget; "trained on" is the network that learned it without a method. Then the copies
        learn the same tasks as before, without the method. A ``Task`` of your own has the same examples for every
        seed, which such a network then has seen: compare it with "trained on", not with fresh networks.

        Methods are made for a network that was not trained yet, since only its values tell what they were drawn from;
        the trained values come after that. Those that keep the values at the start keep the fresh network's.

        Args:
            methods: functions of model and optimizer that make a method, such as ``supple.FIRE`` or ``lambda model,
                optimizer: supple.SWR(model, optimizer, frequency=100)``; in a dict by name, or named by what they make.

        Returns:
            A row a method, the one that learns fastest first, with one for the network as it is.

        Raises:
            TypeError: if one of them makes no method.

        Example:
            >>> import torch, supple
            >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
            >>> probe = supple.probe(make(), make, supple.probing.RandomLabels(torch.randn(64, 4), steps=20))
            >>> sorted(row.name for row in probe.cures({"FIRE": supple.FIRE, "Reset": supple.Reset}).rows)
            ['FIRE', 'Reset', 'as it is']
        """
        return cures(self, methods)

    def _rows(self) -> list[tuple[str, ...]]:
        """The table that is printed, with its headings."""
        kind = "score" if self.higher else "loss"
        numbers = {f"mean {kind}": self.area, f"steps to {self.level:.4g}": self.steps, f"final {kind}": self.final}
        found: list[tuple[str, ...]] = [("", "yours", "fresh", "difference")]
        for name, one in numbers.items():
            found.append((name, f"{one.model:.4g}", f"{one.fresh:.4g}", _signed(one.difference)))
        return found

    def _said(self) -> str:
        """The verdict, and what did not go well."""
        if not self.diverged:
            return self.verdict
        kind = "score" if self.higher else "loss"
        return f"{self.verdict}; its {kind} was not finite with {self.diverged} of {len(self.origin.seeds)} seeds"

    def __str__(self) -> str:
        rows = [f"{name:24}{model:>10}{fresh:>10}   {difference}" for name, model, fresh, difference in self._rows()]
        return "\n".join([*rows, self._said()])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"{html_table(self._rows())}<p>{escape(self._said())}</p>"

    def __repr__(self) -> str:
        return f"<Probe of {self.budget} steps with {len(self.origin.seeds)} seeds: {self.verdict}>"


def probe(
    model: nn.Module | Sequence[nn.Module],
    fresh: Factory,
    learn: Learn | Data,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = torch.optim.Adam,
    *,
    seeds: int | Sequence[int] | None = None,
    higher: bool = False,
    level: float | None = None,
    margin: float = 0.1,
    progress: bool = True,
) -> Probe:
    """Probes how well a network would learn something new, compared with fresh ones.

    Copies of the network and fresh networks learn the same tasks, one a seed: with the same examples in the same order,
    and new optimizers. How much slower the network is follows from the steps that both need to come down to a loss, as
    a mean over all losses from the fresh network's first to the lowest of either
    (:func:`supple.probing.curves.steps_needed`): a factor a seed, of which the geometric mean is reported, with
    Student's 98% interval over seeds. The verdict follows from the interval alone::

        all of it within ``margin``      "learns as fast as fresh"
        all of it above 0                "slower by 23% (11 to 34%)": needs 23% more steps
        all of it below 0                "faster by ..."
        else                             "cannot tell: more seeds", with about how many

    One network may be a lucky or an unlucky one among networks like it, as a fresh one may. The interval of a single
    network therefore is as wide as fresh networks differ, and more seeds help little where they differ much; that of
    several networks that were trained alike, a seed each, is the interval of their mean.

    The network stays as it is: it is only read. Random numbers of torch, numpy and Python go on as if nothing had been.

    Args:
        model: the network, or several that were trained alike, one a seed.
        fresh: makes a network of the same kind as before training, from torch's random numbers, or from a seed if it
            takes one (``lambda seed: ...``).
        learn: ``learn(network, optimizer, seed)`` lets a network learn the task of a seed, and returns the curve: the
            loss before each step, as many numbers for every network. :class:`supple.probing.Task`,
            :class:`~supple.probing.RandomLabels` and :class:`~supple.probing.RandomTeacher` are such. Inputs alone, a
            tensor [N, ...] or a tuple or a dict of such, stand for random labels for them.
        optimizer: makes the optimizer from parameters, such as ``lambda p: torch.optim.SGD(p, lr=0.05)``; take that of
            the training.
        seeds: how many seeds, two or more, or the seeds themselves; None: 5, or one for each of several networks.
        higher: whether a curve's numbers are better where they are higher, as accuracies and returns are.
        level: the loss (or score) to which steps are counted; None: what fresh networks reach in half of the steps.
        margin: the share by which networks may differ and still learn as fast as each other, above 0.
        progress: whether to say on standard error how far it has come: in place on a terminal, elsewhere every 30 s.

    Returns:
        What was found; ``print`` shows it, and :meth:`Probe.by_layer` and :meth:`Probe.cures` go on from there.

    Raises:
        TypeError: if an argument is of another type, or ``learn`` returns no curve.
        ValueError: if ``fresh`` makes networks of another architecture, or the same network twice, if curves are not
            of one length, or a fresh network's is not finite.

    Example:
        >>> import torch, supple
        >>> make = lambda: torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        >>> model = make()
        >>> with torch.no_grad():
        ...     _ = model[0].bias.fill_(-9.0)  # no unit is ever active
        >>> task = supple.probing.RandomLabels(torch.randn(32, 4), steps=100)
        >>> supple.probe(model, make, task, lambda p: torch.optim.SGD(p, lr=0.5)).verdict[:9]
        'slower by'
    """
    many = isinstance(model, Sequence)
    for one in model if many else [model]:  # type: ignore[union-attr]
        if not isinstance(one, nn.Module):
            raise TypeError(f"model is a {type(one).__name__}; it has to be a torch.nn.Module, or several in a list")
    for name, value in (("fresh", fresh), ("optimizer", optimizer)):
        if not callable(value) or isinstance(value, nn.Module | torch.optim.Optimizer):
            raise TypeError(
                f"{name} is a {type(value).__name__}; it has to be a function that makes one, such as lambda: ..."
            )
    if seeds is None:
        seeds = len(model) if many else 5  # type: ignore[arg-type]
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if len(set(seeds)) < max(2, len(seeds)):
        raise ValueError(f"seeds is {seeds}; an interval needs two or more, all different")
    if many and len(model) != len(seeds):  # type: ignore[arg-type]
        raise ValueError(f"there are {len(model)} networks and {len(seeds)} seeds; give one a seed")  # type: ignore[arg-type]
    if not margin > 0:
        raise ValueError(f"margin is {margin}; it has to be above 0")
    return Probe(
        model,
        fresh,
        learn if callable(learn) else RandomLabels(learn),
        optimizer,
        seeds,
        higher=higher,
        level=level,
        margin=margin,
        progress=progress,
    )


def _compared(ours: Array, theirs: Array) -> Comparison:
    return Comparison(float(ours.mean()), float(theirs.mean()), interval(ours - theirs))


def _signed(one: Interval) -> str:
    return f"{one.mean:+.3g} ({one.low:+.3g} to {one.high:+.3g})"
