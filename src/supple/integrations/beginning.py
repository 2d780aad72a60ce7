"""Making a method for a network whose trained weights a trainer has loaded already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from supple.functional.sharding import block_of, local
from supple.methods import Method
from supple.structure.wrapping import unwrapped

Factory = Callable[[nn.Module, torch.optim.Optimizer], Method]
"""Makes a method for a network and its optimizer: ``lambda model, optimizer: supple.SWR(model, optimizer, ...)``."""


class Beginning:
    """The values of a network before training, so that a method can be made for it after a checkpoint was loaded.

    A method works out what each parameter was initialized from, and trained weights no longer tell. The values are
    copied to the host and take as much memory there as the network, as long as this object lives.

    Args:
        model: the network, just made.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = _tensors(model, remove_duplicate=True)
        self._values: dict[str, Tensor] = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}

    @contextmanager
    def again(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Puts the first values into the network and takes the optimizer's state away, for a moment."""
        # A parameter may be shared by now, and have the name of another too.
        tensors = _tensors(model, remove_duplicate=False)
        missing = [name for name in self._values if name not in tensors]
        if missing:
            raise ValueError(
                f"{type(model).__name__} no longer has {', '.join(missing)}, which it had before a checkpoint was "
                "loaded, so its first values cannot be put back to make the method; make the layers before training"
            )
        known = {name: tensors[name] for name in self._values}
        trained = {name: local(tensor).clone() for name, tensor in known.items()}
        state = optimizer.state
        with torch.no_grad():
            try:
                optimizer.state = type(state)(dict) if state else state
                for name, tensor in known.items():
                    local(tensor).copy_(block_of(tensor).of(self._values[name]))
                yield
            finally:
                optimizer.state = state
                for name, tensor in known.items():
                    local(tensor).copy_(trained[name])


def _tensors(model: nn.Module, remove_duplicate: bool) -> dict[str, Tensor]:
    """Parameters and buffers by the names that they have in the network itself."""
    network, _ = unwrapped(model)
    return {
        **dict(network.named_parameters(remove_duplicate=remove_duplicate)),
        **dict(network.named_buffers(remove_duplicate=remove_duplicate)),
    }
