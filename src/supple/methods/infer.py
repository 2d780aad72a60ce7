"""InFeR: initial feature regularization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional import random
from supple.functional.initial import Uniform, sample
from supple.methods.arguments import layers_from_last
from supple.methods.penalty import Penalty
from supple.methods.settings import About, Shared
from supple.optim.replicated import Setting


class InFeR(Penalty):
    """InFeR, initial feature regularization: a term of the loss that keeps the features able to express what they were.

    Linear heads on the features F of the network, with weights v that train with it, learn what they gave at the start
    (weights v0, features F0), enlarged::

        penalty = strength * mean((v F(x) - scale * v0 F0(x))^2)        over examples and heads; heads have biases

    v starts as v0, drawn uniformly within 1 / sqrt(features). The heads train with the optimizer: they are added to its
    group of the layer that reads the features. Without an optimizer here, give ``method.heads`` to yours. A copy of the
    weights at the start is kept; running statistics are those of now.

    Args:
        model: the network, ordinary or stacked.
        optimizer: its optimizer; make the method before a checkpoint is loaded into it.
        strength: factor of the penalty, 0 or more.
        heads: how many, 1 or more; the same for all replicas.
        scale: by how much what they gave at the start is enlarged (the paper's beta).
        layer: name of the linear layer whose inputs the features are; None: the last layer.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`; parameters that are left out are in
            F0 as they are now.

    Raises:
        ValueError: if a setting is out of range, there is no such linear layer, the optimizer does not hold it, the
            parameters are sharded, or several processes train the network and ``optimizer`` is missing.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.InFeR(model, optimizer, heads=4, scale=3.0)
        >>> x = torch.ones(3, 2)
        >>> first = method.penalty(x)
        >>> for _ in range(100):
        ...     loss = model(x).square().mean() + method.penalty(x)
        ...     optimizer.zero_grad(); loss.backward(); optimizer.step(); method.step()
        >>> bool(method.penalty(x) < first)
        True

    Source: Lyle, Rowland and Dabney, "Understanding and preventing capacity loss in reinforcement learning" (ICLR 2022,
    arXiv 2204.09560). The authors' code was not at hand; the rule agrees with github.com/timoklein/infer, and the
    defaults of ``strength`` and ``scale`` were not checked against the paper.
    """

    about = About(
        "infer",
        label="InFeR",
        title="initial feature regularization",
        colour="#4a6fe3",
        dark="#8fa8f5",
        strength=("strength",),
        source="Lyle et al. (ICLR 2022, arXiv 2204.09560)",
        needs="penalty() in the loss",
        keeps="a copy of the weights, and the heads",
        common=("heads",),
        cost=(1.34, 1.395),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 0.1,
        heads: int = 10,
        scale: Setting = 100.0,
        layer: str | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        self.strength = self.setting("strength", strength, 0).to(self.device)
        number = int(self.setting("heads", heads, 1, whole=True)[0])
        self.scale = self.setting("scale", scale, -float("inf")).to(self.device)
        self.reader, weight = self._reading(layer)
        read = self.model.get_parameter(weight)
        features = read.shape[-1]
        bound = Uniform(-(features**-0.5), features**-0.5)
        shape, key = torch.Size((number, features + 1)), random.purpose("InFeR", "heads")
        start = sample(bound, self.seed, key, 0, shape).to(read)
        self.heads = nn.Parameter(start.clone() if self.stacked else start[0].clone())
        self.kept = {
            "start": {name: self.stack(parameter).clone() for name, parameter in self.parameters.items()},
            "heads": {weight: self.stack(self.heads)},
            "targets": {weight: start},
        }
        if self.optimizer is not None:
            groups = [one for one in self.optimizer.param_groups if any(p is read for p in one["params"])]
            if not groups:
                raise ValueError(f"the {type(self.optimizer).__name__} does not hold {weight}; give the one that does")
            groups[0]["params"].append(self.heads)
        self._hook: Any = None
        if self._process_group is not None:
            # The heads are none of the network's parameters, whose gradients DistributedDataParallel averages.
            if self.optimizer is None:
                raise ValueError(
                    "several processes train this network; give InFeR the optimizer: before its steps the gradients of "
                    "the heads are averaged"
                )
            self._hook = self.optimizer.register_step_pre_hook(self._average)

    def _average(self, optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        """Averages the gradients of the heads over the processes."""
        if self.heads.grad is not None:
            self._mean_of_processes(self.heads.grad)

    def _reading(self, layer: str | None) -> tuple[nn.Module, str]:
        """The layer that reads the features, and the name of its weight, which other layers may share."""
        if layer is None:
            found = layers_from_last(self.model)[:1]
        else:
            self.settings["layer"] = layer
            found = [module for name, module in self.model.named_modules() if name == layer]
        held = {id(p): p for module in found for p in module.parameters(recurse=False) if p.ndim - self.stacked == 2}
        names = [name for name, parameter in self.model.named_parameters() if id(parameter) in held]
        if len(names) != 1:
            raise ValueError(
                f"InFeR reads the features that a linear layer takes in, and {layer or 'the last layer'} is none; say "
                'which it is: InFeR(model, layer="head")'
            )
        return found[0], names[0]

    def penalty(self, *inputs: Any, loss: Tensor | None = None, **keywords: Any) -> Tensor:
        """Works out the term of the loss.

        Args:
            inputs: what the network takes in, such as those of the loss.
            loss: not used; taken so that all are called alike.
            keywords: keyword arguments of the network.

        Returns:
            A scalar.

        Raises:
            RuntimeError: if the method was closed, the model has got other parameters, or the layer did not run once or
                is none whose weight is [outputs, inputs].
        """
        self._check_usable()
        read: list[Tensor] = []
        hook = self.reader.register_forward_pre_hook(lambda module, given: read.append(given[0]))
        try:
            self._with(self.kept["start"], inputs, keywords)
            self.model(*inputs, **keywords)
        finally:
            hook.remove()
        if len(read) != 2:
            raise RuntimeError("the layer whose inputs InFeR reads has to run once in a forward pass; choose another")
        first, features = read
        if first.shape[-1] != self.heads.shape[-1] - 1:
            raise RuntimeError(
                f"the {type(self.reader).__name__} whose inputs InFeR reads takes in {first.shape[-1]} features, and "
                f"the last dimension of its weight is {self.heads.shape[-1] - 1}; choose another layer: "
                'InFeR(model, layer="head")'
            )
        (targets,) = self.kept["targets"].values()
        scale = self.scale.view((-1, 1, 1) if self.stacked else ()).to(first.dtype)
        goal = scale * _apply(targets if self.stacked else targets[0], first)
        means = self._means((_apply(self.heads, features) - goal).square())
        return (self.strength.to(means.dtype) * means).sum()

    def close(self) -> None:
        """Takes the heads out of the optimizer."""
        if self._hook is not None:
            self._hook.remove()
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:  # those of when it was made are gone once a state was loaded
                group["params"] = [one for one in group["params"] if one is not self.heads]
            self.optimizer.state.pop(self.heads, None)
        super().close()


def _apply(heads: Tensor, features: Tensor) -> Tensor:
    """Heads [(R,) heads, features + 1], whose last column is the bias, of features [(R,) ..., features]."""
    bias = heads[..., -1]
    if heads.ndim == 2:
        return nn.functional.linear(features, heads[:, :-1], bias)
    flat = features.flatten(1, -2)
    return torch.baddbmm(bias.unsqueeze(1), flat, heads[..., :-1].mT)
