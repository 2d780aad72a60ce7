"""Several methods as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from supple.methods.base import Method, Needs
from supple.methods.state import Reinitialized, check_kind


class Chain(Method):
    """Several methods as one; made by :func:`chain`.

    Args:
        methods: the methods, in the order in which they act.

    Attributes:
        methods: the same.
        model: the network of all methods, or the one that holds those of the others; where none does, all of them.
    """

    def __init__(self, *methods: Method) -> None:
        self.methods = methods
        parts = list(dict.fromkeys(method.model for method in methods))
        whole = [part for part in parts if set(parts) <= set(part.modules())]
        self.model = whole[0] if whole else nn.ModuleList(parts)
        self.optimizer, self.device = methods[0].optimizer, methods[0].device
        self.stacked, self.replicas = methods[0].stacked, methods[0].replicas

    def step(self) -> None:
        """Lets each method act once, in order."""
        self._act()

    def _act(self) -> None:
        for method in self.methods:
            method.step()

    def before_step(self) -> None:
        """Lets each method add to the gradients, in order."""
        for method in self.methods:
            method.before_step()

    def boundary(self) -> None:
        """Lets each method that acts at boundaries act, in order.

        Raises:
            RuntimeError: if none of them does.
        """
        for method in [method for method in self.methods if method.acts_at_boundary] or self.methods:
            method.boundary()

    @property
    def parts(self) -> tuple[Method, ...]:
        """The methods that it is made of."""
        return self.methods

    @property
    def acts_before_step(self) -> bool:
        """Whether any of them adds to the gradients."""
        return any(method.acts_before_step for method in self.methods)

    @property
    def acts_at_boundary(self) -> bool:
        """Whether any of them acts at boundaries."""
        return any(method.acts_at_boundary for method in self.methods)

    def needs(self) -> Needs:
        """Says what the next step of any of them reads of the training step before it."""
        needs = [method.needs() for method in self.methods]
        return Needs(any(one.gradients for one in needs), [reader for one in needs for reader in one.readers])

    def due_next(self) -> Tensor:
        """Says in which replicas the next step of any of them may reinitialize something: bool [R] on the CPU."""
        return torch.stack([method.due_next() for method in self.methods]).any(dim=0)

    def ever_due(self) -> Tensor:
        """Says in which replicas any of them ever reinitializes something: bool [R] on the CPU."""
        return torch.stack([method.ever_due() for method in self.methods]).any(dim=0)

    @property
    def reinitialized(self) -> Reinitialized:
        """What all methods together reinitialized: entries and units are added up."""
        last, total = zip(*(method.reinitialized for method in self.methods), strict=True)
        return Reinitialized(self._sum(last), self._sum(total))

    @property
    def skipped(self) -> Tensor:
        """How often something was left alone because its utilities were not all finite, in all methods together."""
        return self._sum([method.skipped for method in self.methods])

    def _sum(self, counts: Iterable[Tensor]) -> Tensor:
        """Adds up counts, which lie where the parts of the network do."""
        return torch.stack([count.to(self.device) for count in counts]).sum(dim=0)

    def state_dict(self) -> dict[str, Any]:
        """The states of all methods."""
        return {"method": "Chain", "methods": [method.state_dict() for method in self.methods]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave.

        Args:
            state: the state.

        Raises:
            ValueError: if it is not the state of a chain of the same methods; nothing is changed then.
        """
        check_kind(state, "Chain", "a chain")
        parts = state.get("methods")
        if not isinstance(parts, list | tuple):
            raise TypeError(f"methods of the state is a {type(parts).__name__}; it has to be a list")
        if len(parts) != len(self.methods):
            raise ValueError(f"the state has {len(parts)} methods, this chain {len(self.methods)}")
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
        self.detach()
        for method in self.methods:
            method.close()

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.methods))})"


def chain(*methods: Method) -> Chain:
    """Makes several methods one, which acts as each of them in order.

    Each acts on the network that it was made for: the same one, or parts of one, such as an encoder and a head.
    Networks whose optimizers take their steps at other times need a chain each.

    Args:
        methods: the methods; at least one. A chain among them stands for its methods.

    Returns:
        A method that is all of them.

    Raises:
        TypeError: if one of them is no method.
        ValueError: if there are none, or they act on other numbers of replicas.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(2, 1)
        >>> supple.chain(supple.L2(model, l2=0.5), supple.ShrinkAndPerturb(model, l2=0, variance=1e-4))
        chain(L2(l2=0.5), ShrinkAndPerturb(l2=0, variance=0.0001))
        >>> model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(8, 4), "head": torch.nn.Linear(4, 2)})
        >>> supple.chain(supple.L2(model["encoder"], l2=1e-4), supple.L2(model["head"], l2=1e-2))
        chain(L2(l2=0.0001), L2(l2=0.01))
    """
    if not methods:
        raise ValueError("chain() needs at least one method")
    for method in methods:
        if not isinstance(method, Method):
            raise TypeError(f"chain() takes methods, one after the other; it was given {method!r}")
    single = [one for method in methods for one in (method.methods if isinstance(method, Chain) else [method])]
    for method in single:
        if (method.stacked, method.replicas) != (single[0].stacked, single[0].replicas):
            told = " and ".join(
                f"{type(one).__name__} on a {type(one.model).__name__} of {one.replicas}" for one in (single[0], method)
            )
            raise ValueError(
                f"the methods of a chain act on as many replicas each, but here {told}; make a chain for each"
            )
    return Chain(*single)
