"""Copies of a trained network, whole or in part, and fresh ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature

import numpy as np
import torch
from torch import Tensor, nn

from supple.functional.generators import generators_kept
from supple.functional.sharding import is_sharded
from supple.methods.seeds import aside
from supple.structure.wrapping import unwrapped

Factory = Callable[..., nn.Module]
"""Makes a network from torch's random numbers, or from a seed if it has to be given one."""


class Origin:
    """Where the networks come from that learn: the trained one, or one a seed, and the fresh ones.

    A copy of the trained network is a fresh one that gets its values. So nothing that hangs on the trained one, such as
    the hooks of a method, is copied, and both learn alike: what is frozen is frozen in both, and both are in training
    mode.

    Args:
        model: the trained network, or one a seed.
        fresh: makes a fresh one.
        seeds: the seeds.

    Attributes:
        seeds: the same.
        single: whether there is one trained network.
        device: where the first trained one is.

    Raises:
        ValueError: if ``fresh`` makes another architecture, or the same network for several seeds.
    """

    def __init__(self, model: nn.Module | Sequence[nn.Module], fresh: Factory, seeds: Sequence[int]) -> None:
        self.single = isinstance(model, nn.Module)
        self.models = [model] * len(seeds) if isinstance(model, nn.Module) else list(model)
        self.factory, self.seeds = fresh, list(seeds)
        first = next(self.models[0].parameters(), None)
        if first is None:
            raise ValueError("the model has no parameters, so there is nothing that could learn")
        self.device = first.device
        one, other = self.fresh(0), self.fresh(1)
        ones, others = tensors(one), tensors(other)
        if one is other or any(a is b for a, b in zip(ones.values(), others.values(), strict=True)):
            raise ValueError("fresh gives the same network each time; it has to make a new one")
        if all(torch.equal(a, b) for a, b in zip(ones.values(), others.values(), strict=True)):
            raise ValueError(
                f"fresh makes networks with the same values for seeds {seeds[0]} and {seeds[1]}; let it draw them from "
                "torch's random numbers, or take the seed: fresh=lambda seed: ..."
            )
        for model in self.models:
            check_alike(tensors(model), ones)

    def fresh(self, number: int) -> nn.Module:
        """Makes the fresh network of a seed.

        Args:
            number: the number of the seed.

        Returns:
            The network, on the trained one's device, in training mode.
        """
        return made(self.factory, self.seeds[number]).to(self.device).train()

    def trained(self, number: int) -> nn.Module:
        """Copies the trained network of a seed.

        Args:
            number: the number of the seed.

        Returns:
            The copy, in training mode.
        """
        return self.partly_trained(number, lambda name: True)

    def partly_trained(self, number: int, wanted: Callable[[str], bool]) -> nn.Module:
        """Makes a network that is trained in part and fresh in the others.

        Args:
            number: the number of the seed.
            wanted: says of the name of a parameter or a buffer whether it is the trained network's.

        Returns:
            The network, in training mode.
        """
        network = self.fresh(number)
        self.load(network, number, wanted)
        return network

    @torch.no_grad()
    def load(self, network: nn.Module, number: int, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Gives a network the values of the trained one.

        Args:
            network: the network.
            number: the number of the seed.
            wanted: says of the name of a parameter or a buffer whether it gets them.
        """
        source = tensors(self.models[number])
        for name, tensor in tensors(network).items():
            if wanted(name):
                tensor.copy_(source[name])


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Lists the parameters and buffers of a network, also a wrapped one, each once.

    Args:
        network: the network.

    Returns:
        They by name.

    Raises:
        ValueError: if it is sharded.
    """
    inside = unwrapped(network)[0]
    found: dict[str, Tensor] = {**dict(inside.named_parameters()), **dict(inside.named_buffers())}
    if any(map(is_sharded, found.values())):
        raise ValueError("the network is sharded; gather it into one process and probe it there")
    return found


def check_alike(trained: dict[str, Tensor], fresh: dict[str, Tensor]) -> None:
    """Raises a ValueError where a fresh network is of another architecture than the trained one.

    Args:
        trained: its parameters and buffers.
        fresh: the fresh one's.
    """
    said = "fresh makes a network of another architecture: "
    for name in [*trained, *fresh]:
        if name not in trained or name not in fresh:
            raise ValueError(f"{said}{name} is only in the {'fresh' if name in fresh else 'trained'} one")
        here, there = trained[name], fresh[name]
        if here.shape != there.shape:
            raise ValueError(f"{said}{name} is {list(there.shape)}, in the trained one {list(here.shape)}")
        if here.dtype != there.dtype:
            raise ValueError(f"{said}{name} is {there.dtype}, in the trained one {here.dtype}")
        if here.requires_grad != there.requires_grad:
            frozen, trains = ("fresh", "trained") if here.requires_grad else ("trained", "fresh")
            raise ValueError(
                f"{name} is frozen in the {frozen} network and not in the {trains} one; both have to learn alike"
            )


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds the random numbers of torch, numpy and Python for a while, and puts them back where they were.

    Methods that are made meanwhile do not count for the seeds of later ones.

    Args:
        seed: any integer.
        device: an accelerator whose random numbers are seeded and put back, too.

    Yields:
        Nothing.
    """
    with generators_kept([] if device is None else [device]), aside():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield


def made(factory: Factory, seed: int) -> nn.Module:
    """Makes a network of a seed.

    Args:
        factory: makes it; is given the seed if it has an argument without a default.
        seed: the seed, which torch's random numbers have meanwhile.

    Returns:
        The network.

    Raises:
        TypeError: if the factory makes none.
    """
    with seeded(seed):
        wanted = any(
            one.default is Parameter.empty and one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
            for one in signature(factory).parameters.values()
        )
        network = factory(seed) if wanted else factory()
    if not isinstance(network, nn.Module):
        raise TypeError(f"fresh gave a {type(network).__name__}; it has to make a torch.nn.Module")
    return network
