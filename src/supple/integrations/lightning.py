"""Methods in Lightning's trainer: ``pip install "supple[lightning]"``."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from supple.integrations.beginning import Beginning, Factory
from supple.methods import Method


class PlasticityCallback(Callback):
    """Lets a method act after each step of the optimizer, and saves its state in the checkpoints.

    The method acts in a hook of the optimizer (``torch.optim.Optimizer.register_step_post_hook``): right after the
    update, when the gradients of all accumulated batches are still there. Lightning itself has no event between the
    two: it clears the gradients after the next batch's forward pass, where ``on_before_zero_grad`` comes too late to
    change weights. Relied on: the optimizer's ``step`` is what updates the weights, in automatic and in manual
    optimization.

    The method is made when fitting starts. A method has to know what the parameters were initialized from and trained
    weights no longer tell, so the values that the model has at ``setup``, before a checkpoint is loaded, are kept on
    the host until then.

    Args:
        factory: makes the method from the ``LightningModule`` and its optimizer; it may use a part of the module:
            ``lambda module, optimizer: supple.SWR(module.network, optimizer)``. When several processes train, CBP and
            ReDo are told so with ``process_group=torch.distributed.group.WORLD``.
        optimizer: number of the optimizer, where there are several; a callback for each of them may be used.

    Attributes:
        method: the method, while and after fitting; None before.

    Raises:
        ValueError: if there are several optimizers and ``optimizer`` does not say which.

    Example:
        ::

            from supple.integrations.lightning import PlasticityCallback

            plasticity = PlasticityCallback(lambda module, optimizer: supple.SWR(module, optimizer, frequency=2048))
            trainer = lightning.Trainer(callbacks=[plasticity])
    """

    def __init__(self, factory: Factory, optimizer: int | None = None) -> None:
        self.method: Method | None = None
        self._factory, self._number = factory, optimizer
        self._beginning: Beginning | None = None
        self._saved: dict[str, Any] | None = None
        self._handles: list[Any] = []

    @property
    def state_key(self) -> str:
        """Under which name checkpoints hold the state: one for each optimizer."""
        return super().state_key if self._number is None else self._generate_state_key(optimizer=self._number)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keeps the values of the model; whether a checkpoint will be loaded cannot be asked yet."""
        if stage == "fit":
            self._beginning = Beginning(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the method."""
        self._close()
        optimizer = self._optimizer(trainer)
        if self._beginning is None or trainer.ckpt_path is None:
            self.method = self._factory(pl_module, optimizer)
        else:
            with self._beginning.again(pl_module, optimizer):
                self.method = self._factory(pl_module, optimizer)
        self._beginning = None
        if self._saved is not None:
            self.method.load_state_dict(self._saved)
            self._saved = None
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def _optimizer(self, trainer: Trainer) -> torch.optim.Optimizer:
        optimizers = trainer.optimizers
        if self._number is None and len(optimizers) != 1:
            raise ValueError(f"there are {len(optimizers)} optimizers; say which: PlasticityCallback(..., optimizer=0)")
        return optimizers[self._number or 0]

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        assert self.method is not None
        self.method.before_step()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        assert self.method is not None
        self.method.step()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes all hooks away."""
        if stage == "fit":
            self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes all hooks away, since ``teardown`` does not come then."""
        self._close()

    def _close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.method is not None:
            self.method.close()

    def state_dict(self) -> dict[str, Any]:
        """The state of the method."""
        return {} if self.method is None else {"method": self.method.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back the state of the method, also before it is made."""
        saved = state_dict.get("method")
        if saved is not None and self._handles and self.method is not None:
            self.method.load_state_dict(saved)
        else:
            self._saved = saved
