"""Methods in Lightning's trainer: ``pip install "supple[lightning]"``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from supple.methods import Method


class PlasticityCallback(Callback):
    """Makes a method when fitting starts and attaches it to the optimizer, with whose state it is saved and loaded.

    That is after a checkpoint was loaded, so going on from one needs nothing else; see :meth:`supple.Method.attach`.

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

    def __init__(
        self, factory: Callable[[nn.Module, torch.optim.Optimizer], Method], optimizer: int | None = None
    ) -> None:
        self.method: Method | None = None
        self._factory, self._number = factory, optimizer

    @property
    def state_key(self) -> str:
        """Tells callbacks for different optimizers apart."""
        return super().state_key if self._number is None else self._generate_state_key(optimizer=self._number)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the method before the first forward pass, which a compiled network may not have behind it."""
        self.on_train_start(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the method."""
        optimizers = trainer.optimizers
        if self._number is None and len(optimizers) != 1:
            raise ValueError(f"there are {len(optimizers)} optimizers; say which: PlasticityCallback(..., optimizer=0)")
        if self.method is None or self.method.attachment is None:
            self.method = self._factory(pl_module, optimizers[self._number or 0]).attach(checkpoint=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes all hooks away."""
        if self.method is not None:
            self.method.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes all hooks away, since ``teardown`` does not come then."""
        self.teardown(trainer, pl_module, "fit")
