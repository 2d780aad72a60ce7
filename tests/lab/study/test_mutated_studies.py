"""Study files changed at random: a clear error, or a study that can be planned."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from mutations import mutate, mutate_value

from supple.lab.study import shipped
from supple.lab.study.errors import StudyError
from supple.lab.study.spec import from_dict, read

STUDIES = ("permuted_mnist/small", "permuted_mnist/sweeps/large", "incremental_cifar100/regular")
PARTS = [pytest.param(30, id="30"), pytest.param(500, marks=pytest.mark.slow, id="500")]


@pytest.mark.parametrize("count", PARTS)
def test_files_with_other_bytes(tmp_path: Path, count: int) -> None:
    for seed in range(count):
        rng, path = random.Random(seed), tmp_path / f"{seed}.toml"
        path.write_bytes(shipped.find(rng.choice(STUDIES))[0].read_bytes())
        mutate(rng, [path])
        try:
            study = read(path)
        except (StudyError, OSError) as error:
            assert_named(str(error), str(path))
        else:
            assert len(study.columns) >= 1


@pytest.mark.parametrize("count", PARTS)
def test_values_of_other_types_and_sizes(count: int) -> None:
    contents = [read(shipped.find(name)[0]).model_dump(mode="json") for name in STUDIES]
    for seed in range(count):
        rng = random.Random(seed)
        content: dict[str, Any] = mutate_value(rng, copy.deepcopy(rng.choice(contents)))
        try:
            study = from_dict(content, "study.toml")
        except StudyError as error:
            assert_named(str(error), "study.toml")
        else:
            assert len(study.columns) >= 1


def assert_named(message: str, name: str) -> None:
    assert name in message
    assert len(message) < 3000


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5_000,
        "a = " + "{b = " * 5_000,
        "a = 1" + "0" * 5_000,
        "[methods.base]\n" + "a." * 2_000 + "b = 1",
        "[methods.base]\na = " + "[" * 300 + "1" + "]" * 300,
    ],
)
def test_files_that_no_parser_takes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"study.toml"):
        read(path)
