"""Steps of a population as CUDA graphs: launched as a whole instead of operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from supple.methods.features import FeatureReader
from supple.optim import SGDW
from supple.population.fast import FastStep, is_observed

WARM_UP = 3
"""Equal calls before one is recorded: kernels and the workspaces of products have to be there by then."""

Outputs = tuple[Tensor, Tensor]
Record = Callable[[Callable[[], Outputs]], tuple[Callable[[], object], Outputs]]


def cuda_graph(function: Callable[[], Outputs]) -> tuple[Callable[[], object], Outputs]:
    """Records what a function launches on a GPU, without running it.

    Args:
        function: reads and writes tensors that stay where they are.

    Returns:
        (replay, outputs): ``replay()`` does what the function would do, and writes the outputs anew.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return graph.replay, outputs


@dataclass
class _Kind:
    """Calls of one kind.

    Args:
        held: what a recording of them would hold on to.
        calls: calls in a row for which that was the same.
        recording: replay, its inputs and its outputs, where there is one.
    """

    held: tuple[Hashable, ...]
    calls: int = 0
    recording: tuple[Callable[[], object], Outputs, Outputs] | None = None


class GraphedStep:
    """Steps of :class:`FastStep`, of which equal ones are recorded once and then replayed.

    A step launches some dozens of operations. Where networks are few or small, launching them takes longer than the GPU
    needs to carry them out; a recording is launched at once. It is the same operations on the same memory.

    A recording is made after :data:`WARM_UP` steps of its kind (shape of the batch, gradients kept or not), and anew
    when something that it holds on to has changed: the memory of parameters, gradients, momentum or settings, which
    parameters train, the momentum, whether there is weight decay. A step is taken one operation at a time where
    features are read, where a gradient or momentum has no memory yet, and where the optimizer is another than
    :class:`supple.optim.SGDW` (others count steps on the host) or has hooks. Step sizes that change at every step leave
    nothing to replay.

    Args:
        step: the steps.
        record: what records; it does not carry out what it records.

    Source: the CUDA programming guide, section "CUDA graphs".
    """

    def __init__(self, step: FastStep, record: Record = cuda_graph) -> None:
        self.step, self._record = step, record
        self._kinds: dict[Hashable, _Kind] = {}

    def __call__(
        self, x: Tensor, y: Tensor, *, gradients: bool = True, readers: Iterable[FeatureReader] = ()
    ) -> Outputs:
        """Takes one step; arguments and results are those of :class:`FastStep`."""
        readers = list(readers)
        kind = None if readers else self._kind(x, y, gradients)
        if kind is None or (kind.recording is None and kind.calls <= WARM_UP):
            return self.step(x, y, gradients=gradients, readers=readers)
        if kind.recording is None:
            inputs = x.clone(), y.clone()
            kind.recording = (*self._recorded(inputs, gradients), inputs)
        replay, outputs, inputs = kind.recording
        for held, given in zip(inputs, (x, y), strict=True):
            held.copy_(given)
        replay()
        loss, right = outputs
        return loss.clone(), right.clone()

    def _recorded(self, inputs: Outputs, gradients: bool) -> tuple[Callable[[], object], Outputs]:
        return self._record(lambda: self.step(*inputs, gradients=gradients))

    def _kind(self, x: Tensor, y: Tensor, gradients: bool) -> _Kind | None:
        """The kind of a call, with this call counted; None for one that cannot be recorded."""
        optimizer = self.step.optimizer
        if type(optimizer) is not SGDW or is_observed(optimizer):
            return None
        kept = gradients or not self.step.descends()
        held = tuple(_held(optimizer, kept))
        name = (gradients, x.shape, y.shape)
        known = self._kinds.get(name)
        if None in held or known is None or known.held != held:
            known = self._kinds[name] = _Kind(held)
        known.calls += 1
        return known


def _held(optimizer: SGDW, gradients: bool) -> Iterator[Hashable]:
    """What a recorded step holds on to; None stands for memory that the step would make first."""
    for group in optimizer.param_groups:
        parameters: list[Tensor] = group["params"]
        momentum, decay = group["momentum"], group["weight_decay"]
        yield "momentum", momentum
        # Settings are brought up to date here, and not in the recorded step, which might copy them from the host.
        yield from map(_place, optimizer.per_parameter(group, "lr", parameters))
        if isinstance(decay, Tensor | list | tuple) or decay:
            yield from map(_place, optimizer.per_parameter(group, "weight_decay", parameters))
        for parameter in parameters:
            yield parameter.requires_grad
            yield _place(parameter)
            if gradients and parameter.requires_grad:
                yield _place(parameter.grad)
                if momentum:
                    yield _place(optimizer.state.get(parameter, {}).get("momentum_buffer"))


def _place(tensor: Tensor | None) -> Hashable:
    return None if tensor is None else (tensor.data_ptr(), tensor.shape, tensor.stride())
