"""Training many replicas at once on a stream of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supple.lab.nn import StackedMLP, activations, dead_share
from supple.lab.population.disturbance import Disturbance, Sampler, step_and_measure
from supple.lab.population.fast import FastStep
from supple.lab.population.graphs import GraphedStep
from supple.lab.population.layers import Precision
from supple.lab.population.learner import Learner
from supple.lab.streams import PermutedStream
from supple.lab.streams.permuted import Task
from supple.methods import Method
from supple.metrics import feature_rank, hits, mean_magnitude, normalization_scales


@dataclass(frozen=True, eq=False)
class TaskMetrics:
    """What was measured while a population learned one task.

    Args:
        accuracy: [R], share of examples classified correctly before they were learned from, averaged over the task;
            None where the targets are no classes.
        loss: [R], cross-entropy before learning from a batch, in nats, averaged over the task.
        dead: [R], share of dead hidden units at the start of the task; None without hidden units.
        rank: int64 [R], rank of the last hidden layer's features at the start of the task; None without hidden units.
        weight_magnitude: [R], mean absolute weight at the start of the task, over all parameters.
        scale_magnitude: [R], mean absolute scale of the normalizations at the start of the task; None without them.
        gradient_magnitude: [R], mean absolute gradient of the task's first step, over all parameters.
        reinitialized: int64 [R], entries or units that the method reinitialized during the task.
        disturbances: what single reinitializations changed at once, where that was asked for.
        metric: [R], a metric of one's own.
    """

    accuracy: Tensor | None
    loss: Tensor
    dead: Tensor | None
    rank: Tensor | None
    weight_magnitude: Tensor
    scale_magnitude: Tensor | None
    gradient_magnitude: Tensor
    reinitialized: Tensor
    disturbances: Sequence[Disturbance] = ()
    metric: Tensor | None = None

    @property
    def outcome(self) -> Tensor:
        """What runs are compared by: the metric, or the accuracy, or the loss where there is no other."""
        return next(value for value in (self.metric, self.accuracy, self.loss) if value is not None)


class Population(Learner):
    """R stacked networks that learn a stream of tasks together, each with its own seed and settings.

    Replicas are ordered seed-first: with S seeds in the stream and C = R / S settings a seed, replicas s * C to
    s * C + C - 1 see the batches of seed s. Their losses are added up, so each network gets its own gradient and no
    other.

    ``general`` takes gradients from autograd through the network, as in any training loop, instead of the written-out
    step of :class:`FastStep`; the two agree within rounding, and networks with ``inject`` always do. ``disturbances``
    is at how many steps a task, in each replica, to measure what the method's step changes at once. ``precision`` is
    that of the written-out step's :class:`Products`; what is measured between the steps is as torch is set.
    """

    network: StackedMLP

    def __init__(
        self,
        network: StackedMLP,
        optimizer: torch.optim.Optimizer,
        stream: PermutedStream,
        method: Method | None = None,
        *,
        general: bool = False,
        measured_on: int = 1500,
        disturbances: int = 0,
        precision: Precision = "float32",
        graphs: bool = False,
    ) -> None:
        super().__init__(network, optimizer, method)
        _check_stream(network, stream)
        general = general or network.architecture.inject is not None
        if general and precision != "float32":
            raise ValueError(
                f"precision is {precision!r}, which is of the written-out step; general=True and networks with inject "
                "compute as torch is set"
            )
        if graphs and (general or network.seeds.device.type != "cuda"):
            where = "with general=True or inject" if general else f"on {network.seeds.device.type!r}"
            raise ValueError(
                f"graphs=True records the written-out step on a GPU, which there is not {where}; leave it out"
            )
        self.stream = stream
        self.measured_on = min(measured_on, len(stream.images))
        self.disturbances = disturbances
        self._train = self._general_step if general else self._fast_step
        step = FastStep(network, optimizer, precision)
        self._fast = GraphedStep(step) if graphs else step

    def enter(self, task: int) -> None:
        """Lets the networks and the method do what is due before a task."""
        self.network.enter(task, self.optimizer)
        super().enter(task)

    def train_task(self, index: int, progress: Callable[[int], object] = lambda steps: None) -> TaskMetrics:
        """Learns one task of the stream, and leaves the networks as they are after its last step.

        ``progress`` is called after each step with the number of steps done. The device is waited for at the start of
        the task, to find ranks, and then not before what was measured is read, but where a step is recorded as a CUDA
        graph.
        """
        task = self.stream.task(index)
        before = self._reinitialized()
        self.enter(index)
        dead, rank, weights, scales = self.measure(task)
        correct = torch.zeros_like(rank)
        losses = torch.zeros_like(weights)
        sampler = Sampler(index, len(task), self.disturbances, self.method)
        disturbances = []
        for step, (x, y) in enumerate(task, start=1):
            loss, right = self._train(x, y, step == 1)
            if step == 1:
                gradients = mean_magnitude(p.grad for p in self.network.parameters() if p.grad is not None)
            wanted = sampler.wanted(step)
            if self.method is None or wanted is None:
                self._act()
            else:
                disturbances.append(step_and_measure(self.network, self.method, wanted, x, y, step))
            losses += loss
            correct += right
            progress(step)
        return TaskMetrics(
            accuracy=correct / (len(task) * self.stream.batch_size),
            loss=losses / len(task),
            dead=dead,
            rank=rank,
            weight_magnitude=weights,
            scale_magnitude=scales,
            gradient_magnitude=gradients,
            reinitialized=self._reinitialized() - before,
            disturbances=disturbances,
        )

    def measure(self, task: Task) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Dead share, rank, weight and scale magnitude on the first examples of a task, as in :class:`TaskMetrics`."""
        found = activations(self.network, task.examples(self.measured_on)[0])
        dead, rank = dead_share(self.network, found), feature_rank(found.last)
        return dead, rank, mean_magnitude(self.network.parameters()), self._scales()

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Learns one batch: a gradient step, and what the method does after it.

        From x [S, B, inputs], one batch a seed, and its classes y int64 [S, B] to (loss, correct), each [R], before the
        step: cross-entropy in nats averaged over the batch, and the number of examples classified correctly.
        """
        measured = self._train(x, y)
        self._act()
        return measured

    def _act(self) -> None:
        if self.method is not None:
            self.method.step()

    def _scales(self) -> Tensor | None:
        scales = normalization_scales(self.network).values()
        return mean_magnitude(scales) if scales else None

    def _reinitialized(self) -> Tensor:
        if self.method is None:
            return torch.zeros(self.network.replicas, dtype=torch.int64, device=self.network.seeds.device)
        return self.method.reinitialized.total

    def _fast_step(self, x: Tensor, y: Tensor, gradients: bool = False) -> tuple[Tensor, Tensor]:
        if self.method is None:
            return self._fast(x, y, gradients=gradients)
        needs = self.method.needs()
        return self._fast(x, y, gradients=gradients or needs.gradients, readers=needs.readers)

    def _general_step(self, x: Tensor, y: Tensor, gradients: bool = True) -> tuple[Tensor, Tensor]:
        """The reference for the fast step: loss [R] and examples classified correctly [R], before the update."""
        self.optimizer.zero_grad()
        logits = self.network(x).mT
        targets = y.repeat_interleave(len(logits) // len(y), dim=0)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").mean(dim=1)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach(), hits(logits.detach(), targets.unsqueeze(1))


def _check_stream(network: StackedMLP, stream: PermutedStream) -> None:
    seeds, replicas = stream.seeds.tolist(), network.seeds.tolist()
    if len(replicas) % len(seeds) or replicas != [seed for seed in seeds for _ in range(len(replicas) // len(seeds))]:
        raise ValueError(
            f"the stream has {len(seeds)} seeds ({_some(seeds)}) and the network's {len(replicas)} replicas have seeds "
            f"{_some(replicas)}; give the stream each seed once, and the network each seed as often as there are "
            "settings, in the same order: StackedMLP([s for s in seeds for _ in range(settings)])"
        )
    architecture = network.architecture
    if (architecture.inputs, architecture.outputs) != (stream.features, stream.classes):
        raise ValueError(
            f"the network has {architecture.inputs} inputs and {architecture.outputs} outputs; {stream.name} has "
            f"{stream.features} pixels and {stream.classes} classes"
        )


def _some(values: list[int]) -> str:
    return ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
