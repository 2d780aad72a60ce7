"""Class-incremental training of the study's vision transformer: images a second, against plain loops.

Contenders train in turns, an epoch of a few batches each and an evaluation in the study's proportions (9 images to
train, 1 to validate, 2 to test), on random images of the shape of CIFAR-100's; medians count, so that a busy moment of
the machine falls on all of them. They are

- ``plain``: research code (``benchmarks/research.py``) with torch's layers,
- ``plain, supple's network``: the same with ``ViT``, which tells apart what data and network are worth,
- ``supple``, with SWR at the settings of the paper, in bfloat16, and with ``--compiled`` through ``torch.compile``.

Then the parts of a step, each by itself: the batch (chosen, augmented, normalized), the optimizer, and the method, as
often as it acts in the long run; the rest is the network, forward and backward. Last, how long the study would take:
2,000 epochs with 5 to 100 classes of 450 images, each with its evaluation; what is measured at the additions is left
out.

    python benchmarks/incremental.py --quick    # a small network, some seconds
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import research
import torch
from timing import spread
from torch import nn

import supple
from supple.lab.data import LabelledImages
from supple.lab.nn import ViT
from supple.lab.population import ClassIncrementalTraining
from supple.lab.streams import ClassIncrementalStream

BATCH = 90
STUDY_IMAGES = 100 * 450 * sum(range(5, 101, 5))
"""Training images of the study, each as often as it comes: 100 epochs with 5, 10, ... 100 classes of 450."""
SMALL = {"depth": 2, "heads": 3, "width": 48, "hidden": 96}
FREQUENCY = 128


@dataclass
class Contender:
    """What trains and evaluates, and the seconds it took.

    Args:
        epoch: trains an epoch and evaluates; returns the seconds of each.
        parts: seconds of a step by what is done in them, each measured by itself.
    """

    epoch: Callable[[], tuple[float, float]]
    parts: Callable[[], dict[str, float]]
    training: list[float] = field(default_factory=list)
    evaluation: list[float] = field(default_factory=list)


class Supple:
    """A network in the hands of :class:`ClassIncrementalTraining`.

    Args:
        network: what is trained.
        stream: the classes.
        synchronize: waits for the device.
        swr: whether SWR acts.
        options: of :class:`ClassIncrementalTraining`.
    """

    def __init__(
        self,
        network: ViT,
        stream: ClassIncrementalStream,
        synchronize: Callable[[], object],
        swr: bool = False,
        **options: Any,
    ) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
        self.method = supple.SWR(network, optimizer, frequency=FREQUENCY, factor=5e-4) if swr else None
        self.training = ClassIncrementalTraining(
            network, optimizer, stream, self.method, weight_decay=6e-6 if swr else 2e-6, measured_on=10, **options
        )
        self.steps, self.synchronize = stream.steps(0), synchronize

    def epoch(self) -> tuple[float, float]:
        """Trains for an epoch and evaluates.

        Returns:
            Seconds of training, with the method as often as it acts in the long run, and of evaluation.
        """
        if self.method is not None:
            self.method.steps = 0
        middle = 0.0

        def progress(step: int) -> None:
            nonlocal middle
            if step == self.steps:
                self.synchronize()
                middle = time.perf_counter()

        start = time.perf_counter()
        self.training.train_epoch(self.training.epoch, progress)
        evaluation = time.perf_counter() - middle
        owed = self.steps / FREQUENCY - self.steps // FREQUENCY
        return middle - start + (owed * self.acting() if self.method is not None else 0.0), evaluation

    def acting(self) -> float:
        """Seconds of a step of the method at which it acts."""
        assert self.method is not None
        self.method.steps = FREQUENCY - 1
        return self._seconds(self.method.step)

    def parts(self) -> dict[str, float]:
        """Seconds of a step by what is done in them, each by itself."""
        stream, epoch = self.training.stream, self.training.epoch
        batches = [self._seconds(lambda: [None for _ in stream.epoch(epoch)]) / self.steps for _ in range(5)]
        optimizer = [self._seconds(self.training.optimizer.step) for _ in range(5)]
        found = {"data": statistics.median(batches), "optimizer": statistics.median(optimizer), "method": 0.0}
        if self.method is not None:
            acting = statistics.median(self.acting() for _ in range(3))
            idle = statistics.median(self._seconds(self.method.step) for _ in range(5))
            found["method"] = acting / FREQUENCY + idle * (1 - 1 / FREQUENCY)
        return found

    def _seconds(self, work: Callable[[], object]) -> float:
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start


def plain_parts(loop: research.PlainLoop) -> dict[str, float]:
    """Seconds of a step by what is done in them; those of the data are spent in the workers, beside the rest."""
    start = time.perf_counter()
    torch.utils.data.default_collate([loop.images[index] for index in range(BATCH)])
    middle = time.perf_counter()
    loop.optimizer.step()
    loop.synchronize()
    return {"data": middle - start, "optimizer": time.perf_counter() - middle, "method": 0.0}


def pictures(classes: int, each: int) -> LabelledImages:
    """Random images of the shape of CIFAR-100's."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (classes * each, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.arange(classes).repeat_interleave(each), classes, "cifar100")


def contenders(options: argparse.Namespace, sizes: dict[str, int]) -> dict[str, Contender]:
    """All that is compared, ready to train."""
    steps, device = options.steps, torch.device(options.device)
    synchronize: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    # A batch takes 18 images from each of 5 classes; 50 of 450 validate and 100 test in the study.
    stream = ClassIncrementalStream(
        pictures(5, 20 * steps), pictures(5, 4 * steps), validation=2 * steps, batch_size=BATCH, device=device
    )

    def plain(network: nn.Module) -> Contender:
        loop = research.PlainLoop(network.to(device), stream, options.workers, synchronize)
        return Contender(loop.epoch, lambda: plain_parts(loop))

    def ours(**chosen: Any) -> Contender:
        training = Supple(ViT(**sizes).to(device), stream, synchronize, **chosen)
        return Contender(training.epoch, training.parts)

    found = {
        "plain": plain(research.TorchViT(**sizes)),
        "plain, supple's network": plain(ViT(**sizes)),
        "supple": ours(),
        "supple, SWR": ours(swr=True),
        "supple, bfloat16": ours(precision="bfloat16"),
    }
    if options.compiled:
        found |= {"supple, compiled": ours(compiled=True)}
        found |= {"supple, compiled, bfloat16": ours(compiled=True, precision="bfloat16")}
    return found


def measure(options: argparse.Namespace, sizes: dict[str, int]) -> dict[str, Any]:
    """Trains in turns.

    Args:
        options: of the command line.
        sizes: of the network, where they are not those of the study.

    Returns:
        What was found, by contender.
    """
    runs = contenders(options, sizes)
    for turn in range(-1, options.rounds):
        for name, run in runs.items():
            training, evaluation = run.epoch()
            print(f"turn {turn + 1} of {options.rounds}: {name}, {training:.2f} + {evaluation:.2f} s", file=sys.stderr)
            if turn >= 0:  # the first turn warms up
                run.training.append(training)
                run.evaluation.append(evaluation)
    count, found = options.steps * BATCH, {}
    for name, run in runs.items():
        step = statistics.median(run.training) / options.steps
        pairs = zip(runs["plain"].training, run.training, strict=True)
        whole = [(a + b) / count * STUDY_IMAGES / 86400 for a, b in zip(run.training, run.evaluation, strict=True)]
        found[name] = {
            "images_a_second": spread([count / seconds for seconds in run.training]),
            "evaluated_a_second": spread([count / 3 / seconds for seconds in run.evaluation]),
            "over_plain": spread([theirs / own for theirs, own in pairs]),
            "step_seconds": step,
            "shares": {part: seconds / step for part, seconds in run.parts().items()},
            "study_days": spread(whole),
        }
    return found


def table(found: dict[str, Any]) -> None:
    """Prints what was found."""
    print(f"{'':28}{'images/s':>10}{'range':>16}{'over plain':>12}{'range':>14}{'evaluated/s':>13}{'study, days':>13}")
    for name, row in found.items():
        rate, ratio = row["images_a_second"], row["over_plain"]
        rates, ratios = (f"{x['low']:.{d}f} to {x['high']:.{d}f}" for x, d in ((rate, 1), (ratio, 2)))
        print(
            f"{name:28}{rate['median']:>10.1f}{rates:>16}{ratio['median']:>10.2f} x{ratios:>14}"
            f"{row['evaluated_a_second']['median']:>13.1f}{row['study_days']['median']:>13.2f}"
        )
    print(f"\n{'a step':28}{'ms':>10}{'data':>10}{'network':>10}{'optimizer':>11}{'method':>10}")
    for name, row in found.items():
        parts = row["shares"]
        # Data of the plain loops are made beside the rest, by the workers.
        network = 1 - sum(parts.values()) + (parts["data"] if name.startswith("plain") else 0.0)
        mark = "*" if name.startswith("plain") else " "
        print(
            f"{name:28}{row['step_seconds'] * 1e3:>10.1f}{parts['data']:>9.2%}{mark}{network:>10.1%}"
            f"{parts['optimizer']:>11.2%}{parts['method']:>10.2%}"
        )
    print("* in the workers, beside the rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small network and few steps")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of tables")
    parser.add_argument("--compiled", action="store_true", help="also through torch.compile, which takes minutes")
    parser.add_argument("--rounds", type=int, help="turns of each contender; default: 3, with --quick 1")
    parser.add_argument("--steps", type=int, help="batches a turn; default: 2 on a CPU, 100 on a GPU")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="of each DataLoader; default: one a core"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads of torch; default: torch's own choice")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device on this machine; use --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.steps = options.steps or (100 if options.device == "cuda" and not options.quick else 2)
    found = measure(options, SMALL if options.quick else {})
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    if options.json:
        settings = {"machine": machine, "torch": torch.__version__, "quick": options.quick, "steps": options.steps}
        print(json.dumps({**settings, "rounds": options.rounds, "contenders": found}, indent=2))
    else:
        print(f"{machine}, torch {torch.__version__}, {options.rounds} turns of {options.steps} batches of {BATCH}\n")
        table(found)


if __name__ == "__main__":
    main()
