"""A loop in JAX: many steps of one network as one compiled program. JAX is imported when a loop is made."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

from supple.lab.bench.loops import sequential
from supple.lab.bench.settings import STEP_SIZES
from supple.lab.streams import PermutedStream

STEPS_A_CALL = 50
"""Steps of one call where the network is small; ten where it is wide, so that a call does not outlast a measurement."""


class JaxLoop:
    """One network trained by a jitted ``lax.scan`` over steps, its images on the device and permuted once a task.

    It computes the same as a population's replica of the same seed, from the same initial values and on the same
    batches.

    Args:
        hidden: units of each hidden layer.
        stream: tasks of one seed, on the CPU.

    Attributes:
        steps_left: steps of the current task that are still to be taken.
        losses: the losses of the last call, a JAX array [steps].

    Raises:
        ModuleNotFoundError: if JAX is not installed.
    """

    replicas = 1
    action_share = 0.0

    def __init__(self, hidden: int, stream: PermutedStream) -> None:
        self._jax = importlib.import_module("jax")
        self._stream = stream
        layers = [
            m for m in sequential(hidden, int(stream.seeds[0]), stream.features) if isinstance(m, torch.nn.Linear)
        ]
        asarray = self._jax.numpy.asarray
        # Copies: arrays that were given away are not to be memory of torch.
        self._parameters = [
            (asarray(m.weight.detach().mT.contiguous().numpy().copy()), asarray(m.bias.detach().numpy().copy()))
            for m in layers
        ]
        self._scan = _compiled_scan(self._jax, STEP_SIZES["sgd"])
        self._steps_a_call = STEPS_A_CALL if hidden < 500 else 10
        self.tasks = 0
        self.steps_left = 0

    def start_task(self) -> None:
        """Goes on to the next task."""
        task = self._stream.task(self.tasks)
        asarray = self._jax.numpy.asarray
        self._images = asarray((task.images[:, task.pixels[0]].float() / 255).numpy())
        self._labels = asarray(task.labels.to(torch.int32).numpy())
        order = task.order[0, : task.steps * task.batch_size].view(task.steps, task.batch_size)
        self._order = order.to(torch.int32).numpy()
        self._at = 0
        self.tasks += 1
        self.steps_left = task.steps

    def step(self) -> int:
        """Takes the steps of one call. Returns: how many."""
        steps = min(self._steps_a_call, self.steps_left)
        chosen = self._order[self._at : self._at + steps]
        self._parameters, self.losses, self.hits = self._scan(self._parameters, self._images, self._labels, chosen)
        self._jax.block_until_ready(self.losses)
        self._at += steps
        self.steps_left -= steps
        return steps

    def acts_next(self) -> bool:
        """Whether the next step is one at which a method acts: never."""
        return False

    def skip_to_action(self) -> None:
        """There is no action to skip to."""


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
