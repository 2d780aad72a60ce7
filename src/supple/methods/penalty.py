"""What methods share that are a term of the loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.settings import Shared
from supple.methods.weights import WeightMethod


class Penalty(WeightMethod):
    """A method that is a term of the loss: add what :meth:`penalty` gives, and call :meth:`step` as of any other.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer.
        shared: as of every :class:`supple.Method`.

    Of a ``DistributedDataParallel`` each process adds the term for its own examples, as it does the loss.

    Raises:
        ValueError: if the parameters are sharded.
    """

    reads_gradients = False
    loops_only = "a place in the loss"

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **shared: Unpack[Shared]
    ) -> None:
        super().__init__(model, optimizer, **shared)
        if self.sharded:
            raise ValueError(
                f"{type(self).__name__} runs the network with other weights, and sharded parameters cannot be exchanged"
            )

    @abstractmethod
    def penalty(self, *inputs: Any, loss: Tensor | None = None, **keywords: Any) -> Tensor:
        """Works out the term of the loss.

        Args:
            inputs: what the network takes in.
            loss: the loss without this term, for methods that weigh the term by it.
            keywords: keyword arguments of the network.

        Returns:
            A scalar; of a stacked network the sum over replicas, so that the gradients are those of each alone.
        """

    def _with(self, weights: Mapping[str, Tensor], inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """What the network computes with other weights, by name [R, ...]; nothing of it changes, no gradient flows."""
        weights = {name: weight if self.stacked else weight[0] for name, weight in weights.items()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.no_grad():
            return functional_call(self.model, {**weights, **buffers}, inputs, dict(keywords))

    def _mean_of_processes(self, tensor: Tensor) -> None:
        """Gives each process of a ``DistributedDataParallel`` the mean of all, in place."""
        if self._process_group is not None:
            torch.distributed.all_reduce(tensor, group=self._process_group)
            tensor.div_(torch.distributed.get_world_size(self._process_group))

    def _means(self, tensor: Tensor) -> Tensor:
        """The mean of each replica: [R]."""
        return precise(tensor).reshape(self.replicas if self.stacked else 1, -1).mean(dim=1)
