"""The settings that the paper of the studies, arXiv 2508.00212, compares methods in, and how much smaller runs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supple.lab.report.additions import classes_after
from supple.lab.report.texts import number, setting_words
from supple.lab.report.trials import Trials


@dataclass(frozen=True)
class PaperSetting:
    """A network and an optimizer, by the columns of runs, and the study that runs them.

    Runs of fewer than ``least`` tasks decide nothing: 10% of fewer than ten is less than one, and the first classes
    alone are no addition.
    """

    words: str
    study: str
    problem: str
    values: Mapping[str, Any]
    least: int


def _permuted(
    words: str, study: str, hidden: int, layer_norm: str | None = None, optimizer: str = "sgd", momentum: bool = False
) -> PaperSetting:
    values = {
        "network.hidden": hidden, "network.depth": 3, "network.activation": "relu", "network.skip": None,
        "network.layer_norm": layer_norm, "network.reparameterized": False, "network.inject": None,
        "optimizer.name": optimizer,
        "optimizer.momentum": momentum,
    }  # fmt: skip
    return PaperSetting(words, f"permuted_mnist/{study}", "permuted", values, 10)


def _transformer(words: str, study: str, reparameterized: bool) -> PaperSetting:
    values = {"network.reparameterized": reparameterized}
    return PaperSetting(words, f"incremental_cifar100/{study}", "class_incremental", values, 2)


SETTINGS: Mapping[str, PaperSetting] = {
    "small": _permuted("small network", "small", 10),
    "small_layer_norm": _permuted("small network, layer norm", "small_layer_norm", 10, "after"),
    "large": _permuted("large network", "large", 100),
    "large_layer_norm": _permuted("large network, layer norm", "large_layer_norm", 100, "after"),
    "large_momentum": _permuted("large network, momentum", "large_momentum", 100, momentum=True),
    "large_adam": _permuted("large network, Adam", "large_adam", 100, optimizer="adamw"),
    "vit": _transformer("ViT", "regular", False),
    "vit_reparameterized": _transformer("ViT, reparameterized layer norm", "reparameterized", True),
}
"""The settings by name."""

_TRANSFORMER = {"patch_size": 4, "depth": 8, "heads": 12, "width": 384, "hidden": 1536}


def setting_of(run: Mapping[str, Any], problem: str) -> str | None:
    """Which of the settings a run, by its columns, belongs to; None for any other."""
    momentum = run.get("optimizer.name") == "sgd" and bool(run.get("optimizer.momentum"))
    given = {**run, "optimizer.momentum": momentum}
    for key, setting in SETTINGS.items():
        if setting.problem == problem and all(given.get(name) == value for name, value in setting.values.items()):
            return key
    return None


def scale_of(trials: Trials) -> str:
    """How much smaller than the paper's some runs are, in words; empty where they are not."""
    measured = trials.measured
    problem: Any = measured.study.problem
    if problem.kind == "class_incremental":
        network = {name: trials.runs[f"network.{name}"][0] for name in _TRANSFORMER}
        return incremental_scale(problem, network, measured.tasks)
    images = measured.results.images.count
    return _those(
        {
            f"{measured.tasks:,} of the paper's 1,000 tasks": measured.tasks < 1000,
            f"{images:,} instead of 60,000 images a task": images != 60_000,
            f"images of {problem.data}": problem.data not in ("mnist", "mnist10k"),
            f"batches of {problem.batch_size} instead of 30": problem.batch_size != 30,
        }
    )


def incremental_scale(problem: Any, network: Mapping[str, Any], additions: int) -> str:
    """What of a class-incremental study is smaller than the paper's."""
    classes, first, step = classes_after(problem, additions), problem.first, problem.step
    return _those(
        {
            f"{additions} of the paper's 20 additions": additions < 20,
            f"{classes} instead of 100 classes": classes != 100,
            f"{first} classes at first and {step} at each addition instead of 5": (first, step) != (5, 5),
            f"images of {problem.data}": problem.data != "cifar100",
            f"{problem.train_images or 0:,} training images of a class instead of all": problem.train_images,
            f"{problem.test_images or 0:,} test images of a class instead of all": problem.test_images,
            f"{problem.validation} instead of 50 validation images of a class": problem.validation != 50,
            f"{problem.epochs} instead of 100 epochs an addition": problem.epochs != 100,
            **{
                f"{setting_words(name)} {number(network[name])} instead of {size}": network[name] != size
                for name, size in _TRANSFORMER.items()
            },
            f"batches of {problem.batch_size} instead of 90": problem.batch_size != 90,
        }
    )


def _those(differs: Mapping[str, Any]) -> str:
    return ", ".join(text for text, true in differs.items() if true)
