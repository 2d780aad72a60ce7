"""Steps of a population as CUDA graphs: launched as a whole instead of operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from supple.lab.population.fast import FastStep, FeatureReader, is_observed
from supple.optim import SGDW

WARM_UP = 10
"""Equal calls before one is recorded: kernels have to be loaded by then, and recording has to be worth its while."""

Pair = tuple[Tensor, Tensor]
Record = Callable[[Callable[[], Pair], torch.device], tuple[Callable[[], object], Pair]]


def cuda_graph(function: Callable[[], Pair], device: torch.device) -> tuple[Callable[[], object], Pair]:
    """Records what a function launches on a GPU, without carrying it out; the device is waited for.

    The function reads and writes tensors that stay where they are. Returns ``replay``, which does what the function
    would do, and the outputs, which it writes again.
    """
    graph = torch.cuda.CUDAGraph()
    # The stream that torch would take is of the device that was current when the first graph was recorded.
    stream = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = function()
    return graph.replay, outputs


@dataclass(frozen=True, eq=False)
class _Recording:
    """A recorded step: what it holds on to, the memory of its inputs and outputs, and how to replay it."""

    held: Hashable
    inputs: Pair
    outputs: Pair
    replay: Callable[[], object]


class GraphedStep:
    """Steps of :class:`FastStep`, of which equal ones are recorded once and then replayed.

    A step launches some dozens of operations. Where networks are few or small, launching them takes longer than the GPU
    needs to carry them out; a recording is launched at once. It is the same operations on the same memory.

    A step is recorded after :data:`WARM_UP` equal ones: of one shape of the batch, which keep gradients or do not, with
    the same memory of parameters, gradients, momentum and settings, the same parameters that train, the same momentum,
    and weight decay or none. There is one recording at a time, and it takes the memory of a step beside what steps
    take otherwise. Every other step is taken one operation at a time, among them those that read features, and all of
    an optimizer other than :class:`supple.optim.SGDW` (others count steps on the host), or with hooks or a scheduler.

    A step size that changes now and then is best changed in place, in a tensor on the device and of the parameters'
    type: then recordings stay good. How torch is set to compute products, and ``eps`` of a layer norm, are taken from
    the time of the recording.

    Source: the CUDA programming guide, section "CUDA graphs".
    """

    def __init__(self, step: FastStep, record: Record = cuda_graph) -> None:
        self.step, self._record = step, record
        self._recording: _Recording | None = None
        self._held: Hashable = None
        self._equal = 0

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, *, gradients: bool = True, readers: Iterable[FeatureReader] = ()) -> Pair:
        """Takes one step; arguments and results are those of :class:`FastStep`."""
        readers = list(readers)
        recording = None if readers else self._recorded(x, y, gradients)
        if recording is None:
            return self.step(x, y, gradients=gradients, readers=readers)
        for memory, given in zip(recording.inputs, (x, y), strict=True):
            memory.copy_(given)
        recording.replay()
        loss, right = recording.outputs
        return loss.clone(), right.clone()

    def _recorded(self, x: Tensor, y: Tensor, gradients: bool) -> _Recording | None:
        """The recording of such a step, which is made if enough of them came; None if it has to be taken as it is."""
        optimizer = self.step.optimizer
        if type(optimizer) is not SGDW or is_observed(optimizer):
            return None
        # Steps in which the optimizer reads gradients keep them, wanted or not.
        gradients = gradients or not self.step.descends()
        held = (gradients, x.shape, x.dtype, y.shape, *_held(optimizer, gradients))
        self._held, self._equal = held, self._equal + 1 if held == self._held else 1
        if self._recording is not None and self._recording.held == held:
            return self._recording
        if None in held or self._equal <= WARM_UP:
            return None
        # An older recording gives its memory back first.
        self._recording = None
        inputs = x.clone(), y.clone()
        replay, outputs = self._record(lambda: self.step(*inputs, gradients=gradients), x.device)
        self._recording = _Recording(held, inputs, outputs, replay)
        return self._recording


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
    return None if tensor is None else (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
