"""The problems that a study can have, by name, with their images."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from supple.lab import data
from supple.lab.data import DATA_SETS, LabelledImages
from supple.lab.study.class_incremental import ClassIncrementalProblem
from supple.lab.study.own import open_own
from supple.lab.study.permuted import PermutedProblem
from supple.lab.study.problem import StudyProblem
from supple.lab.study.spec import OwnStudy, Study

PROBLEMS: Mapping[str, type[StudyProblem]] = {"permuted": PermutedProblem, "class_incremental": ClassIncrementalProblem}


def open_problem(
    study: Study,
    data_dir: str | PathLike[str] | None = None,
    verify: bool = True,
    given: Any = None,
    **runtime: Any,
) -> StudyProblem:
    """The problem of a study with its images, from a folder, or from the cache or supple itself where that is None.

    ``given`` is the problem of a study of kind "own". OSError if the images cannot be read, ValueError if they are
    damaged or not the right ones.
    """
    if isinstance(study, OwnStudy):
        return open_own(study, given, {"data_dir": data_dir, "verify": verify}, **runtime)
    kind, name = PROBLEMS[study.problem.kind], study.problem.data
    images = [data.load(name, data_dir, train=part == "train", verify=verify) for part in kind.sets]
    return kind(study, *images, **runtime)


def noise_problem(study: Study, **runtime: Any) -> StudyProblem:
    """The problem of a study, with noise in place of images, for measuring what it takes."""
    if isinstance(study, OwnStudy):
        return open_own(study, **runtime)
    kind = PROBLEMS[study.problem.kind]
    return kind(study, *(_noise(study.problem.data, part == "test") for part in kind.sets), **runtime)


def _noise(name: str, test: bool) -> LabelledImages:
    """Noise of the number, size and classes of a data set's images."""
    source = DATA_SETS["mnist" if name == "mnist10k" else name]
    count = 10_000 if name == "mnist10k" else source.counts[test]
    shape = source.shape if source.shape[0] > 1 else source.shape[1:]
    pixels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return LabelledImages(pixels, torch.arange(count) % source.classes, source.classes, name)
