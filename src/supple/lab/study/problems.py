"""The problems that a study can have, by name, with their images."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from supple.lab import data
from supple.lab.data import DATA_SETS, LabelledImages
from supple.lab.population.problem import Curve, Problem
from supple.lab.study.class_incremental import ClassIncrementalProblem
from supple.lab.study.curve import CurveProblem
from supple.lab.study.errors import StudyError
from supple.lab.study.own import OwnProblem
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
        return _own(study, given, {"data_dir": data_dir, "verify": verify}, **runtime)
    problem: Any = study.problem
    kind = PROBLEMS[problem.kind]
    images = [data.load(problem.data, data_dir, train=part == "train", verify=verify) for part in kind.sets]
    return kind(study, *images, **runtime)


def noise_problem(
    study: Study, data_dir: str | PathLike[str] | None = None, verify: bool = True, **runtime: Any
) -> StudyProblem:
    """The problem of a study, with noise in place of images, for measuring what it takes.

    One of one's own is made with the data that it has.
    """
    if isinstance(study, OwnStudy):
        return open_problem(study, data_dir, verify, **runtime)
    problem: Any = study.problem
    kind = PROBLEMS[problem.kind]
    return kind(study, *(_noise(problem.data, part == "test") for part in kind.sets), **runtime)


def _own(study: OwnStudy, given: Any, files: Mapping[str, Any], **runtime: Any) -> StudyProblem:
    """The problem of a study: what was given, or what the factory makes that the study names.

    ``files``, where its data are, is told to a factory that asks for it. StudyError if it cannot be made.
    """
    kind = study.problem.kind
    if given is None:
        module, colon, name = kind.partition(":")
        if not colon:
            raise StudyError(
                "its problem was given in a call of supple.lab.compare; call that again to go on, or name a factory "
                'in a file: problem = "package.module:factory"'
            )
        try:
            factory = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise StudyError(f"problem {kind!r} cannot be imported: {error}") from error
        try:
            asked = inspect.signature(factory).parameters
            more = {name: value for name, value in files.items() if name in asked}
            given = factory(**{**more, **study.problem.arguments})
        except TypeError as error:
            raise StudyError(f"problem {kind!r} cannot be made: {error}") from error
    if callable(given):
        try:
            given = Curve(given)
        except TypeError as error:
            raise StudyError(f"problem: {error}; if it makes a problem, give what it makes") from error
    if isinstance(given, Curve):
        return CurveProblem(study, given, **runtime)
    if not isinstance(given, Problem):
        raise StudyError(
            f"problem {kind!r} is {type(given).__name__}; it has to be a supple.lab.Problem, or of training that goes "
            "by itself a supple.lab.Curve"
        )
    return OwnProblem(study, given, **runtime)


def _noise(name: str, test: bool) -> LabelledImages:
    """Noise of the number, size and classes of a data set's images."""
    source = DATA_SETS["mnist" if name == "mnist10k" else name]
    count = 10_000 if name == "mnist10k" else source.counts[test]
    shape = source.shape if source.shape[0] > 1 else source.shape[1:]
    pixels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return LabelledImages(pixels, torch.arange(count) % source.classes, source.classes, name)
