"""The examples in the docstrings give what they say, and arguments and results are described."""

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

import supple
from supple.lab.nn import StackedMLP

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


SOURCE = Path(supple.__file__).parent
INSIDE = [SOURCE / "structure" / name for name in ("tracing", "sequential.py", "goodness.py", "inference.py")]
"""What nothing but ``supple.units`` and ``supple.initial_distributions`` calls."""
INSIDE += [SOURCE / "methods" / name for name in ("arguments.py", "features.py", "twin.py")]
BRIEF = [SOURCE / "lab", SOURCE / "integrations", *INSIDE]
"""There a sentence or two will do; what a trainer calls is described by the trainer."""
FILES = sorted(path for path in SOURCE.rglob("*.py") if not any(map(path.is_relative_to, BRIEF)))


def public_functions(body):
    """Functions, and methods of classes, whose names have no underscore in front."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def exempt(function):
    """Properties read like attributes, everybody knows forward, and rules are described where they are called."""
    names = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in function.decorator_list}
    return (
        function.name == "forward"
        or function.name.split("_")[0] in ("rule", "watch", "rest", "usual", "gradient", "keep")
        or bool(names & {"property", "cached_property", "command", "callback"})
    )


def undescribed(function):
    """The sections that a function's docstring lacks.

    A function without parameters may say what it gives in its first line, as a property does.
    """
    text = ast.get_docstring(function) or ""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    if not [one for one in every if one is not None and one.arg not in ("self", "cls")]:
        return []
    gives = function.returns is not None and ast.unparse(function.returns) != "None"
    described = "Returns:" in text or "Yields:" in text
    return ["Args:"] * ("Args:" not in text) + ["Returns:"] * (gives and not described)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arguments_and_results_are_described(path):
    functions = public_functions(ast.parse(path.read_text(encoding="utf-8")).body)
    lacking = {f"{f.name}, line {f.lineno}": undescribed(f) for f in functions if not exempt(f)}
    assert {name: sections for name, sections in lacking.items() if sections} == {}


def test_what_is_not_described_is_noticed():
    functions = ast.parse(
        "def none(): ...\n"
        "def both(x) -> int: ...\n"
        "def result(x) -> int:\n    '''Args:'''\n"
        "def nothing(*, x) -> None:\n    '''Args:'''\n"
        "def _private(x) -> int: ...\n"
        "class Public:\n    def method(self, *x): ...\n"
        "class _Private:\n    def method(self, x): ...\n"
    )
    assert [undescribed(function) for function in public_functions(functions.body)] == [
        [],
        ["Args:", "Returns:"],
        ["Returns:"],
        [],
        ["Args:"],
    ]
