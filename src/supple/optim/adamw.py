"""Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from supple.optim.replicated import ReplicatedOptimizer, Setting


class AdamW(ReplicatedOptimizer):
    """Adam with decoupled weight decay; step size and decay may differ by replica.

    Step t, for a parameter w of gradient g::

        w = w - weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        w = w - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    The decay is not multiplied by ``lr``; in ``torch.optim.AdamW`` it is, so its ``weight_decay`` is this one's over
    ``lr``. State has the names that ``torch.optim.AdamW`` gives it: step, exp_avg (m), exp_avg_sq (v).

    Args:
        params: parameters, or groups of them.
        lr: step size; a number, or a tensor [R] with one a replica.
        betas: decay of the averages of gradients and of their squares, each at least 0 and below 1.
        eps: added to the denominator.
        weight_decay: share of each weight taken away a step; a number, or a tensor [R] with one a replica.

    Raises:
        ValueError: if a setting is out of range, or is a tensor that does not fit the parameters.

    Example:
        >>> networks = StackedMLP([0, 0], hidden=10)
        >>> optimizer = AdamW(networks.parameters(), lr=torch.tensor([1e-3, 5e-4]), weight_decay=1e-5)

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, with the decay not
    multiplied by the step size.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Setting = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: Setting = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas is {betas}; each has to be at least 0 and below 1")
        if not eps >= 0:
            raise ValueError(f"eps is {eps}; it has to be 0 or more")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                # On the CPU, so that its value can be read without waiting for a device.
                state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        averages = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_add_([state["step"] for state in states], 1)
        rates = self.per_parameter(group, "lr", parameters)
        entries = zip(parameters, gradients, averages, squares, strict=True)
        if all(tensor.is_cpu and tensor.is_contiguous() for tensors in entries for tensor in tensors):
            for k, parameter in enumerate(parameters):
                _fused_update(parameter, gradients[k], states[k], rates[k], group)
            return

        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)

        # With c = sqrt(1 - beta2^t), m / (sqrt(v) / c + eps) is c * m / (sqrt(v) + c * eps), one pass over memory less.
        steps = [state["step"].item() for state in states]
        corrections = [(1 - beta2**step) ** 0.5 for step in steps]
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, [correction * group["eps"] for correction in corrections])
        updates = torch._foreach_div(averages, denominators)
        scales = [-correction / (1 - beta1**step) for correction, step in zip(corrections, steps, strict=True)]
        torch._foreach_addcmul_(parameters, updates, rates, scales)


def _fused_update(
    parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: Tensor, group: dict[str, Any]
) -> None:
    """Updates one parameter with torch's fused kernel for the CPU, which passes over memory once.

    The kernel takes one step size, so it computes the update for a step size of 1, from 0 on, which is then multiplied
    by each replica's own.
    """
    update = torch.zeros_like(parameter)
    torch._fused_adamw_(
        [update],
        [gradient],
        [state["exp_avg"]],
        [state["exp_avg_sq"]],
        [],
        [state["step"]],
        lr=1.0,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=0.0,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
    parameter.addcmul_(update, rate)
