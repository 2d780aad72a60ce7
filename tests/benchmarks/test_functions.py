"""benchmarks/functions.py counts what a due step passes through."""

import functions
import pytest
import torch

from supple.functional import random


@pytest.mark.parametrize("name", functions.METHODS)
def test_a_due_step_passes_through_the_file_of_its_method(name):
    found = functions.due_step(name)
    assert len(set(found)) > 1
    assert f"methods/{name.lower()}.py" in {file for file, _ in found}
    assert all((functions.SOURCE / file).is_file() for file, _ in found)


def test_what_is_called_counts_once():
    assert functions.passed_through(lambda: None) == []
    twice = functions.passed_through(lambda: [random.normal_quantile(torch.rand(2)) for _ in range(2)])
    assert ("functional/random.py", "normal_quantile") in twice
    assert len([name for _, name in twice if name == "normal_quantile"]) == 1
