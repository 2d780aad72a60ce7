"""A method in Lightning's trainer does what it does in a plain loop, also after a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import supple

lightning = pytest.importorskip("lightning.pytorch")

from supple.integrations.lightning import PlasticityCallback  # noqa: E402

METHODS = {
    "SWR": lambda module, optimizer: supple.SWR(
        module, optimizer, frequency=2, factor=0.3, decay=0.5, optimizer_state="fresh"
    ),
    "CBP": lambda module, optimizer: supple.CBP(module.body, optimizer, maturity=2, replacement_rate=0.1, decay=0.9),
    "chain": lambda module, optimizer: supple.chain(
        supple.ShrinkAndPerturb(module, variance=1e-6),
        supple.SWR(module, optimizer, frequency=3, factor=0.3, utility="magnitude", reinit="initial"),
    ),
}
LR, EXAMPLES, BATCH = 0.02, 48, 8


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


def data() -> torch.utils.data.TensorDataset:
    x = torch.randn(EXAMPLES, 5, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())


class Module(lightning.LightningModule):
    def __init__(self, manual: bool = False) -> None:
        super().__init__()
        self.body = body()
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, number: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.body(batch[0]), batch[1])
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            self.manual_backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LR)


def fit(
    name: str, folder: Path, epochs: int, checkpoint: Path | None = None, accumulate: int = 1, manual: bool = False
) -> tuple[Module, PlasticityCallback]:
    module, callback = Module(manual), PlasticityCallback(METHODS[name])
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        callbacks=[callback, lightning.callbacks.ModelCheckpoint(folder, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = torch.utils.data.DataLoader(data(), batch_size=BATCH)
        trainer.fit(module, loader, ckpt_path=checkpoint, **({"weights_only": True} if checkpoint else {}))
    return module, callback


class Plain(nn.Module):
    """The parameters of the module above, with the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()


def plain(name: str, epochs: int, accumulate: int = 1) -> tuple[nn.Module, supple.Method]:
    model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    method = METHODS[name](model, optimizer)
    for _ in range(epochs):
        for number, (x, y) in enumerate(torch.utils.data.DataLoader(data(), batch_size=BATCH)):
            (nn.functional.cross_entropy(model.body(x), y) / accumulate).backward()
            if (number + 1) % accumulate == 0:
                optimizer.step()
                method.step()
                optimizer.zero_grad()
    return model, method


def assert_same(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("accumulate", "manual"), [(1, False), (3, False), (1, True)])
@pytest.mark.parametrize("name", METHODS)
def test_fitting_is_a_plain_loop(name: str, accumulate: int, manual: bool, tmp_path: Path) -> None:
    module, callback = fit(name, tmp_path, 2, accumulate=accumulate, manual=manual)
    expected, method = plain(name, 2, accumulate)
    assert callback.method is not None
    assert int(callback.method.reinitialized.total) == int(method.reinitialized.total)
    assert int(method.reinitialized.total) > 0 or accumulate > 1
    assert_same(module, expected)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", METHODS)
def test_going_on_from_a_checkpoint_is_as_never_having_stopped(name: str, tmp_path: Path) -> None:
    whole, expected = fit(name, tmp_path / "whole", 3)
    fit(name, tmp_path / "part", 1)
    (checkpoint,) = (tmp_path / "part").glob("*.ckpt")
    resumed, callback = fit(name, tmp_path / "rest", 3, checkpoint)
    assert_same(resumed, whole)
    assert callback.method is not None
    assert expected.method is not None
    assert int(callback.method.reinitialized.total) == int(expected.method.reinitialized.total)


def test_one_of_several_optimizers_has_to_be_named() -> None:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Module()
    trainer.strategy._optimizers = [module.configure_optimizers(), module.configure_optimizers()]
    with pytest.raises(ValueError, match="there are 2 optimizers; say which"):
        PlasticityCallback(METHODS["SWR"]).on_train_start(trainer, module)
    second = PlasticityCallback(METHODS["SWR"], optimizer=1)
    second.on_train_start(trainer, module)
    assert second.method is not None
    assert second.method.optimizer is trainer.optimizers[1]


class TwoOptimizers(lightning.LightningModule):
    """Two networks, each with an optimizer; fails in a given step."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.one, self.two = body(), body()
        self.automatic_optimization = False
        self.fails_at = fails_at

    def training_step(self, batch: Any, number: int) -> None:
        for optimizer, network in zip(self.optimizers(), (self.one, self.two), strict=True):
            optimizer.zero_grad()
            self.manual_backward(nn.functional.cross_entropy(network(batch[0]), batch[1]))
            if number == self.fails_at:
                raise RuntimeError("the step failed")
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(network.parameters(), lr=LR) for network in (self.one, self.two)]


def fit_two(callbacks: list[Any], epochs: int, module: nn.Module, checkpoint: Path | None = None) -> nn.Module:
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=any(isinstance(one, lightning.callbacks.ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = torch.utils.data.DataLoader(data(), batch_size=BATCH)
        trainer.fit(module, loader, ckpt_path=checkpoint, **({"weights_only": True} if checkpoint else {}))
    return module


def test_each_of_two_optimizers_has_a_callback_and_its_state(tmp_path: Path) -> None:
    def callbacks(folder: str) -> list[Any]:
        return [
            PlasticityCallback(lambda module, o: supple.SWR(module.one, o, frequency=2, factor=0.3), optimizer=0),
            PlasticityCallback(
                lambda module, o: supple.CBP(module.two, o, maturity=2, replacement_rate=0.1), optimizer=1
            ),
            lightning.callbacks.ModelCheckpoint(tmp_path / folder, save_top_k=-1),
        ]

    whole = fit_two(callbacks("whole"), 2, TwoOptimizers())
    fit_two(callbacks("part"), 1, TwoOptimizers())
    (checkpoint,) = (tmp_path / "part").glob("*.ckpt")
    resumed = fit_two(used := callbacks("rest"), 2, TwoOptimizers(), checkpoint)
    assert_same(resumed, whole)
    for callback in used[:2]:
        assert callback.method.steps == 2 * EXAMPLES // BATCH
        assert int(callback.method.reinitialized.total) > 0


def hooks(module: nn.Module) -> list[Any]:
    return [hook for part in module.modules() for hook in (*part._forward_hooks, *part._forward_pre_hooks)]


def test_a_fit_that_fails_leaves_no_hooks() -> None:
    callback = PlasticityCallback(lambda module, o: supple.ReDo(module.one, o, frequency=1), optimizer=0)
    module = TwoOptimizers(fails_at=1)
    with pytest.raises(RuntimeError, match="the step failed"):
        fit_two([callback], 1, module)
    assert not hooks(module)
    assert callback.method is not None
    with pytest.raises(RuntimeError, match="was closed"):
        callback.method.step()


def test_a_method_is_made_once_a_fit() -> None:
    callback = PlasticityCallback(lambda module, o: supple.ReDo(module.body, o, frequency=1))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Module()
    trainer.strategy._optimizers = [module.configure_optimizers()]
    callback.on_sanity_check_start(trainer, module)
    once = len(hooks(module))
    callback.on_train_start(trainer, module)
    assert len(hooks(module)) == once > 0
    callback.teardown(trainer, module, "fit")
    assert not hooks(module)
    callback.on_train_start(trainer, module)
    assert len(hooks(module)) == once
