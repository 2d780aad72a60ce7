"""Normal noise for every weight at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor


class StepNoise:
    """Normal noise that is a function of (seed, step) for one set of parameters on one kind of device.

    It comes from the device's own generator, seeded anew at each step, because it is needed for every weight at every
    step and the generator is several times faster there than the counter-based numbers used elsewhere; so another kind
    of device gives other noise.

    Args:
        purpose: what it is for.
        seed: int64 [R], the seeds of the replicas, where the noise is to lie. Those that share a seed share the noise,
            which is then drawn once.
        sizes: entries of each parameter of one network, of which each step may take others.
    """

    def __init__(self, purpose: str, seed: Tensor, sizes: Mapping[str, int]) -> None:
        distinct, self._seed_of = torch.unique(seed, return_inverse=True)
        self._differ = self._seed_of.tolist() == list(range(len(self._seed_of)))
        self._generators = {one: torch.Generator(seed.device) for one in distinct.tolist()}
        self._purpose, self._device, self._sizes = purpose, seed.device, dict(sizes)
        self._bundles = _bundles(sizes)

    def draws(self, step: int, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Gives the noise of a step for one parameter after the other.

        Args:
            step: 0, 1, ...
            names: the parameters; the noise of each depends on which come before it.

        Yields:
            (name, float32 [R, entries]).
        """
        for seed, generator in self._generators.items():
            key = hashlib.blake2b(f"{self._purpose} {seed} {step}".encode(), digest_size=8)
            generator.manual_seed(int.from_bytes(key.digest(), "little"))
        names = list(names)
        if names != [name for bundle in self._bundles for name in bundle]:
            self._bundles = _bundles({name: self._sizes[name] for name in names})
        for bundle in self._bundles:
            noise = torch.empty(len(self._generators), sum(bundle.values()), dtype=torch.float32, device=self._device)
            for row, generator in zip(noise, self._generators.values(), strict=True):
                row.normal_(generator=generator)
            for name, part in zip(bundle, noise.split(list(bundle.values()), dim=1), strict=True):
                yield name, part if self._differ else part[self._seed_of]


def noise_of(draws: Iterator[tuple[str, Tensor]], name: str) -> Tensor:
    """Goes on to the noise of a parameter, past that of those before it.

    Args:
        draws: what :meth:`StepNoise.draws` gives.
        name: the parameter.

    Returns:
        float32 [R, entries].
    """
    return next(noise for one, noise in draws if one == name)


def _bundles(sizes: Mapping[str, int], limit: int = 1 << 20) -> list[dict[str, int]]:
    """Neighbours whose noise is drawn in one call, since most parameters are small: at most ``limit`` entries or one.

    Args:
        sizes: entries of each parameter of one network.
        limit: entries of a bundle, which bounds the memory for noise.

    Returns:
        The sizes, in bundles.
    """
    bundles: list[dict[str, int]] = []
    for name, size in sizes.items():
        if not bundles or sum(bundles[-1].values()) + size > limit:
            bundles.append({})
        bundles[-1][name] = size
    return bundles
