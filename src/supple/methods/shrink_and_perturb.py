"""L2 and shrink and perturb: small changes of every weight at every step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from supple.methods.base import About, Method
from supple.methods.checks import Setting
from supple.methods.chosen_parameters import Selectors
from supple.methods.due import rows_of


class L2(Method):
    """Decoupled weight decay: after each step, shrinks every parameter.

    ::

        w -= l2 * w

    The coefficient is not multiplied by the step size (as it is in ``torch.optim.AdamW``). In single precision a share
    below about 3e-8 changes nothing, since w - l2 w is rounded to w.

    Args:
        model: the network, ordinary or stacked.
        optimizer: not used; taken so that all methods are made alike.
        l2: share taken off a step, 0 to 1.
        include: which parameters it acts on: a name or pattern over names, a class of module (its direct parameters), a
            function of name and parameter, or several of these; None: all that train.
        exclude: which of them it does not act on, given in the same way.
        seed: not used; there is nothing random.

    Raises:
        ValueError: if ``l2`` is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1, 1)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> supple.L2(model, l2=0.25).step()
        >>> float(model.weight.detach())
        0.75

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), equation 1; as a baseline
    against loss of plasticity: Hernandez-Garcia et al. (arXiv 2508.00212).
    """

    about = About(
        "l2",
        label="L2",
        title="weight decay",
        colour="#56b4e9",
        dark="#7cc7f2",
        strength=("l2",),
        source="Loshchilov and Hutter (ICLR 2019), equation 1",
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        l2: Setting = 1e-4,
        include: Selectors | None = None,
        exclude: Selectors | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(model, optimizer, include=include, exclude=exclude, seed=seed)
        share = self._setting("l2", l2, 0, 1)
        self._shrunk = rows_of(share > 0, self.device)
        if isinstance(self._shrunk, Tensor):
            # Shrinking all replicas, some of them by 0, takes less time than picking out those that shrink.
            self._shrunk = slice(None)
        self._l2 = self._for_each_parameter(share, self._shrunk)

    def _for_each_parameter(self, values: Tensor, rows: slice | Tensor | None) -> dict[str, Tensor]:
        """One value for each of the given replicas, in the type and on the device of each parameter, to multiply it."""
        if rows is None:
            return {}
        return {
            name: values.to(parameter)[rows].view(-1, *(1,) * (self._rows(parameter).ndim - 1))
            for name, parameter in self.parameters.items()
        }

    def gradients_needed(self) -> bool:
        """Never."""
        return False

    def due_next(self) -> Tensor:
        """Never in any, bool [R] on the CPU."""
        return self.reinitializes()

    def reinitializes(self) -> Tensor:
        """In none: weights change a little, but none starts anew; bool [R] on the CPU."""
        return torch.zeros(self.replicas, dtype=torch.bool)

    def _act(self) -> None:
        for name, share in self._l2.items():
            if self.parameters[name].requires_grad:
                weight = self._rows(self.parameters[name])[self._shrunk]
                # Not a product with 1 - l2, which single precision rounds to multiples of 6e-8.
                weight.addcmul_(weight, share, value=-1)


class ShrinkAndPerturb(L2):
    """Shrink and perturb: after each step, shrinks every parameter and adds a little noise.

    ::

        w = (1 - l2) * w + sqrt(variance) * noise,    noise ~ Normal(0, 1)

    The noise is a function of (seed, step) for one set of parameters on one kind of device. It comes from the device's
    own generator, seeded anew at each step, because it is needed for every weight at every step and the generator is
    several times faster there than the counter-based numbers used elsewhere; so another kind of device gives other
    noise.

    Args:
        model: the network, ordinary or stacked.
        optimizer: not used; taken so that all methods are made alike.
        l2: share taken off a step, 0 to 1.
        variance: variance of the noise a step, 0 or more.
        include: which parameters it acts on: a name or pattern over names, a class of module (its direct parameters), a
            function of name and parameter, or several of these; None: all that train.
        exclude: which of them it does not act on, given in the same way.
        seed: seed of the noise, or one a replica.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(1000, 1000)
        >>> _ = torch.nn.init.ones_(model.weight)
        >>> supple.ShrinkAndPerturb(model, l2=0.5, variance=1e-4).step()
        >>> round(float(model.weight.detach().mean()), 3), round(float(model.weight.detach().std()), 3)
        (0.5, 0.01)

    Source: Ash and Adams, "On warm-starting neural network training" (NeurIPS 2020), section 4; at every step: Dohare
    et al. (2024), "Loss of plasticity in deep continual learning", Nature 632.
    """

    about = About(
        "shrink_and_perturb",
        label="S&P",
        title="shrink and perturb",
        colour="#0072b2",
        dark="#3d9fdb",
        strength=("l2", "variance"),
        source="Ash and Adams (NeurIPS 2020), section 4; at every step: Dohare et al. (Nature 632, 2024)",
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        l2: Setting = 1e-4,
        variance: Setting = 1e-7,
        include: Selectors | None = None,
        exclude: Selectors | None = None,
        seed: int | Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(model, optimizer, l2=l2, include=include, exclude=exclude, seed=seed)
        std = self._setting("variance", variance, 0).sqrt()
        self._perturbed = rows_of(std > 0, self.device)
        self._std = self._for_each_parameter(std, self._perturbed)
        if self._perturbed is None:
            return
        # Replicas that share a seed share the noise, which is then drawn once.
        distinct, self._seed_of = torch.unique(self.seed[self._perturbed], return_inverse=True)
        self._seeds_differ = self._seed_of.tolist() == list(range(len(self._seed_of)))
        self._generators = {seed: torch.Generator(self.device) for seed in distinct.tolist()}
        self._bundles = _bundles({name: block.whole.numel() for name, block in self.blocks.items()})

    def _act(self) -> None:
        super()._act()
        if self._perturbed is None:
            return
        for seed, generator in self._generators.items():
            key = hashlib.blake2b(f"shrink and perturb {seed} {self.steps}".encode(), digest_size=8)
            generator.manual_seed(int.from_bytes(key.digest(), "little"))
        for bundle in self._bundles:
            noise = torch.empty(len(self._generators), sum(bundle.values()), dtype=torch.float32, device=self.device)
            for row, generator in zip(noise, self._generators.values(), strict=True):
                row.normal_(generator=generator)
            parts = noise.split(list(bundle.values()), dim=1)
            for name, part in zip(bundle, parts, strict=True):
                if not self.parameters[name].requires_grad:
                    continue
                weight, std = self._rows(self.parameters[name]), self._std[name]
                drawn = part if self._seeds_differ else part[self._seed_of]
                # Of a sharded parameter everybody draws the noise of the whole, and takes what belongs to its block.
                block = self.blocks[name]
                drawn = block.of(drawn.view(-1, *block.whole), leading=1).to(weight.dtype)
                if isinstance(self._perturbed, slice):
                    weight[self._perturbed].addcmul_(drawn, std)
                else:
                    weight.index_add_(0, self._perturbed, drawn * std)


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
