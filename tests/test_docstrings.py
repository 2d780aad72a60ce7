"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import supple
from supple.nn import StackedMLP

MODULES = ["supple", *(module.name for module in pkgutil.walk_packages(supple.__path__, "supple."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    if name.endswith("__main__"):
        pytest.skip("running it is what it does")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("supple"):
            raise
        pytest.skip(f"needs {error.name}")
    torch.manual_seed(0)
    result = doctest.testmod(module, extraglobs={"supple": supple, "torch": torch, "StackedMLP": StackedMLP})
    assert result.failed == 0


def test_examples_are_found():
    """The methods, at least, have an example each."""
    finder = doctest.DocTestFinder()
    for method in (supple.SWR, supple.CBP, supple.ReDo, supple.L2, supple.ShrinkAndPerturb, supple.chain, supple.units):
        assert any(test.examples for test in finder.find(method)), method
