"""New tasks for networks to learn: random labels, a random teacher's outputs, or examples of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supple.functional.random import purpose, uniform, words
from supple.metrics.undisturbed import undisturbed
from supple.probing.networks import Factory, made

Data = Any
"""A tensor whose first dimension counts examples; or a tuple or a dict of such, for a network that takes several."""

_LABELS, _TEACHER = purpose("probe", "labels"), purpose("probe", "teacher")


class Task:
    """Learning from examples, in an order that the seed decides: what :func:`supple.probe` asks networks to do.

    Called with (network, optimizer, seed) it lets the network take so many steps, and gives the loss of each batch
    before it was learned from. All examples are seen once before any is seen again.

    Args:
        inputs: of the examples: a tensor [N, ...], or a tuple or a dict of such, which the network is called with.
        targets: of the examples, [N, ...].
        loss: of outputs and targets; a tensor without dimensions.
        steps: steps of the optimizer, two or more.
        batch_size: examples a step.

    Raises:
        ValueError: if numbers of examples differ, or a number is out of range.

    Example:
        >>> import torch, supple
        >>> task = supple.probing.Task(torch.randn(100, 4), torch.randint(3, (100,)), steps=20)
        >>> network = torch.nn.Linear(4, 3)
        >>> task(network, torch.optim.SGD(network.parameters(), lr=0.1), seed=0).shape
        torch.Size([20])
    """

    def __init__(
        self,
        inputs: Data,
        targets: Tensor,
        loss: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
        *,
        steps: int = 1000,
        batch_size: int = 32,
    ) -> None:
        self.inputs, self.targets, self.loss = inputs, targets, loss
        self.count = len(next(_tensors(inputs)))
        for name, tensors in (("inputs", _tensors(inputs)), ("targets", _tensors(targets))):
            if wrong := [len(tensor) for tensor in tensors if len(tensor) != self.count]:
                raise ValueError(f"{name} have {wrong[0]} examples, the first of the inputs {self.count}")
        if steps < 2:
            raise ValueError(f"steps is {steps}; a curve needs two or more")
        if not 1 <= batch_size <= self.count:
            raise ValueError(
                f"batch_size is {batch_size}; with {self.count} examples it has to be from 1 to {self.count}"
            )
        self.steps, self.batch_size = steps, batch_size

    def __call__(self, network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
        """Lets a network learn.

        Args:
            network: the network.
            optimizer: its optimizer.
            seed: of the order of the examples.

        Returns:
            The loss of each batch before it was learned from [steps].
        """
        targets = self.goals(network, seed)
        device = next(network.parameters()).device
        losses = []
        for chosen in self._batches(seed):
            loss = self.loss(_called(network, _chosen(self.inputs, chosen, device)), _chosen(targets, chosen, device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def goals(self, network: nn.Module, seed: int) -> Tensor:
        """Gives the targets of a seed's task.

        Args:
            network: the network that is to learn it.
            seed: the seed.

        Returns:
            The targets, [N, ...].
        """
        return self.targets

    def _batches(self, seed: int) -> Iterator[Tensor]:
        """The numbers of the examples of each step."""
        generator = torch.Generator().manual_seed(seed)
        each = self.count // self.batch_size
        for step in range(self.steps):
            batch = step % each
            if not batch:
                order = torch.randperm(self.count, generator=generator)
            yield order[batch * self.batch_size :][: self.batch_size]


class RandomLabels(Task):
    """Learning by heart: a random class for each of some inputs.

    Args:
        inputs: the examples that the labels are for: a tensor [N, ...], or a tuple or a dict of such.
        examples: how many of them are used, from the first on; each is seen about ``steps * batch_size / examples``
            times.
        steps: steps of the optimizer, two or more.
        batch_size: examples a step.

    Raises:
        ValueError: if a number is out of range; when it is called, if the network gives no [batch, classes].

    Example:
        >>> import torch, supple
        >>> task = supple.probing.RandomLabels(torch.randn(64, 4), steps=300)
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
        >>> losses = task(network, torch.optim.Adam(network.parameters(), lr=1e-2), seed=0)
        >>> bool(losses[-1] < 0.8 * losses[0])
        True

    Source: Zhang, Bengio, Hardt, Recht and Vinyals, "Understanding deep learning requires rethinking generalization"
    (ICLR 2017); as a measure of plasticity Lyle, Zheng, Nikishin, Avila Pires, Pascanu and Dabney, "Understanding
    plasticity in neural networks" (ICML 2023).
    """

    def __init__(self, inputs: Data, *, examples: int = 640, steps: int = 1000, batch_size: int = 32) -> None:
        kept = torch.arange(min(examples, len(next(_tensors(inputs)))))
        super().__init__(_chosen(inputs, kept), kept, steps=steps, batch_size=min(batch_size, len(kept)))

    def goals(self, network: nn.Module, seed: int) -> Tensor:
        """Draws the labels of a seed.

        Args:
            network: the network, whose outputs are as many as there are classes.
            seed: the seed.

        Returns:
            int64 [N].
        """
        shape = _outputs(network, self.inputs)
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(
                f"the network gives {list(shape)} for {shape[0]} examples; random labels need [examples, classes] with "
                "two classes or more: use supple.probing.RandomTeacher, which takes outputs of any shape"
            )
        return (uniform(torch.tensor([seed]), _LABELS, 0, self.count)[0] * shape[1]).long().clamp_(max=shape[1] - 1)


class RandomTeacher(Task):
    """Regression: the outputs of a network that was never trained.

    They are shifted and scaled to a mean of 0 and a standard deviation of 1 an output over the examples; what the
    teacher gives for all of them alike is 0. The loss is the mean squared error: 1 for a network that gives the mean.

    Args:
        inputs: the examples: a tensor [N, ...], or a tuple or a dict of such.
        teacher: makes the teacher, as :func:`supple.probe` makes fresh networks: usually the same function.
        steps: steps of the optimizer, two or more.
        batch_size: examples a step.

    Raises:
        ValueError: if a number is out of range; when it is called, if the network's outputs have another shape than the
            teacher's.

    Example:
        >>> import torch, supple
        >>> fresh = lambda: torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
        >>> task = supple.probing.RandomTeacher(torch.randn(64, 4), fresh, steps=300)
        >>> network = fresh()
        >>> losses = task(network, torch.optim.Adam(network.parameters(), lr=1e-2), seed=0)
        >>> bool(losses[-1] < 0.5 * losses[0])
        True

    Source: Lyle, Rowland and Dabney, "Understanding and preventing capacity loss in reinforcement learning" (ICLR
    2022), which fits the outputs of randomly initialized networks.
    """

    def __init__(self, inputs: Data, teacher: Factory, *, steps: int = 1000, batch_size: int = 32) -> None:
        self.teacher = teacher
        numbers = torch.arange(len(next(_tensors(inputs))))
        super().__init__(inputs, numbers, nn.functional.mse_loss, steps=steps, batch_size=min(batch_size, len(numbers)))

    @torch.no_grad()
    def goals(self, network: nn.Module, seed: int) -> Tensor:
        """Asks the teacher of a seed.

        Args:
            network: the network that is to learn.
            seed: the seed.

        Returns:
            Its outputs, standardized, float [N, ...].
        """
        own = int(words(torch.tensor([seed]), _TEACHER, 0, 1))
        device = next(network.parameters()).device
        teacher = made(self.teacher, own).to(device).eval()
        parts = torch.arange(self.count).split(256)
        targets = torch.cat([_called(teacher, _chosen(self.inputs, part, device)) for part in parts])
        if (theirs := _outputs(network, self.inputs)[1:]) != targets.shape[1:]:
            raise ValueError(
                f"an example's output is {list(theirs)} of the network, {list(targets.shape[1:])} of the teacher"
            )
        targets = targets - targets.mean(dim=0)
        spread = targets.std(dim=0)
        return torch.where(spread > 1e-6, targets / spread, 0.0)


def _tensors(data: Data) -> Iterator[Tensor]:
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, tuple | list) else [data]
    for part in parts:
        if not isinstance(part, Tensor) or not part.ndim:
            raise TypeError(
                f"examples are a {type(part).__name__}; they have to be a tensor [examples, ...], or a tuple or dict "
                "of such"
            )
        yield part


def _chosen(data: Data, numbers: Tensor, device: torch.device | None = None) -> Data:
    """Some of the examples, on the network's device."""
    if isinstance(data, Mapping):
        return {name: _chosen(part, numbers, device) for name, part in data.items()}
    if isinstance(data, tuple | list):
        return tuple(_chosen(part, numbers, device) for part in data)
    return data[numbers.to(data.device)].to(device)


def _called(network: nn.Module, inputs: Data) -> Any:
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, tuple) else network(inputs)


def _outputs(network: nn.Module, inputs: Data) -> torch.Size:
    """The shape of what a network gives for two examples, or for one where there is one."""
    device = next(network.parameters()).device
    with undisturbed(network):
        outputs = _called(network, _chosen(inputs, torch.arange(min(2, len(next(_tensors(inputs))))), device))
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the network gives a {type(outputs).__name__}, and the tasks of supple.probing need a tensor; write "
            "learn(network, optimizer, seed) yourself"
        )
    return outputs.shape
