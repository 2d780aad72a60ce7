"""The courses of the kinds of studies."""

from __future__ import annotations

from os import PathLike

import torch

from supple.lab import data
from supple.lab.data import DATA_SETS, LabelledImages
from supple.lab.study.course import Course
from supple.lab.study.incremental import IncrementalCourse
from supple.lab.study.permuted import PermutedCourse
from supple.lab.study.spec import IncrementalStudy, PermutedStudy, Study


def open_course(study: Study, data_dir: str | PathLike[str] | None = None, verify: bool = True) -> Course:
    """The course of a study, with its images.

    Args:
        study: the study.
        data_dir: folder with the images; None: the cache, or part of supple.
        verify: whether files in ``data_dir`` have to be those of the data set.

    Returns:
        The course.

    Raises:
        OSError: if the images cannot be read; the message says what fetches them.
        ValueError: if they are damaged or not the right ones.
    """
    name = study.problem.data
    train = data.load(name, data_dir, verify=verify)
    test = data.load(name, data_dir, train=False, verify=verify) if isinstance(study, IncrementalStudy) else None
    return _course(study, train, test)


def blank_course(study: Study) -> Course:
    """The course of a study with noise in place of its images, for measuring what it takes.

    Args:
        study: the study.

    Returns:
        The course.
    """
    test = _noise(study.problem.data, 1) if isinstance(study, IncrementalStudy) else None
    return _course(study, _noise(study.problem.data, 0), test)


def _course(study: Study, train: LabelledImages, test: LabelledImages | None) -> Course:
    if isinstance(study, IncrementalStudy):
        assert test is not None
        return IncrementalCourse(train, test, study.problem, study.measure)
    assert isinstance(study, PermutedStudy)
    return PermutedCourse(train, study.problem, study.measure)


def _noise(name: str, part: int) -> LabelledImages:
    """Noise of the number, size and classes of a data set's images for training (0) or test (1)."""
    source = DATA_SETS["mnist" if name == "mnist10k" else name]
    count = 10_000 if name == "mnist10k" else source.counts[part]
    shape = source.shape if source.shape[0] > 1 else source.shape[1:]
    pixels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return LabelledImages(pixels, torch.arange(count) % source.classes, source.classes, name)
