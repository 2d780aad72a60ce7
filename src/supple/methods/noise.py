"""Normal noise for every weight at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from supple.methods.weights import Weights
from supple.methods.when import ALL, Rows


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
        rows: the replicas that need noise.
    """

    def __init__(self, purpose: str, seed: Tensor, sizes: Mapping[str, int], rows: Rows = ALL) -> None:
        distinct = seed[rows].unique()
        self._seed_of = torch.searchsorted(distinct, seed).clamp_(max=len(distinct) - 1)
        self._differ = self._seed_of.tolist() == list(range(len(self._seed_of)))
        self._generators = {one: torch.Generator(seed.device) for one in distinct.tolist()}
        self._purpose, self._device, self._sizes = purpose, seed.device, dict(sizes)
        self._bundles = _bundles(sizes)
        self._left: list[dict[str, int]] = []
        self._drawn: dict[str, Tensor] = {}

    def begin(self, step: int, names: Iterable[str]) -> None:
        """Begins a step, in which the parameters are asked for in order.

        Args:
            step: 0, 1, ...
            names: the parameters; the noise of each depends on which come before it.
        """
        for seed, generator in self._generators.items():
            key = hashlib.blake2b(f"{self._purpose} {seed} {step}".encode(), digest_size=8)
            generator.manual_seed(int.from_bytes(key.digest(), "little"))
        names = list(names)
        if names != [name for bundle in self._bundles for name in bundle]:
            self._bundles = _bundles({name: self._sizes[name] for name in names})
        self._left, self._drawn = list(self._bundles), {}

    def of(self, w: Weights) -> Tensor:
        """Gives the noise of one parameter, past that of those before it.

        Args:
            w: the parameter; or a piece of it, where others of it were asked for last.

        Returns:
            float32 [rows, ...].
        """
        while w.name not in self._drawn:
            bundle = self._left.pop(0)
            noise = torch.empty(len(self._generators), sum(bundle.values()), dtype=torch.float32, device=self._device)
            for row, generator in zip(noise, self._generators.values(), strict=True):
                row.normal_(generator=generator)
            self._drawn = dict(zip(bundle, noise.split(list(bundle.values()), dim=1), strict=True))
        noise = self._drawn[w.name]
        # Everybody draws the noise of the whole, and takes what belongs to its block.
        noise = w.cut(w.part(noise.view(len(noise), *w.block.whole)))
        return noise[w.rows] if self._differ else noise.index_select(0, self._seed_of[w.rows])

    def end(self) -> None:
        """Forgets the noise of a step."""
        self._left, self._drawn = [], {}


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
