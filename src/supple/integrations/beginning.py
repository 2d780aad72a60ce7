"""Making a method for a network whose trained weights a trainer has loaded already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from supple.functional.sharding import block_of, local
from supple.methods import Chain, Method

Factory = Callable[[nn.Module, torch.optim.Optimizer], Method | Chain]
"""Makes a method for a network and its optimizer: ``lambda model, optimizer: supple.SWR(model, optimizer, ...)``."""


class Beginning:
    """The values of a network before training, so that a method can be made for it after a checkpoint was loaded.

    A method works out what each parameter was initialized from, and trained weights no longer tell. The values are
    copied to the host and take as much memory there as the network, as long as this object lives.

    Args:
        model: the network, just made.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._values: dict[str, Tensor] = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}

    @contextmanager
    def again(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Puts the first values into the network and takes the optimizer's state away, for a moment.

        Args:
            model: the network, which may have been moved, wrapped or sharded since.
            optimizer: its optimizer.

        Yields:
            Nothing.
        """
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        known = {name: tensor for name, tensor in tensors.items() if name in self._values}
        trained = {name: local(tensor).clone() for name, tensor in known.items()}
        state = optimizer.state
        optimizer.state = type(state)(dict) if state else state
        with torch.no_grad():
            for name, tensor in known.items():
                local(tensor).copy_(block_of(tensor).of(self._values[name]))
            try:
                yield
            finally:
                optimizer.state = state
                for name, tensor in known.items():
                    local(tensor).copy_(trained[name])
