"""C-CHAIN: less churn of the network's outputs."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from supple.functional.utility import precise
from supple.methods.penalty import Penalty
from supple.methods.settings import About, Shared
from supple.optim.replicated import Setting


class CChain(Penalty):
    """C-CHAIN: a term of the loss that keeps the outputs on other examples as they were one update ago.

    Before each update, with f the network, f_old the network before the last update, and x other examples than those
    that the loss is of::

        churn = mean((f(x) - f_old(x))^2)                       over examples and outputs
        penalty = strength * churn                              for the first ``warm_up`` updates, and with ratio=0
                  ratio * mean(|loss|) / mean(churn) * churn    later; means over the last ``window`` updates

    No gradient flows through f_old, and there is no churn yet at the first update. Two copies of the weights are kept,
    of now and of one update ago, which is twice what the rule needs; running statistics are those of now. Dropout draws
    other masks for f and f_old, and so counts as churn.

    Args:
        model: the network, ordinary or stacked.
        optimizer: not used; taken so that all methods are made alike.
        strength: factor of the churn (the paper's lambda), 0 or more.
        ratio: what the penalty is to be of the loss, 0 or more; 0: ``strength`` all the time.
        warm_up: updates before ``ratio`` counts, 1 or more.
        window: updates that the means are over, 1 or more; the same for all replicas.
        outputs: from what the network gives to the tensor that is compared, [B, ...] or of a stacked network
            [R, B, ...]; None: what it gives.
        shared: ``include``, ``exclude``, ``seed`` of every :class:`supple.Method`; parameters that are left out are in
            f_old as they are now.

    Raises:
        ValueError: if a setting is out of range, or the parameters are sharded.

    Example:
        >>> import torch, supple
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> method = supple.CChain(model, strength=1.0, ratio=0)
        >>> x, y, others = torch.ones(4, 2), torch.zeros(4, 1), torch.ones(3, 2)
        >>> for _ in range(2):
        ...     penalty = method.penalty(others)
        ...     loss = (model(x) - y).square().mean() + penalty
        ...     optimizer.zero_grad(); loss.backward(); optimizer.step(); method.step()
        >>> bool(penalty > 0)
        True

    Source: Tang, Obando-Ceron, Castro, Courville and Berseth, "Mitigating plasticity loss in continual reinforcement
    learning by reducing churn" (ICML 2025, arXiv 2506.00592), from its code for deep Q-networks, whose settings are the
    defaults; its code for PPO has ``strength=100, ratio=0.05, warm_up=50, window=100``, counted in iterations.
    """

    watches = True
    about = About(
        "c_chain",
        label="C-CHAIN",
        title="reducing churn",
        colour="#7a0177",
        dark="#c994c7",
        strength=("strength", "ratio"),
        source="Tang et al. (ICML 2025, arXiv 2506.00592)",
        needs="penalty() in the loss",
        keeps="two copies of the weights",
        common=("window",),
        cost=(1.314, 1.469),
    )

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        strength: Setting = 50.0,
        ratio: Setting = 0.01,
        warm_up: Setting = 10_000,
        window: int = 50_000,
        outputs: Callable[[Any], Tensor] | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, optimizer, **shared)
        self.strength = self.setting("strength", strength, 0).float().to(self.device)
        ratio = self.setting("ratio", ratio, 0)
        self.ratio, self._weighs = ratio.float().to(self.device), bool((ratio > 0).any())
        self.warm_up = self.setting("warm_up", warm_up, 1, whole=True).to(self.device)
        window = int(self.setting("window", window, 1, whole=True)[0])
        self.outputs = outputs
        self._taken: list[Tensor] = []
        now = {name: self.stack(parameter) for name, parameter in self.parameters.items()}
        # Of the loss and the churn at each of the last updates; -1 where nothing is known.
        history = torch.full((self.replicas, 2, window if self._weighs else 1), -1.0, device=self.device)
        self.kept = {
            "now": {name: value.clone() for name, value in now.items()},
            "before": {name: value.clone() for name, value in now.items()},
            "history": {next(iter(now)): history},
        }

    @property
    def weight(self) -> Tensor:
        """The factor of the churn at the next update: [R]."""
        if not self._weighs:
            return self.strength
        (history,) = self.kept["history"].values()
        known = (history >= 0) & history.isfinite()
        loss, churn = (torch.where(known, history, 0).sum(dim=2) / known.sum(dim=2).clamp(min=1)).unbind(dim=1)
        later = (self.ratio > 0) & (self.steps >= self.warm_up)
        return torch.where(later, self.ratio * loss / (churn + 1e-8), self.strength)

    def penalty(self, *inputs: Any, loss: Tensor | None = None, **keywords: Any) -> Tensor:
        """Works out the term of the loss; before each update, once or for several parts of a batch.

        Args:
            inputs: what the network takes in: other examples than those of the loss, drawn independently of them.
            loss: the loss without this term, a scalar, or [R]; needed unless ``ratio`` is 0.
            keywords: keyword arguments of the network.

        Returns:
            A scalar.

        Raises:
            ValueError: if the loss is missing.
            RuntimeError: if the method was closed, or the model has got other parameters.
        """
        self._check_usable()
        if self._weighs and loss is None:
            raise ValueError("CChain weighs churn by the loss: penalty(x, loss=loss), or CChain(model, ratio=0)")
        old, new = self._with(self.kept["before"], inputs, keywords), self.model(*inputs, **keywords)
        if self.outputs is not None:
            old, new = self.outputs(old), self.outputs(new)
        if not isinstance(new, Tensor):
            raise TypeError(
                f"the network gives a {type(new).__name__}; say what of it is compared, as in "
                "CChain(model, outputs=lambda given: given.logits)"
            )
        churn = self._means((precise(new) - precise(old)).square())
        if loss is not None:
            self._taken.append(torch.stack((loss.detach().abs().float().expand(self.replicas), churn.detach().float())))
        return (self.weight.to(churn.dtype) * churn).sum()

    def _act(self) -> None:
        """Takes down loss and churn, and the weights as they are now."""
        if self._weighs:
            (history,) = self.kept["history"].values()
            place = history[:, :, (self.steps - 1) % history.shape[2]]
            taken = torch.stack(self._taken).mean(dim=0).mT.contiguous() if self._taken else torch.full_like(place, nan)
            self._mean_of_processes(taken)
            place.copy_(torch.where(taken.isnan(), -1, taken))
            if self.steps == 1:
                place[:, 1] = -1
        self._taken = []
        for name, parameter in self.parameters.items():
            now = self.kept["now"][name]
            self.kept["before"][name].copy_(now)
            now.copy_(self.stack(parameter))
