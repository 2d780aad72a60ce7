"""Training a network on a class-incremental stream, epoch by epoch, and resetting parts of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from supple.functional import random
from supple.lab.nn import ResNet, ViT
from supple.lab.nn.resnet import forget_statistics
from supple.lab.nn.stacked import initialize
from supple.lab.population.class_incremental_metrics import (
    AdditionEnd,
    AdditionStart,
    EpochMetrics,
    at_start,
    evaluate,
)
from supple.lab.population.learner import Learner
from supple.lab.streams.class_incremental import ClassIncrementalStream, Part
from supple.methods import Method
from supple.methods.arguments import choice
from supple.metrics import hits
from supple.optim.one_cycle import one_cycle


def resets(network: Any) -> tuple[str, ...]:
    """What can be reset of a network, or of one that a study describes: its parts, or only the optimizer's state."""
    return (*network.parts, "momentum")


RESETS = resets(ViT)
"""What can be reset of the network that has the most parts."""

Schedule = Literal["one_cycle", "steps"]
"""How the step size goes during the training on an addition's classes."""

_DROPOUT = random.purpose("incremental", "dropout")


def reset(network: ViT | ResNet, optimizer: torch.optim.Optimizer, parts: Collection[str], addition: int) -> None:
    """Draws parts of a network again from their initial distributions, as a function of its seed and the addition.

    The optimizer's state of what is drawn again (momentum) starts anew; with "momentum" all of it does. Batch
    normalizations of a network that is drawn again start with fresh statistics.
    """
    if "network" in parts:
        forget_statistics(network)
    names = dict.fromkeys(name for part in parts if part != "momentum" for name in network.parameters_of(part))
    seed = torch.tensor([network.seed], device="cpu")
    initialize(network, network.initial_distributions(), seed, names, time=addition)
    parameters = dict(network.named_parameters())
    for name in parameters if "momentum" in parts else names:
        optimizer.state.pop(parameters[name], None)


class ClassIncrementalTraining(Learner):
    """A network, its optimizer and a method that learn a class-incremental stream.

    At each addition of classes the step size starts a new schedule. "one_cycle": from a 25th of the optimizer's step
    size up to it over 30% of the steps, and down to a 250,000th of it, on straight lines; the optimizer's weight decay
    is ``weight_decay`` divided by the step size of the moment, so that the product of the two is constant. "steps": the
    optimizer's step size, and a fifth of what it was from 30, 60 and 80% of the steps on; the optimizer's weight decay
    is ``weight_decay`` divided by its step size, and so the product falls with the step size. Only the
    outputs of the classes seen so far enter the loss. The method acts after each step. After the last epoch of an
    addition the network takes back the values it had after the epoch with the best validation accuracy; the optimizer
    and the method keep their state. A run whose loss is not finite has diverged and learns no more; that is a result,
    no error.

    A run is a function of its seeds and settings, also when it is taken up again from a state between two epochs: on a
    CPU bit for bit, on a GPU as far as its kernels give the same twice. The masks of dropout come from torch's own
    generator, because a number for each activation is too much for counter-based ones; it is seeded at each step from
    (seed of the stream, epoch, step), and afterwards is where it was before.

    ``cycle_momentum`` is (low, high): the optimizer's momentum goes from high to low while the step size rises, and
    back; None: it stays as it is. ``reset`` is what is drawn again at each addition, some of :data:`RESETS`.
    ``compiled`` trains through ``torch.compile``.

    Source: Hernandez-Garcia, Dohare, Luo and Sutton, arXiv 2508.00212; "steps": the program of Dohare et al., "Loss of
    plasticity in deep continual learning", Nature 632, 2024. docs/incremental.md has an example.
    """

    network: ViT | ResNet

    def __init__(
        self,
        network: ViT | ResNet,
        optimizer: torch.optim.Optimizer,
        stream: ClassIncrementalStream,
        method: Method | None = None,
        *,
        weight_decay: float = 2e-6,
        schedule: Schedule = "one_cycle",
        cycle_momentum: tuple[float, float] | None = None,
        restore: bool = True,
        reset: Collection[str] = (),
        precision: Literal["float32", "bfloat16"] = "float32",
        compiled: bool = False,
        measured_on: int = 1000,
        evaluation_batch: int = 250,
    ) -> None:
        super().__init__(network, optimizer, method)
        _check_together(network, optimizer, stream)
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay is {weight_decay}; it has to be 0 or more")
        if cycle_momentum is not None and not all("momentum" in group for group in optimizer.param_groups):
            raise ValueError(f"cycle_momentum is given, but {type(optimizer).__name__} has no momentum; leave it out")
        choice("precision", precision, ("float32", "bfloat16"))
        choice("schedule", schedule, get_args(Schedule))
        for part in reset:
            choice("reset", part, resets(network))
        self.stream = stream
        self.weight_decay, self.schedule, self.cycle_momentum = weight_decay, schedule, cycle_momentum
        self.restore, self.reset, self.precision = restore, tuple(reset), precision
        self.measured_on, self.evaluation_batch = measured_on, evaluation_batch
        self.epoch, self.diverged = 0, False
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self._forward: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False) if compiled else network
        self._device = stream.training.images.device
        self._best: dict[str, Any] | None = None
        self._broken_off = False

    def train_epoch(self, epoch: int, progress: Callable[[int], object] = lambda steps: None) -> EpochMetrics:
        """Learns the next epoch, whose number is :attr:`epoch`. The device is waited for after the epoch, not within.

        ``progress`` is called after each step with the number of steps done. What it raises ends the epoch; then a
        state has to be loaded before training goes on.
        """
        self._check_whole()
        if epoch != self.epoch:
            raise ValueError(f"epoch is {epoch}, but the next to be learned is {self.epoch}")
        addition, classes = self.stream.addition(epoch), self.stream.classes(epoch)
        if self.diverged:
            self.epoch += 1
            return EpochMetrics(epoch, classes, *(math.nan, 0.0) * 3, reinitialized=0, diverged=True)
        self._broken_off = True
        first, last = epoch % self.stream.epochs_each == 0, (epoch + 1) % self.stream.epochs_each == 0
        start = self._begin(addition) if first else None
        before = self._reinitialized()
        loss, accuracy = self._learn(epoch, progress)
        validation_loss, validation_accuracy = self._evaluate(self.stream.validation.of(0, classes), classes)
        test_loss, test_accuracy = self._evaluate(self.stream.test.of(0, classes), classes)
        self.diverged = not (math.isfinite(loss) and math.isfinite(validation_loss))
        if not self.diverged and (self._best is None or validation_accuracy > self._best["accuracy"]):
            values = copy.deepcopy(dict(self.network.state_dict()))
            self._best = {"epoch": epoch, "accuracy": validation_accuracy, "network": values}
        reinitialized = self._reinitialized() - before
        test = test_loss, test_accuracy
        end = self._end(classes, validation_accuracy, test) if last and not self.diverged else None
        self.epoch, self._broken_off = epoch + 1, False
        return EpochMetrics(
            epoch=epoch,
            classes=classes,
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            reinitialized=reinitialized,
            diverged=self.diverged,
            start=start,
            end=end,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never stopped: numbers, strings, lists, dicts and tensors; no settings."""
        self._check_whole()
        learner = copy.deepcopy(super().state_dict())
        return {"epoch": self.epoch, "diverged": self.diverged, **learner, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        super().load_state_dict(state)
        self.epoch, self.diverged, best = state["epoch"], state["diverged"], state["best"]
        if best is not None:
            best = {**best, "network": {name: value.to(self._device) for name, value in best["network"].items()}}
        self._best, self._broken_off = best, False

    def _check_whole(self) -> None:
        if self._broken_off:
            raise RuntimeError(
                f"epoch {self.epoch} was broken off, so the network stands between two epochs; take back a state of "
                "before with load_state_dict()"
            )

    def _begin(self, addition: int) -> AdditionStart:
        """Prepares for new classes."""
        self._best = None
        if addition:
            reset(self.network, self.optimizer, self.reset, addition)
        self.enter(addition)
        return at_start(self.network, self.stream, addition, self.measured_on)

    def _end(self, classes: int, validation_accuracy: float, test: tuple[float, float]) -> AdditionEnd:
        """Ends the training on an addition's classes, after which it has a loss and accuracy on test images."""
        assert self._best is not None
        if self.restore:
            self.network.load_state_dict(self._best["network"])
            validation_accuracy = self._best["accuracy"]
            test = self._evaluate(self.stream.test.of(0, classes), classes)
        accuracies = [self._evaluate(self.stream.test.of(k, k + 1), classes)[1] for k in range(classes)]
        return AdditionEnd(self._best["epoch"], validation_accuracy, *test, tuple(accuracies))

    def _learn(self, index: int, progress: Callable[[int], object]) -> tuple[float, float]:
        """Learns the batches of an epoch; returns mean loss and accuracy before learning."""
        epoch, done = self.stream.epoch(index), (index % self.stream.epochs_each) * self.stream.steps(index)
        losses = torch.zeros((), dtype=torch.float64, device=self._device)
        right = torch.zeros((), dtype=torch.int64, device=self._device)
        on_gpu = self._device.type == "cuda"
        generator = torch.cuda.default_generators[self._device.index] if on_gpu else torch.default_generator
        seeds = _dropout_seeds(self.stream.seed, index, len(epoch))
        self.network.train()
        with torch.random.fork_rng([self._device] if on_gpu else []):
            for step, ((x, y), seed) in enumerate(zip(epoch, seeds, strict=True), start=1):
                self._schedule(done + step - 1, len(epoch) * self.stream.epochs_each)
                generator.manual_seed(seed)
                loss, hit = self._step(x, y, epoch.classes)
                losses += loss
                right += hit
                progress(step)
        return float(losses) / len(epoch), int(right) / (len(epoch) * self.stream.batch_size)

    def _step(self, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Learns one batch; returns its loss and the number classified rightly, both before."""
        self.optimizer.zero_grad()
        outputs = self._outputs(self._forward, x, classes)
        loss = nn.functional.cross_entropy(outputs, y)
        loss.backward()
        self.optimizer.step()
        if self.method is not None:
            self.method.step()
        return loss.detach(), hits(outputs.detach().mT.unsqueeze(0), y.view(1, 1, -1))[0]

    def _outputs(self, forward: Callable[[Tensor], Tensor], x: Tensor, classes: int) -> Tensor:
        """Outputs of the classes seen so far, float32 [B, classes]."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return forward(x)[:, :classes].float()

    def _schedule(self, step: int, steps: int) -> None:
        """Sets step size, weight decay and momentum for a step of an addition."""
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            if self.schedule == "steps":
                group["lr"] = peak / 5 ** sum(10 * step >= tenths * steps for tenths in (3, 6, 8))
                group["weight_decay"] = self.weight_decay / peak
                continue
            group["lr"] = one_cycle(step, steps, peak / 25, peak, peak / 25e4)
            group["weight_decay"] = self.weight_decay / group["lr"]
            if self.cycle_momentum is not None:
                low, high = self.cycle_momentum
                group["momentum"] = one_cycle(step, steps, high, low, high)

    def _evaluate(self, part: Part, classes: int) -> tuple[float, float]:
        """Loss and accuracy on images as they are."""

        def logits(x: Tensor) -> Tensor:
            return self._outputs(self.network, x, classes)

        loss, accuracy = evaluate(self.network, logits, part, self.stream.augmentation, self.evaluation_batch)
        return float(loss), float(accuracy)

    def _reinitialized(self) -> int:
        return 0 if self.method is None else int(self.method.reinitialized.total)


def _dropout_seeds(seed: int, epoch: int, steps: int) -> list[int]:
    """A 64-bit seed a step."""
    words = random.words(torch.tensor([seed], device="cpu"), _DROPOUT, epoch, 2 * steps).view(-1, 2)
    return [high << 32 | low for high, low in words.tolist()]


def _check_together(network: ViT | ResNet, optimizer: torch.optim.Optimizer, stream: ClassIncrementalStream) -> None:
    """Refuses what cannot be trained together."""
    sizes, images = network.sizes, stream.training.images
    side = [sizes["image_size"]] * 2 if "image_size" in sizes else images.shape[2:]
    if images.shape[1:] != (sizes["channels"], *side):
        taken = " and ".join(f"{name}={sizes[name]}" for name in ("channels", "image_size") if name in sizes)
        raise ValueError(
            f"the network has {taken}, but images of {stream.name} are {' x '.join(map(str, images.shape[1:]))}"
        )
    if sizes["outputs"] < stream.sizes[-1]:
        raise ValueError(f"the network has {sizes['outputs']} outputs, but {stream.sizes[-1]} classes will come")
    if network.output.weight.device != images.device:
        raise ValueError(f"the network is on {network.output.weight.device}, the stream on {images.device}")
    for group in optimizer.param_groups:
        if "weight_decay" not in group or group["weight_decay"]:
            raise ValueError(
                f"{type(optimizer).__name__} has to have a weight decay, and it has to be 0: give weight_decay to "
                "ClassIncrementalTraining, which divides it by the step size of the moment"
            )
