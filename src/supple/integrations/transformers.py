"""Methods in the Trainer of Hugging Face's transformers: ``pip install "supple[transformers]"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from supple.methods import Method
from supple.methods.attaching import KEY


class PlasticityCallback(TrainerCallback):
    """Makes a method when training begins and attaches it to the optimizer, with whose state it is saved and loaded.

    That is after a checkpoint was loaded, so going on from one needs nothing else; see :meth:`supple.Method.attach`.

    Args:
        factory: makes the method from the model and its optimizer:
            ``lambda model, optimizer: supple.SWR(model, optimizer)``. When several processes train, CBP and ReDo are
            told so with ``process_group=torch.distributed.group.WORLD``.

    Attributes:
        method: the method, while and after training; None before.

    Raises:
        ValueError: if training goes on from a checkpoint that has no state of a method.

    Example:
        ::

            from supple.integrations.transformers import PlasticityCallback

            plasticity = PlasticityCallback(lambda model, optimizer: supple.SWR(model, optimizer, frequency=2048))
            trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[plasticity])
    """

    def __init__(self, factory: Callable[[nn.Module, torch.optim.Optimizer], Method]) -> None:
        self.method: Method | None = None
        self._factory = factory

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Makes the method."""
        # There is no event for a training that failed, so its method is still there.
        if self.method is not None:
            self.method.close()
        if state.global_step and KEY not in optimizer.param_groups[0]:
            raise ValueError(
                f"training goes on from step {state.global_step}, but the optimizer's state in the checkpoint holds "
                "none of a method, as it was saved without one"
            )
        self.method = self._factory(model, optimizer).attach(checkpoint=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes all hooks away."""
        assert self.method is not None
        self.method.close()
