"""Several methods as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from supple.methods.base import Method
from supple.methods.counts import Reinitialized
from supple.methods.features import FeatureReader


class Chain:
    """Several methods as one; made by :func:`chain`.

    Args:
        methods: the methods, in the order in which they act.
    """

    def __init__(self, *methods: Method) -> None:
        self.methods = methods

    def step(self) -> None:
        """Lets each method act once, in order."""
        for method in self.methods:
            method.step()

    def gradients_needed(self) -> bool:
        """Whether the next step reads gradients."""
        return any(method.gradients_needed() for method in self.methods)

    def due_next(self) -> Tensor:
        """In which replicas the next step of any of them may reinitialize something, bool [R] on the CPU."""
        return torch.stack([method.due_next() for method in self.methods]).any(dim=0)

    def readers_needed(self) -> list[FeatureReader]:
        """What has to read the features of the forward pass before the next step."""
        return [reader for method in self.methods for reader in method.readers_needed()]

    @property
    def reinitialized(self) -> Reinitialized:
        """What all methods together reinitialized: entries and units are added up."""
        parts = [method.reinitialized for method in self.methods]
        last, total = parts[0]
        for part in parts[1:]:
            last, total = last + part.last, total + part.total
        return Reinitialized(last, total)

    @property
    def skipped(self) -> Tensor:
        """How often something was left alone because its utilities were not all finite, in all methods together."""
        parts = [method.skipped for method in self.methods]
        return torch.stack(parts).sum(dim=0)

    def state_dict(self) -> dict[str, Any]:
        """The states of all methods."""
        return {"method": "Chain", "methods": [method.state_dict() for method in self.methods]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Args:
            state: the state.

        Raises:
            ValueError: if it is not the state of a chain of the same methods.
        """
        if state.get("method") != "Chain":
            raise ValueError(f"this is the state of {state.get('method')}, not of a chain")
        if len(state["methods"]) != len(self.methods):
            raise ValueError(f"the state has {len(state['methods'])} methods, this chain {len(self.methods)}")
        before = [method.state_dict() for method in self.methods]
        try:
            for method, part in zip(self.methods, state["methods"], strict=True):
                method.load_state_dict(part)
        except Exception:
            for method, part in zip(self.methods, before, strict=True):
                method.load_state_dict(part)
            raise

    def close(self) -> None:
        """Closes all methods."""
        for method in self.methods:
            method.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.methods))})"


def chain(*methods: Method | Chain) -> Chain:
    """Makes several methods one, which acts as each of them in order.

    Args:
        methods: the methods, all made for the same network; at least one. A chain among them stands for its methods.

    Returns:
        An object with ``step``, ``reinitialized``, ``state_dict``, ``load_state_dict`` and ``close``, as a method has.

    Raises:
        ValueError: if there are none, or they act on different networks.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(2, 1)
        >>> supple.chain(supple.L2(model, l2=0.5), supple.ShrinkAndPerturb(model, l2=0, variance=1e-4))
        chain(L2(l2=0.5), ShrinkAndPerturb(l2=0, variance=0.0001))
    """
    if not methods:
        raise ValueError("chain() needs at least one method")
    single = [one for method in methods for one in (method.methods if isinstance(method, Chain) else [method])]
    if any(method.model is not single[0].model for method in single):
        raise ValueError("the methods of a chain act on different networks; make one chain for each network")
    return Chain(*single)
