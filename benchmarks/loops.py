"""Contenders that train one network on permuted images, as programs do that train one network at a time.

All compute the same as a population's replica of the same seed, from the same initial values and on the same batches.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from supple.lab.nn import MLP
from supple.lab.streams import PermutedStream

STEP_SIZE = 0.05


class Contender:
    """What trains one network, or many at once, task after task.

    Attributes:
        replicas: networks trained at once.
        action_share: share of the steps at which a method acts, in the long run.
        calls_left: calls of :meth:`step`, each of ``steps_a_call`` steps, that are left of the current task.
        acted: steps at which a method acted since :meth:`count`.
        started: tasks started since then.
        loss: sum over the steps of the current task.
        hits: examples of the current task classified rightly before they were learned from.
    """

    replicas = 1
    action_share = 0.0
    steps_a_call = 1
    tasks = calls_left = acted = started = 0
    loss: Any
    hits: Any

    def __init__(self, stream: PermutedStream) -> None:
        self.stream = stream

    @property
    def calls_a_task(self) -> int:
        """Calls of :meth:`step` that a task has; each takes ``steps_a_call`` steps."""
        return self.stream.steps // self.steps_a_call

    def count(self) -> None:
        """Counts actions and starts of tasks from here on."""
        self.acted = self.started = 0

    def start_task(self) -> None:
        """Goes on to the next task."""
        self.task = self.stream.task(self.tasks)
        self.tasks += 1
        self.started += 1
        self.calls_left = self.calls_a_task
        self.begin()

    def step(self) -> None:
        """Trains every network by a step or, where a call takes more, by so many."""
        if not self.calls_left:
            self.start_task()
        self.acted += self.acts_next()
        self.train()
        self.calls_left -= 1

    def acts_next(self) -> bool:
        """Whether a method acts at the next step."""
        return False

    def begin(self) -> None:
        """Makes ready for the task."""
        raise NotImplementedError

    def train(self) -> None:
        """Takes the steps of a call."""
        raise NotImplementedError


def sequential(hidden: int, seed: int, inputs: int = 784, outputs: int = 10) -> nn.Sequential:
    """An ordinary network inputs-h-h-h-outputs, with the initial values of replica ``seed`` of a population."""
    sizes = [inputs, hidden, hidden, hidden, outputs]
    layers: list[nn.Module] = []
    for size, following in itertools.pairwise(sizes):
        layers += [nn.Linear(size, following), nn.ReLU()]
    network = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, value in zip(
            network.parameters(), MLP(inputs, hidden, outputs, seed=seed).parameters(), strict=True
        ):
            parameter.copy_(value)
    return network


class PermutedImages(Dataset[tuple[Tensor, int]]):
    """A data set of uint8 images whose pixels are permuted one image after another, when it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor, pixels: Tensor) -> None:
        self.images, self.labels, self.pixels = images, labels, pixels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return (self.images[index].float() / 255)[self.pixels], int(self.labels[index])


class PlainLoop(Contender):
    """A loop as research code is written: a data loader over images permuted one by one, and metrics read each step."""

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        super().__init__(stream)
        self.device = torch.device(device)
        self.network = sequential(hidden, int(stream.seeds[0]), stream.features, stream.classes).to(device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=STEP_SIZE)

    def begin(self) -> None:
        """Makes a data loader for the task."""
        task = self.task
        dataset = PermutedImages(task.images, task.labels, task.pixels[0])
        loader = DataLoader(dataset, task.batch_size, sampler=task.order[0].tolist(), num_workers=0, drop_last=True)
        self._batches: Iterator[list[Tensor]] = iter(loader)
        self.loss, self.hits = 0.0, 0

    def train(self) -> None:
        """Takes one step."""
        x, y = (tensor.to(self.device) for tensor in next(self._batches))
        self.optimizer.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.item()
        self.hits += int((logits.argmax(dim=1) == y).sum().item())


class CarefulLoop(PlainLoop):
    """A loop with care: images permuted once a task, batches taken by index, metrics added up without being read."""

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        super().__init__(hidden, stream, device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=STEP_SIZE, foreach=True)

    def begin(self) -> None:
        """Permutes all images."""
        task, device = self.task, self.device
        self._images = task.images[:, task.pixels[0]].to(device).float().div_(255)
        self._labels = task.labels.to(device)
        self._order = iter(task.order[0].to(device).split(task.batch_size))
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)

    def train(self) -> None:
        """Takes one step."""
        chosen = next(self._order)
        x, y = self._images[chosen], self._labels[chosen]
        self.optimizer.zero_grad()
        logits = self.network(x)
        loss = cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.detach()
        self.hits += (logits.argmax(dim=1) == y).sum()


class JaxLoop(Contender):
    """A jitted ``lax.scan`` over many steps in JAX, images on the device and permuted once a task.

    A call takes 50 steps where the network is small; ten where it is wide, so that it does not outlast a measurement.
    """

    def __init__(self, hidden: int, stream: PermutedStream, device: str = "cpu") -> None:
        super().__init__(stream)
        self.steps_a_call = 50 if hidden < 500 else 10
        self._jax = importlib.import_module("jax")
        self._scan = _compiled_scan(self._jax, STEP_SIZE)
        network = sequential(hidden, int(stream.seeds[0]), stream.features, stream.classes)
        self._parameters = [
            (self._array(layer.weight.detach().mT), self._array(layer.bias.detach()))
            for layer in network
            if isinstance(layer, nn.Linear)
        ]

    def _array(self, tensor: Tensor) -> Any:
        # A copy: arrays that were given away are not to be memory of torch.
        return self._jax.numpy.asarray(tensor.contiguous().numpy().copy())

    def begin(self) -> None:
        """Permutes all images."""
        task = self.task
        self._images = self._array(task.images[:, task.pixels[0]].float() / 255)
        self._labels = self._array(task.labels.to(torch.int32))
        order = task.order[0, : self.calls_a_task * self.steps_a_call * task.batch_size].to(torch.int32)
        self._order = iter(order.view(self.calls_a_task, self.steps_a_call, task.batch_size).numpy())
        self.loss, self.hits = 0.0, 0

    def train(self) -> None:
        """Takes the steps of one call; ``losses`` [steps] are theirs."""
        found = self._scan(self._parameters, self._images, self._labels, next(self._order))
        self._parameters, self.losses, hits = self._jax.block_until_ready(found)
        self.loss += float(self.losses.sum())
        self.hits += int(hits.sum())


def _compiled_scan(jax: Any, step_size: float) -> Callable[..., Any]:
    """(parameters, images, labels, order [steps, B]) to (parameters, losses [steps], hits [steps])."""
    np = jax.numpy

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for number, (weight, bias) in enumerate(parameters):
            x = (jax.nn.relu(x) if number else x) @ weight + bias
        chosen = np.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1)
        return -chosen.mean(), (x.argmax(axis=1) == y).sum()

    def scan(parameters: Any, images: Any, labels: Any, order: Any) -> Any:
        def step(parameters: Any, chosen: Any) -> Any:
            x, y = images[chosen], labels[chosen]
            (value, hits), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, x, y)
            return jax.tree.map(lambda p, g: p - step_size * g, parameters, gradients), (value, hits)

        parameters, (losses, hits) = jax.lax.scan(step, parameters, order)
        return parameters, losses, hits

    return jax.jit(scan, donate_argnums=0)
