"""Methods in the Trainer of Hugging Face's transformers: ``pip install "supple[transformers]"``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from supple.functional.packing import pack, unpack
from supple.integrations.beginning import Beginning, Factory
from supple.methods import Method
from supple.methods.probe import unwrapped_optimizer

FILE = "supple.safetensors"
"""Name of the file in each checkpoint folder that holds the method's state."""


class PlasticityCallback(TrainerCallback):
    """Lets a method act after each step of the optimizer, and saves its state in the checkpoints.

    Relied on: the Trainer calls ``on_optimizer_step`` once after each ``optimizer.step()``, after all accumulated
    batches and before the gradients are cleared; and ``on_save`` when the checkpoint's folder is there.

    The method is made when training begins. To go on from a checkpoint, pass the callback to the Trainer's constructor:
    it keeps the values that the model has there, on the host, until training begins, because a method has to know what
    the parameters were initialized from and trained weights no longer tell.

    Args:
        factory: makes the method from the model and its optimizer:
            ``lambda model, optimizer: supple.SWR(model, optimizer)``. When several processes train, CBP and ReDo are
            told so with ``process_group=torch.distributed.group.WORLD``.
        checkpoint: the folder from which training goes on, where it is not ``checkpoint-<step>`` in the output folder.

    Attributes:
        method: the method, while and after training; None before.

    Raises:
        FileNotFoundError: if training goes on from a checkpoint that has no state of a method.

    Example:
        ::

            from supple.integrations.transformers import PlasticityCallback

            plasticity = PlasticityCallback(lambda model, optimizer: supple.SWR(model, optimizer, frequency=2048))
            trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[plasticity])
    """

    def __init__(self, factory: Factory, checkpoint: str | Path | None = None) -> None:
        self.method: Method | None = None
        self._factory = factory
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._beginning: Beginning | None = None

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Keeps the values of the model."""
        if model is not None:
            self._beginning = Beginning(model)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Makes the method, and loads its state if training goes on."""
        # There is no event for a training that failed, so its method is still there.
        if self.method is not None:
            self.method.close()
        optimizer = unwrapped_optimizer(optimizer)
        if self._beginning is None or not state.global_step:
            self.method = self._factory(model, optimizer)
        else:
            with self._beginning.again(model, optimizer):
                self.method = self._factory(model, optimizer)
        self._beginning = None
        if state.global_step:
            path = (self._checkpoint or _folder(args, state)) / FILE
            if not path.exists():
                raise FileNotFoundError(
                    f"training goes on from step {state.global_step}, but {path} is not there; say where the "
                    "checkpoint is: PlasticityCallback(..., checkpoint=folder)"
                )
            self.method.load_state_dict(_load(path))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lets the method add to the gradients."""
        assert self.method is not None
        self.method.before_step()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lets the method act."""
        assert self.method is not None
        self.method.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Saves the method's state into the checkpoint that was just written."""
        assert self.method is not None
        tensors: dict[str, Tensor] = {}
        text = json.dumps(pack(self.method.state_dict(), tensors))
        if state.is_world_process_zero:
            folder = _folder(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / FILE, {"state": text})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes all hooks away."""
        assert self.method is not None
        self.method.close()


def _load(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return unpack(json.loads(file.metadata()["state"]), tensors)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of the checkpoint at this step.

    In a search of hyperparameters each trial has a folder of its own, named by ``hp_name`` or by a number that is not
    told; it is then the newest whose checkpoint at this step is of a trial with the same parameters.
    """
    output, name = Path(args.output_dir or "."), f"checkpoint-{state.global_step}"
    if not state.is_hyper_param_search:
        return output / name
    if state.trial_name is not None:
        return output / state.trial_name / name
    found = [path for path in output.glob(f"run-*/{name}/trainer_state.json") if _trial(path) == state.trial_params]
    if not found:
        raise FileNotFoundError(
            f"no folder {output}/run-*/{name} is of the trial with parameters {state.trial_params}; name the folders "
            "of trials: trainer.hyperparameter_search(..., hp_name=lambda trial: ...)"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _trial(path: Path) -> Any:
    return json.loads(path.read_text())["trial_params"]
