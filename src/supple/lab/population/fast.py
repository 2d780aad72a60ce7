"""The fast step: forward pass, cross-entropy, backward pass and update of a stacked MLP, written out.

It computes what autograd through the network computes, within rounding, with fewer operations on tensors: nothing is
recorded, the replicas of a seed share one product in the first layer, and plain gradient descent is added to the
weights as part of the product that gives the gradient, which then never exists as a tensor of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from supple.lab.nn import StackedLayerNorm, StackedLinear, StackedMLP
from supple.lab.population.layers import Activation, Linear, Norm, Precision, Products, Sink
from supple.methods.features import FeatureReader
from supple.metrics import hits
from supple.optim import SGDW

_Points = dict[tuple[str, str], Tensor]
_Reach = Callable[[str, str], None]
"""What the backward pass calls when the gradient at a point is known, by module and whether it is input or output."""


def is_observed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether hooks or a scheduler are told of an optimizer's steps, so that each has to be a call of ``step``."""
    told = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        _global_optimizer_pre_hooks,
        _global_optimizer_post_hooks,
        # A scheduler wraps the step of the optimizer it belongs to.
        "step" in vars(optimizer),
    )
    return any(told)


class Gradients:
    """A sink that keeps gradients in ``.grad``, for any optimizer and method to use."""

    def __init__(self, products: Products) -> None:
        self.products = products

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Writes the product into ``parameter.grad``, whose memory is used again; a frozen parameter has none."""
        if not parameter.requires_grad:
            parameter.grad = None
        else:
            self.products.write(_own_gradient(parameter).view(len(left), -1, right.shape[2]), left, right)

    def gradient(self, parameter: Tensor, gradient: Tensor) -> None:
        """Copies the gradient into ``parameter.grad``; a frozen parameter has none."""
        if not parameter.requires_grad:
            parameter.grad = None
        else:
            _own_gradient(parameter).copy_(gradient)


def _own_gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


class Descent:
    """A sink that subtracts gradients times the step size at once, after weight decay: plain gradient descent."""

    def __init__(self, optimizer: SGDW, products: Products) -> None:
        self.optimizer, self.group, self.products = optimizer, optimizer.param_groups[0], products

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Subtracts the product from the weights in place."""
        if parameter.requires_grad:
            self.optimizer.decay_weights(self.group, [parameter])
            self.products.subtract(parameter.view(len(left), -1, right.shape[2]), left, right)

    def gradient(self, parameter: Tensor, gradient: Tensor) -> None:
        """Subtracts the gradient."""
        if parameter.requires_grad:
            self.optimizer.decay_weights(self.group, [parameter])
            parameter.sub_(gradient)


class _Block:
    """A hidden layer; :class:`supple.lab.nn.Architecture` says what it computes."""

    def __init__(self, network: StackedMLP, k: int, products: Products) -> None:
        architecture, block = network.architecture, network.blocks[k]
        self.skip = architecture.skip if k else None
        self.place = architecture.layer_norm
        self.linear = Linear(cast(StackedLinear, block.linear), products)
        self.norm = Norm(cast(StackedLayerNorm, block.norm)) if self.place else None
        self.activation = Activation(architecture.activation)
        self.name = f"blocks.{k}"

    def forward(self, x: Tensor, previous: Tensor | None, points: _Points) -> tuple[Tensor, Tensor]:
        points[f"{self.name}.linear", "input"] = x
        z = self.linear.forward(x)
        if self.norm and self.place == "before":
            z = self.norm.forward(z)
        if self.skip == "before" and previous is not None:
            z = z + previous
        a = self.activation.forward(z)
        points[f"{self.name}.activation", "output"] = a
        if self.skip == "after" and previous is not None:
            a = a + previous
        if not (self.norm and self.place == "after"):
            return a, a
        points[f"{self.name}.norm", "input"] = a
        y = self.norm.forward(a)
        points[f"{self.name}.norm", "output"] = y
        return y, a

    def backward(
        self, d: Tensor, skipped: Tensor | None, sink: Sink, first: bool, reach: _Reach
    ) -> tuple[Tensor, Tensor | None]:
        """From dL/d(output), and dL/d(activations) that came past the next layer, to those of the layer before."""
        if self.norm and self.place == "after":
            reach(f"{self.name}.norm", "output")
            d = self.norm.backward(d, sink)
            reach(f"{self.name}.norm", "input")
        if skipped is not None:
            d = d + skipped
        reach(f"{self.name}.activation", "output")
        to_previous = d if self.skip == "after" else None
        d = self.activation.backward(d)
        if self.skip == "before":
            to_previous = d
        if self.norm and self.place == "before":
            d = self.norm.backward(d, sink)
        d = self.linear.backward(d, sink, first)
        reach(f"{self.name}.linear", "input")
        return d, to_previous


class FastStep:
    """Steps of stacked MLPs under cross-entropy, without autograd; hooks on the network's modules are not called.

    Where the optimizer is :class:`supple.optim.SGDW` without momentum and without hooks, with all parameters in one
    group, its update is part of the backward pass, and its ``step`` is not called. The precision is that of
    :class:`supple.lab.population.Products`.
    """

    def __init__(self, network: StackedMLP, optimizer: torch.optim.Optimizer, precision: Precision = "float32") -> None:
        self.optimizer = optimizer
        output = cast(StackedLinear, network.output)
        self.products = Products(precision, output.weight)
        self.blocks = [_Block(network, k, self.products) for k in range(network.architecture.depth)]
        self.output = Linear(output, self.products)
        self.replicas = network.replicas

    @torch.no_grad()
    def __call__(
        self, x: Tensor, y: Tensor, *, gradients: bool = True, readers: Iterable[FeatureReader] = ()
    ) -> tuple[Tensor, Tensor]:
        """Takes one step: x [S, B, inputs] and y int64 [S, B], to (loss, correct), each [R], before the update.

        Replicas s * C to s * C + C - 1 learn from batch s. The loss is a cross-entropy in nats averaged over the batch.
        ``gradients`` is whether ``.grad`` has to hold the gradients afterwards. Where readers are to be told of the
        gradient of their features, it has to be set, and weights that are changed then count from there on.
        """
        with self.products.applied():
            return self._step(x, y, gradients, [*readers])

    def _step(self, x: Tensor, y: Tensor, gradients: bool, readers: list[FeatureReader]) -> tuple[Tensor, Tensor]:
        logits = self._forward(x.mT, readers)
        target = y.repeat_interleave(self.replicas // len(y), dim=0).unsqueeze(1)
        log_probabilities = logits.log_softmax(dim=1)
        loss = log_probabilities.gather(1, target).mean(dim=(1, 2)).neg_()
        right = hits(logits, target)
        # dL/d(logits) = (probabilities - one hot) / B.
        d = log_probabilities.exp_()
        d.scatter_add_(1, target, d.new_full((1, 1, 1), -1.0).expand_as(target)).div_(y.shape[1])
        told: dict[tuple[str, str], list[Callable[[], None]]] = defaultdict(list)
        for reader in readers:
            if reader.on_gradient is not None:
                told[reader.feature.module, reader.feature.where].append(reader.on_gradient)

        def reach(module: str, where: str) -> None:
            for on_gradient in told.get((module, where), ()):
                on_gradient()

        if gradients or not self.descends():
            self._backward(d, Gradients(self.products), reach)
            self.optimizer.step()
        else:
            # The backward pass is linear, so every gradient comes out multiplied by the step size.
            sink = Descent(cast(SGDW, self.optimizer), self.products)
            rate = sink.optimizer.per_parameter(sink.group, "lr", [self.output.bias])[0]
            self._backward(d.mul_(rate.unsqueeze(-1) if rate.ndim else rate), sink, reach)
        return loss, right

    def descends(self) -> bool:
        """Whether the optimizer is plain gradient descent, and nobody is told of its steps.

        A step that need not keep gradients then updates the parameters within the backward pass.
        """
        groups = self.optimizer.param_groups
        plain = type(self.optimizer) is SGDW and len(groups) == 1 and not groups[0]["momentum"]
        return plain and not is_observed(self.optimizer)

    def _forward(self, x: Tensor, readers: list[FeatureReader]) -> Tensor:
        points: _Points = {}
        previous = None
        for block in self.blocks:
            x, previous = block.forward(x, previous, points)
        points["output", "input"] = x
        for reader in readers:
            place = (reader.feature.module, reader.feature.where)
            if place not in points:
                known = ", ".join(f"{where} of {module}" for module, where in points)
                raise ValueError(
                    f"features are to be read at the {place[1]} of {place[0]}, which the fast step does not have; it "
                    f"has {known}. Use Population(general=True), which calls the modules themselves"
                )
            reader.record(points[place].mT)
        return self.output.forward(x)

    def _backward(self, d: Tensor, sink: Sink, reach: _Reach) -> None:
        d, skipped = self.output.backward(d, sink), None
        reach("output", "input")
        for k in range(len(self.blocks) - 1, -1, -1):
            d, skipped = self.blocks[k].backward(d, skipped, sink, first=k == 0, reach=reach)
