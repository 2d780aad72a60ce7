"""A method attached to the optimizer of a trainer does what it does called by hand, also after an interruption.

Each trainer is run three times: with the method attached; with an optimizer that calls the method after each of its
steps, as the third line of a loop would; and attached, interrupted, saved by the trainer's own means and resumed.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from classifier import BATCH, Model, body, data
from torch import Tensor, nn

import supple

CUT, STEPS = 6, 12
"""An interruption after the first epoch of six batches."""


class ByHand(torch.optim.Adam):
    """Calls a method after each step."""

    method: supple.Method | None = None

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        if self.method is not None:
            self.method.step()
        return loss


def adam(parameters: Any, how: str) -> torch.optim.Optimizer:
    return (ByHand if how == "by hand" else torch.optim.Adam)(parameters, lr=0.02)


def methods(model: nn.Module, optimizer: torch.optim.Optimizer, how: str) -> supple.Method:
    """Two methods as one, on a network with a body; one of them on any other."""
    made: supple.Method = supple.SWR(
        model, optimizer, frequency=2, factor=0.3, decay=0.5, optimizer_state="fresh", seed=1
    )
    if hasattr(model, "body"):
        made = supple.chain(made, supple.CBP(model.body, optimizer, maturity=2, replacement_rate=0.1, seed=2))
    if how != "by hand":
        return made.attach(checkpoint=True)
    made.optimizer.method = made  # type: ignore[union-attr, assignment]
    return made


Found = tuple[nn.Module, supple.Method]
"""The trained network, and the method."""


def accelerate_loop(how: str, folder: Path) -> Found:
    accelerate = pytest.importorskip("accelerate")

    def made() -> tuple[Any, ...]:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = Model()
        model, optimizer = accelerator.prepare(model, adam(model.parameters(), how))
        return accelerator, model, optimizer, methods(model, optimizer, how)

    def train(accelerator: Any, model: Any, optimizer: Any, method: Any) -> None:
        for one in torch.utils.data.DataLoader(data(), batch_size=BATCH):  # type: ignore[arg-type, var-annotated]
            with accelerator.accumulate(model):
                accelerator.backward(model(**one)["loss"])
                optimizer.step()
                optimizer.zero_grad()

    training = made()
    train(*training)
    if how == "resumed":
        training[0].save_state(folder)
        training = made()
        training[0].load_state(folder)
    train(*training)
    return training[1], training[3]


def lightning_trainer(how: str, folder: Path) -> Found:
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return nn.functional.cross_entropy(self.body(batch["x"]), batch["labels"])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adam(self.parameters(), how)

        def on_train_start(self) -> None:
            self.method = methods(self, self.optimizers(), how)

    def fit(epochs: int, checkpoint: Path | None = None) -> Found:
        saving = lightning.callbacks.ModelCheckpoint(folder, save_top_k=-1)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[saving],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Module()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader: Any = torch.utils.data.DataLoader(data(), batch_size=BATCH)  # type: ignore[arg-type]
            trainer.fit(module, loader, ckpt_path=checkpoint, **({"weights_only": True} if checkpoint else {}))
        return module, module.method

    if how != "resumed":
        return fit(STEPS // CUT)
    fit(1)
    return fit(STEPS // CUT, next(folder.glob("*.ckpt")))


def transformers_trainer(how: str, folder: Path) -> Found:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Stop(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step >= CUT

    def fit(part: bool, resume: bool = False) -> Found:
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH,
            learning_rate=0.02,
            max_steps=STEPS,
            save_steps=CUT,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        model = Model()
        optimizer = adam(model.parameters(), how)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=data(),
            optimizers=(optimizer, scheduler),
            callbacks=[Stop()] if part else [],
        )
        method = methods(trainer.model, trainer.create_optimizer(), how)
        trainer.train(resume_from_checkpoint=resume or None)
        return model, method

    if how == "resumed":
        fit(part=True)
    return fit(part=False, resume=how == "resumed")


def stable_baselines(kind: str) -> Callable[[str, Path], Found]:
    def run(how: str, folder: Path) -> Found:
        gymnasium = pytest.importorskip("gymnasium")
        algorithm = getattr(pytest.importorskip("stable_baselines3"), kind)
        import numpy as np

        class Signs(gymnasium.Env):  # type: ignore[misc, name-defined]
            """Asks for the sign of a number; what it shows is a function of how often it was asked."""

            observation_space = gymnasium.spaces.Box(-10, 10, (4,), np.float32)
            action_space = gymnasium.spaces.Discrete(2)

            def __init__(self, count: int) -> None:
                self.count = count

            def seen(self) -> Any:
                return np.random.default_rng(self.count).normal(size=4).astype(np.float32)

            def reset(self, *, seed: Any = None, options: Any = None) -> Any:
                return self.seen(), {}

            def step(self, action: Any) -> Any:
                reward = float((self.seen()[0] > 0) == bool(action))
                self.count += 1
                return self.seen(), reward, False, False, {}

        options = {
            "PPO": {"n_steps": 32, "n_epochs": 2},
            "DQN": {"learning_starts": 8, "train_freq": 4, "buffer_size": 200, "target_update_interval": 16},
        }[kind]
        kwargs = {
            "net_arch": [8],
            "optimizer_class": ByHand if how == "by hand" else torch.optim.Adam,
            "optimizer_kwargs": {"eps": 1e-5},
        }
        agent = algorithm("MlpPolicy", Signs(0), batch_size=8, seed=3, device="cpu", policy_kwargs=kwargs, **options)

        def attached(agent: Any) -> supple.Method:
            return methods(agent.q_net if kind == "DQN" else agent.policy, agent.policy.optimizer, how)

        def learn(agent: Any, seed: int) -> None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (which is what it draws from)
            agent.action_space.seed(seed)
            agent.learn(64, reset_num_timesteps=False)

        method = attached(agent)
        learn(agent, 1)
        if how == "resumed":
            agent.save(folder / "agent.zip")
            if kind == "DQN":
                agent.save_replay_buffer(folder / "replay.pkl")
            agent = algorithm.load(folder / "agent.zip", env=Signs(64), device="cpu")
            if kind == "DQN":
                agent.load_replay_buffer(folder / "replay.pkl")
            method = attached(agent)
        learn(agent, 2)
        return agent.policy, method

    return run


def torchrl_trainer(how: str, folder: Path) -> Found:
    trainers = pytest.importorskip("torchrl.trainers")
    from tensordict import TensorDict

    class Collector:
        """What a trainer asks of a collector; gives the same batches each time, from where it was."""

        init_random_frames = 0

        def __init__(self) -> None:
            self.number = 0

        def __iter__(self) -> Any:
            while True:
                x = torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(self.number))
                self.number += 1
                yield TensorDict({"x": x, "labels": (x[:, 0] > 0).long()}, [BATCH])

        def state_dict(self) -> dict[str, Any]:
            return {"number": self.number}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.number = state["number"]

        def shutdown(self) -> None:
            pass

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body()

        def forward(self, batch: Any) -> Any:
            return TensorDict({"loss": nn.functional.cross_entropy(self.body(batch["x"]), batch["labels"])}, [])

    def made(steps: int) -> tuple[Any, Loss, supple.Method]:
        loss = Loss()
        optimizer = adam(loss.parameters(), how)
        trainer = trainers.Trainer(
            collector=Collector(),
            total_frames=steps * BATCH,
            frame_skip=1,
            optim_steps_per_batch=1,
            loss_module=loss,
            optimizer=optimizer,
            clip_grad_norm=False,
            progress_bar=False,
            save_trainer_file=folder / "trainer.pt",
        )
        return trainer, loss, methods(loss, optimizer, how)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if how == "resumed":
            made(CUT)[0].train()
        trainer, loss, method = made(STEPS)
        if how == "resumed":
            trainer.load_from_file(folder / "trainer.pt")
        trainer.train()
    return loss, method


TRAINERS: dict[str, Callable[[str, Path], Found]] = {
    "accelerate": accelerate_loop,
    "lightning": lightning_trainer,
    "transformers": transformers_trainer,
    "PPO of stable-baselines3": stable_baselines("PPO"),
    "DQN of stable-baselines3": stable_baselines("DQN"),
    "torchrl": torchrl_trainer,
}


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_attached_and_resumed_it_ends_with_the_weights_of_the_three_lines(trainer: str, tmp_path: Path) -> None:
    found = {}
    for how in ("attached", "by hand", "resumed"):
        (folder := tmp_path / how).mkdir()
        model, method = TRAINERS[trainer](how, folder)
        assert (method.attachment is None) == (how == "by hand")
        found[how] = {name: value.clone() for name, value in model.state_dict().items()}
        steps = [part.steps for part in method.parts]
        total = int(method.reinitialized.total)
        assert total > 0
        if how == "attached":
            expected = steps, total
        assert (steps, total) == expected
    for how in ("by hand", "resumed"):
        for name, value in found["attached"].items():
            assert torch.equal(value, found[how][name]), (how, name)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_end_with_the_weights_of_the_three_lines(tmp_path: Path) -> None:
    script = Path(__file__).with_name("attached_processes.py")
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    problems = [process.communicate(timeout=280)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(problems)
    both = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for found in both:
        for how in ("parallel", "sharded"):
            values, counts = found[f"{how}, by hand"]
            assert counts[0] > 0
            for other in ("attached", "watched", "resumed"):
                theirs, their_counts = found[f"{how}, {other}"]
                assert their_counts == counts, (how, other)
                assert all(torch.equal(value, theirs[name]) for name, value in values.items()), (how, other)
        # What is watched is the whole network, whether a process holds all of it or half.
        for whole, part in zip(found["parallel, history"], found["sharded, history"], strict=True):
            assert whole.keys() > {"plasticity/0/dormant", "plasticity/0/grama", "plasticity/2/update_ratio"}
            assert part == pytest.approx(whole, rel=1e-4, abs=1e-6)
    for how in ("parallel", "sharded"):
        assert both[0][f"{how}, history"] == both[1][f"{how}, history"]
