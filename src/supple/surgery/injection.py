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
    names = [*model._modules]
    if head is None and isinstance(model._modules.get("head"), Injected):
        head = "head"
    if head is None and not is_chain(model):
        raise ValueError(
            f'say which module of the {type(model).__name__} is the head: inject(model, optimizer, head="..."); it has '
            f"{', '.join(names)}"
        )
    if head is None:
        try:
            last_hidden = find_units(model)[-1].name
        except ValueError as error:
            raise ValueError(
                f"it cannot be told which part of the {type(model).__name__} is the head; say so: inject(model, "
                f'optimizer, head="..."), or inject before other changes.\n{error}'
            ) from error
        inside = names[names.index(last_hidden.partition(".")[0]) :]
        modules = OrderedDict((str(number), model.get_submodule(name)) for number, name in enumerate(inside))
        old: nn.Module = nn.Sequential(modules)
    elif not head or head not in dict(model.named_modules()):
        raise ValueError(f"the {type(model).__name__} has no module {head!r}; it has {', '.join(names)}")
    else:
        inside, old = [head], model.get_submodule(head)
    # What was injected before has its own fresh head, which is the one that learns.
    last = old
    while isinstance(last, Injected):
        last = last.new
    new = copy.deepcopy(last)
    _redraw(model, last, new, tuple(f"{name}." for name in inside), initial, seed)
    injected = Injected(old, new)
    if head is None:
        for name in inside:
            del model._modules[name]
        model.add_module("head", injected)
    else:
        put(model, head, injected)
    for p, fresh in zip(last.parameters(), new.parameters(), strict=True):
        p.grad = None
        exchange(optimizer, p, fresh)
    return model


def _redraw(
    model: nn.Module, old: nn.Module, new: nn.Module, inside: tuple[str, ...], initial: Overrides | None, seed: int
) -> None:
    """Draws what learns of a copy of the old head, whose names in the model begin so; a ValueError if it cannot."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    learning = [(name_of[id(p)], p, fresh) for p, fresh in zip(old.parameters(), new.parameters(), strict=True)]
    learning = [one for one in learning if one[1].requires_grad]
    if not learning:
        raise ValueError(f"the head {inside[0][:-1]} has no parameter that learns")
    outside = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if not name.startswith(inside)}
    for name, p, _ in learning:
        if id(p) in outside:
            raise ValueError(
                f"{name} is used outside of the head, too, so that it cannot be frozen; choose another head"
            )
    drawn = distributions(model, [name for name, _, _ in learning], initial)
    time = len(name_of)  # another one at each injection
    with torch.no_grad():
        for name, p, fresh in learning:
            fresh.copy_(draw(drawn[name], seed, f"{name} {time}", p))
            fresh.grad = None
    for module in new.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_running_stats()
