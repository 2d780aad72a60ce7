"""Plasticity injection: a head that learns anew, on top of what it was."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from supple.structure.find import units as find_units
from supple.structure.overrides import Overrides
from supple.structure.sequential import is_chain
from supple.surgery.operation import check, distributions, draw, exchange, put


class Injected(nn.Module):
    """A head that learns anew on top of what it was: old(x) + (new(x) - start(x)), of which only ``new`` learns.

    Args:
        old: the head as it is.
        new: a fresh head of the same kind.
    """

    def __init__(self, old: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.old, self.new = old.requires_grad_(False), new
        self.start = copy.deepcopy(new).requires_grad_(False)

    def forward(self, *inputs: Any, **keywords: Any) -> Tensor:
        """What the old head gives, and what the new one has learned."""
        # In this order the difference is exactly 0 as long as nothing was learned.
        given: Tensor = self.old(*inputs, **keywords) + (
            self.new(*inputs, **keywords) - self.start(*inputs, **keywords)
        )
        return given


def inject(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    head: str | None = None,
    initial: Overrides | None = None,
    seed: int = 0,
) -> nn.Module:
    """Injects plasticity into a head: freezes it and adds a fresh copy that learns, minus that copy as it started.

    With h the head, h1 a fresh one and h2 the same one frozen, the network goes on with h(x) + (h1(x) - h2(x)), where
    only h1 learns: it computes exactly what it did, with as many weights that learn as before. In training mode with
    dropout the three draw other masks, and it is so in the mean. The head has to have a hidden layer: of a single
    linear layer a fresh copy learns as the old one would.

    Args:
        model: the network; changed in place.
        optimizer: its optimizer; it forgets the old head, whose place the new one takes.
        head: name of the module that is the head, and gives one tensor; None: of a ``torch.nn.Sequential`` everything
            from the last layer of hidden units on.
        initial: initial distributions by name, where those of the head's parameters are not to be worked out. Where
            the values do not tell, as of a trained network, PyTorch's rule for the layer holds.
        seed: seed of the new weights.

    Returns:
        The network.

    Raises:
        ValueError: if there is no such module, or the initial distribution of a parameter is not known; the network is
            as it was then.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> before = model(torch.ones(3, 4))
        >>> bool((supple.surgery.inject(model)(torch.ones(3, 4)) == before).all())
        True
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['head.new.0.weight', 'head.new.0.bias', 'head.new.2.weight', 'head.new.2.bias']

    Source: Nikishin, Oh, Ostrovski, Lyle, Pascanu, Dabney and Barreto, "Deep reinforcement learning with plasticity
    injection" (NeurIPS 2023, arXiv 2305.15555). The authors' code was not at hand; the rule agrees with
    github.com/timoklein/plasticity-injection-torch.
    """
    check(model, optimizer)
    if head is None and not is_chain(model):
        raise ValueError(
            f'say which module of the {type(model).__name__} is the head: inject(model, optimizer, head="..."); of its '
            f"modules there are {', '.join(name for name, _ in model.named_children())}"
        )
    names = [*model._modules]
    if head is None:
        first = names.index(find_units(model)[-1].name.partition(".")[0])
        prefixes = [f"{name}." for name in names[first:]]
    elif head not in dict(model.named_modules()) or not head:
        raise ValueError(f"the {type(model).__name__} has no module {head!r}; it has {', '.join(names)}")
    else:
        prefixes = [f"{head}."]
    inside = {name: p for name, p in model.named_parameters() if name.startswith(tuple(prefixes))}
    if not any(p.requires_grad for p in inside.values()):
        raise ValueError(f"the head {head or ', '.join(names[first:])} has no parameter that learns")
    drawn = distributions(model, [name for name, p in inside.items() if p.requires_grad], initial)
    old: nn.Module
    if head is None:
        old = nn.Sequential(OrderedDict((str(k), model._modules[name]) for k, name in enumerate(names[first:])))
    else:
        old = model.get_submodule(head)
    time = len(list(model.parameters()))  # another one at each injection
    new = copy.deepcopy(old)
    by_id = {id(p): name for name, p in inside.items()}
    fresh = dict(new.named_parameters())
    pairs = [(p, fresh[name]) for name, p in old.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for p, copied in pairs:
            copied.copy_(draw(drawn[by_id[id(p)]], seed, f"{by_id[id(p)]} {time}", p))
    for module in new.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
    if head is None:
        for name in names[first:]:
            del model._modules[name]
        model.add_module("head", Injected(old, new))
    else:
        put(model, head, Injected(old, new))
    for p, copied in pairs:
        p.grad = copied.grad = None
        exchange(optimizer, p, copied)
    return model
