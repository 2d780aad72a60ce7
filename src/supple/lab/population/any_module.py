"""Training any modules on any stream: many networks together where they can be stacked, or one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from supple.functional import random
from supple.lab.limits import out_of_memory
from supple.lab.nn.stack import StackedModule, applied, entry, moved, stacked
from supple.lab.population.learner import Learner
from supple.lab.population.population import TaskMetrics
from supple.lab.population.problem import ACCURACY, LOSS, Metric, said
from supple.lab.streams.tasks import SeedStream, TaskBatches, check_tested, number
from supple.methods import Method
from supple.metrics import dead_units, feature_rank, mean_magnitude, normalization_scales, undisturbed
from supple.metrics.unit_features import activation_shapes, flat, read_units
from supple.structure.find import units
from supple.structure.tracing.run import arguments_of

_DRAWS = random.purpose("training", "draws")


class AnyPopulation(Learner):
    """R stacked networks of any kind that learn a stream together, or one network that is not stacked.

    Replicas are ordered seed-first, as in :class:`supple.lab.population.Population`; ``streams`` are those of the S
    seeds. What networks draw while they compute, as dropout does, they draw from torch's generator, which is seeded
    anew for each task by the first of their seeds; it is left as it was.

    Args:
        network: the networks, :func:`supple.lab.stack`, or a network.
        optimizer: their optimizer.
        streams: a stream a seed.
        method: acts on them.
        loss: of one network.
        metric: of one network; None: as :func:`usual_metric` says.
        measured_on: so many examples, about, of a task dead units and ranks are measured on; 0: not at all.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        streams: Sequence[SeedStream],
        method: Method | None,
        *,
        loss: Callable[[Any, Tensor], Tensor],
        metric: Metric | None = None,
        measured_on: int = 1500,
        device: str = "cpu",
    ) -> None:
        super().__init__(network, optimizer, method)
        self.streams, self.loss, self.metric = streams, loss, metric
        self.stacked = network if isinstance(network, StackedModule) else None
        self.replicas = 1 if self.stacked is None else self.stacked.replicas
        self.measured_on, self.device = measured_on, torch.device(device)
        self._probe: tuple[nn.Module, Any, Any] | None = None

    def train_task(self, index: int, progress: Callable[[int], object] = lambda steps: None) -> TaskMetrics:
        """Learns one task; ``progress`` is called after each step with the number of steps done.

        ValueError if the tasks of the seeds do not fit together, or the loss cannot be computed.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(number(self.streams[0].seed, _DRAWS, index))
            return self._train_task(index, progress)

    def _train_task(self, index: int, progress: Callable[[int], object]) -> TaskMetrics:
        tasks = [stream.task(index) for stream in self.streams]
        check_tested(index, self.streams, tasks)
        tested = tasks[0].test is not None
        batches = self._together(index, tasks)
        ahead: list[tuple[Any, Tensor]] = []
        while sum(y.shape[1] for _, y in ahead) < max(1, self.measured_on) and (batch := next(batches, None)):
            ahead.append(batch)
        if not ahead:
            raise ValueError(f"task {index} of seed {self.streams[0].seed} has no batches")
        before = self._reinitialized()
        self.enter(index)
        with self._explained(f"task {index}, the first batches", ahead):
            dead, rank = self._measure([x for x, _ in ahead])
        weights, scales = self._magnitude(self.network.parameters()), self._scales()
        losses, values = torch.zeros_like(weights), _Mean()
        for step, (x, y) in enumerate(chain(ahead, batches), start=1):
            with self._explained(f"task {index}, batch {step - 1}", [(x, y)]):
                loss, value = self.step(x, y)
            if step == 1:
                gradients = self._magnitude(p.grad for p in self.network.parameters() if p.grad is not None)
            losses += loss
            values.add(value, loss)
            progress(step)
        if tested:
            values = self._test(index, tasks)
        for later, (x, y) in enumerate(self._together(index, [task.later or () for task in tasks])):
            if not later:
                self.boundary()
            with self._explained(f"task {index}, later batch {later}", [(x, y)]):
                self.step(x, y)
            progress(step + later + 1)
        # The loss is there anyhow, but that of a test is another.
        compared = {} if self.metric is LOSS and not tested else {"metric": values.now}
        return TaskMetrics(
            **({"accuracy": values.now} if self.metric is ACCURACY else {"accuracy": None, **compared}),
            loss=losses / step,
            dead=dead,
            rank=rank,
            weight_magnitude=weights,
            scale_magnitude=scales,
            gradient_magnitude=gradients,
            reinitialized=self._reinitialized() - before,
        )

    def step(self, x: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Learns one batch of each seed, [S, B, ...]: loss and metric before it, each [R]."""
        self.optimizer.zero_grad()
        output = self._outputs(x)
        losses = self._each(self.loss, output, y=y)
        losses.sum().backward()
        output, losses = tree_map_only(Tensor, Tensor.detach, output), losses.detach()
        with torch.no_grad():
            value = self._metric(output, y, losses)
        self.optimizer.step()
        if self.method is not None:
            self.method.step()
        if value is None:
            with torch.no_grad():
                value = self._metric(output, y, losses, self._outputs(x))
            assert value is not None
        return losses, value

    def _outputs(self, x: Any) -> Any:
        arguments, keywords = arguments_of(x if self.stacked is not None else entry(x, 0))
        return self.network(*arguments, **keywords)

    def _each(self, function: Callable[..., Tensor], *outputs: Any, y: Tensor) -> Tensor:
        """A function of each network's outputs and its targets, [R]; ValueError if it is not a scalar a network."""
        if self.stacked is not None:
            return self.stacked.losses(function, *outputs, y)
        found = function(*outputs, y[0])
        if found.shape != ():
            raise ValueError(f"the loss of one network has shape {tuple(found.shape)}; it has to be a scalar")
        return found.unsqueeze(0)

    def _metric(self, output: Any, y: Tensor, losses: Tensor, after: Any = None) -> Tensor | None:
        """The metric of each network, [R]; None where it needs what the step will have changed."""
        if self.metric is None:
            one = output if self.stacked is None else entry(output, 0)
            self.metric = usual_metric(one, y[0])
        function = self.metric.function
        if function is None:
            return losses
        if self.metric.after and after is None:
            return None
        outputs = (output, after) if self.metric.after else (output,)
        return self._each(function, *outputs, y=y).to(losses.dtype)

    def _test(self, index: int, tasks: Sequence[TaskBatches]) -> _Mean:
        """The metric on the test batches of a task, each weighing as many as it has examples."""
        values, examples = _Mean(), 0
        with undisturbed(self.network):
            for step, (x, y) in enumerate(self._together(index, [task.test for task in tasks])):
                with self._explained(f"task {index}, test batch {step}", [(x, y)]):
                    output = self._outputs(x)
                    loss = self._each(self.loss, output, y=y)
                    value = self._metric(output, y, loss, output)
                    assert value is not None
                    values.add(value, loss, y.shape[1])
                examples += y.shape[1]
        if not examples:
            raise ValueError(f"task {index} of seed {self.streams[0].seed} has no test batches")
        return values

    @contextmanager
    def _explained(self, place: str, batches: Sequence[tuple[Any, Tensor]] = ()) -> Iterator[None]:
        """Makes a ValueError with the place, and the seed where one alone fails, of what goes wrong with batches."""
        try:
            yield
        except Exception as error:
            if out_of_memory(error):
                raise
            wrong = next((s.seed for k, s in enumerate(self.streams) if any(self._fails(k, *b) for b in batches)), None)
            where = place if wrong is None else f"{place} of seed {wrong}"
            raise ValueError(f"{where}: {said(error)}") from error

    def _fails(self, seed: int, x: Any, y: Tensor) -> bool:
        """Whether the loss cannot be computed of the batch of one seed, by its place."""
        x, y = tree_map_only(Tensor, lambda value: value[seed : seed + 1], (x, y))
        try:
            with torch.no_grad():
                self._each(self.loss, self._outputs(x), y=y)
        except Exception:
            return True
        return False

    def _together(self, index: int, tasks: Sequence[Any]) -> Iterator[tuple[Any, Tensor]]:
        """The batches of all seeds [S, ...]; ValueError if they are not alike."""
        seeds, readers = [stream.seed for stream in self.streams], [iter(task) for task in tasks]
        step = 0
        while True:
            batches = []
            for seed, reader in zip(seeds, readers, strict=True):
                with self._explained(f"task {index}, batch {step} of seed {seed}"):
                    batches.append(next(reader, None))
            there = [batch for batch in batches if batch is not None]
            if not there:
                return
            if len(there) < len(batches):
                short = seeds[[batch is None for batch in batches].index(True)]
                long = seeds[[batch is None for batch in batches].index(False)]
                raise ValueError(
                    f"task {index} has {step} batches with seed {short} and more with seed {long}; all seeds "
                    "need as many"
                )
            try:
                yield moved(tree_map(stacked, *there), self.device)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"task {index}, batch {step}: the batches of seeds {', '.join(map(str, seeds))} do not fit "
                    f"together ({error}); make all of one shape, or train each run alone with part_size=1"
                ) from error
            step += 1

    def _measure(self, inputs: Sequence[Any]) -> tuple[Tensor | None, Tensor | None]:
        """Share of dead units, and rank of the last features, of each network [R]; None where there are no units."""
        if not self.measured_on:
            return None, None
        if self._probe is None:
            self._probe = self._prepared(entry(inputs[0], 0))
        one, found, shapes = self._probe
        if not found:
            return None, None
        dead, rank = [], []
        for r in range(self.replicas):
            if self.stacked is not None:
                _load(one, self.stacked, r)
            seed = len(self.streams) * r // self.replicas
            each = [_features(one, found, entry(x, seed)) for x in inputs]
            features = [torch.cat(group) for group in zip(*each, strict=True)]
            dying = [
                dead_units(some, shape.saturated, shape.tolerance) for some, shape in zip(features, shapes, strict=True)
            ]
            dead.append(torch.cat(dying).float().mean())
            rank.append(feature_rank(features[-1]))
        return torch.stack(dead), torch.stack(rank)

    def _prepared(self, x: Any) -> tuple[nn.Module, Any, Any]:
        """One network, its hidden units, none where there are none, and their activation functions."""
        one = self.network if self.stacked is None else self.stacked.replica(0)
        try:
            found = units(one, x)
            return one, found, activation_shapes(one, found, lambda: applied(one, x))
        except ValueError:
            return one, (), ()

    def _magnitude(self, tensors: Any) -> Tensor:
        return mean_magnitude(p.detach() if self.stacked is not None else p.detach().unsqueeze(0) for p in tensors)

    def _scales(self) -> Tensor | None:
        scales = normalization_scales(self.network).values()
        return self._magnitude(scales) if scales else None

    def _reinitialized(self) -> Tensor:
        if self.method is None:
            return torch.zeros(self.replicas, dtype=torch.int64, device=self.device)
        return self.method.reinitialized.total.reshape(-1)


class _Mean:
    """The mean of a metric over batches, of each network.

    A batch where the metric is not a number does not count, but where its loss is none either: the network diverged.
    """

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._count: Tensor | int = 0

    def add(self, value: Tensor, loss: Tensor, weight: int = 1) -> None:
        """Adds a batch."""
        there = ~value.isnan() | ~loss.isfinite()
        self._total = self._total + weight * value.where(there, 0.0)
        self._count = self._count + weight * there

    @property
    def now(self) -> Tensor:
        """NaN where no batch counts."""
        return torch.as_tensor(self._total / self._count)


def usual_metric(output: Any, targets: Tensor) -> Metric:
    """Accuracy where the output of one network has a number for each class of whole targets, else the loss.

    ValueError if two dimensions of the output can be the classes.
    """
    whole = not targets.is_floating_point() and not targets.is_complex()
    if not (whole and isinstance(output, Tensor) and output.ndim == targets.ndim + 1):
        return LOSS
    fitting = [
        dim
        for dim in {1, output.ndim - 1}
        if output.shape[dim] > 1 and output.shape[:dim] + output.shape[dim + 1 :] == targets.shape
    ]
    if len(fitting) > 1:
        raise ValueError(
            f"classes may be dimension 1 or the last of outputs of shape {tuple(output.shape)} with targets of shape "
            f"{tuple(targets.shape)}; say what is compared, with metric=supple.lab.Metric(...)"
        )
    return ACCURACY if fitting else LOSS


def _features(one: nn.Module, found: Any, x: Any) -> list[Tensor]:
    """What the hidden units of a network put out on a batch, [E, n] a group."""
    return [torch.cat(calls) for calls in read_units(one, found, lambda: applied(one, x), flat)]


def _load(one: nn.Module, stacked: StackedModule, r: int) -> None:
    """Gives a network the values of a replica."""
    rows = dict(stacked.named_parameters()) | dict(stacked.named_buffers())
    with torch.no_grad():
        for name, tensor in chain(one.named_parameters(), one.named_buffers()):
            tensor.copy_(rows[name][r])
