"""A method in the Trainer of transformers does what it does in a plain loop, also after a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from classifier import BATCH, Model, data
from torch import nn

import supple

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from supple.integrations.transformers import PlasticityCallback  # noqa: E402

METHODS = {
    "SWR": lambda model, optimizer: supple.SWR(
        model, optimizer, frequency=2, factor=0.3, decay=0.5, optimizer_state="fresh"
    ),
    "CBP": lambda model, optimizer: supple.CBP(model.body, optimizer, maturity=2, replacement_rate=0.1, decay=0.9),
    "chain": lambda model, optimizer: supple.chain(
        supple.ShrinkAndPerturb(model, variance=1e-6),
        supple.SWR(model, optimizer, frequency=3, factor=0.3, utility="magnitude", reinit="initial"),
    ),
}
LR = 0.02


class InOrder(transformers.Trainer):
    """Goes through the data in order, so that a plain loop can follow."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return torch.utils.data.SequentialSampler(data())


def arguments(folder: Path, accumulate: int = 1, **options: Any) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=accumulate,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
        **{"max_steps": 9, "save_steps": 4, **options},
    )


def fit(
    name: str, folder: Path, steps: int, resume: bool | str = False, accumulate: int = 1
) -> tuple[Model, PlasticityCallback]:
    model, callback = Model(), PlasticityCallback(METHODS[name])
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = InOrder(
        model,
        arguments(folder, accumulate),
        train_dataset=data(),
        callbacks=[callback, Stop(steps)],
        optimizers=(optimizer, scheduler),
    )
    trainer.train(resume_from_checkpoint=resume or None)
    return model, callback


class Stop(transformers.TrainerCallback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


def plain(name: str, steps: int, accumulate: int = 1) -> tuple[Model, supple.Method]:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    method = METHODS[name](model, optimizer)
    batches = torch.utils.data.DataLoader(data(), batch_size=BATCH)
    done, number = 0, 0
    while done < steps:
        for number, one in enumerate(batches):
            (model(**one)["loss"] / accumulate).backward()
            if (number + 1) % accumulate == 0 and done < steps:
                optimizer.step()
                method.step()
                optimizer.zero_grad()
                done += 1
    return model, method


def assert_same(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.one_in(5)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_training_is_a_plain_loop(name: str, accumulate: int, tmp_path: Path) -> None:
    model, callback = fit(name, tmp_path, 9, accumulate=accumulate)
    expected, method = plain(name, 9, accumulate)
    assert callback.method is not None
    assert int(callback.method.reinitialized.total) == int(method.reinitialized.total) > 0
    assert_same(model, expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_going_on_from_a_checkpoint_is_as_never_having_stopped(name: str, tmp_path: Path) -> None:
    whole, expected = fit(name, tmp_path / "whole", 9)
    fit(name, tmp_path / "part", 4)
    resumed, callback = fit(name, tmp_path / "part", 9, resume=True)
    assert_same(resumed, whole)
    assert callback.method is not None
    assert expected.method is not None
    assert int(callback.method.reinitialized.total) == int(expected.method.reinitialized.total)


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_of_accelerate_is_a_plain_loop(name: str) -> None:
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    model, optimizer = accelerator.prepare(model, optimizer)
    method = METHODS[name](model, optimizer)
    for _ in range(2):
        for one in torch.utils.data.DataLoader(data(), batch_size=BATCH):
            with accelerator.accumulate(model):
                accelerator.backward(model(**one)["loss"])
                optimizer.step()
                if accelerator.sync_gradients:
                    method.step()
                optimizer.zero_grad()
    expected, plainly = plain(name, 4, 3)
    assert method.reinitialized.total == plainly.reinitialized.total
    assert_same(model, expected)


@pytest.mark.slow
def test_a_checkpoint_anywhere_has_the_state_and_one_without_it_is_refused(tmp_path: Path) -> None:
    fit("SWR", tmp_path / "part", 4)
    checkpoint = tmp_path / "part" / "checkpoint-4"
    _, callback = fit("SWR", tmp_path / "other", 5, resume=str(checkpoint))
    assert callback.method is not None
    assert callback.method.steps == 5  # type: ignore[union-attr]
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    del saved["param_groups"][0]["supple"]
    torch.save(saved, checkpoint / "optimizer.pt")
    with pytest.raises(ValueError, match=r"goes on from step 4, but .* holds none of a method"):
        fit("SWR", tmp_path / "other", 5, resume=str(checkpoint))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model looks trained already")
def test_a_training_that_failed_leaves_no_hooks_in_the_next(tmp_path: Path) -> None:
    class Failing(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    model = Model()
    callback = PlasticityCallback(lambda model, o: supple.CBP(model.body, o, initial={"*": supple.Normal(0.0, 0.1)}))
    trainer = transformers.Trainer(
        model, arguments(tmp_path, save_strategy="no", max_steps=1), train_dataset=data(), callbacks=[callback]
    )
    trainer.add_callback(failing := Failing())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(failing)
    trainer.train()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
