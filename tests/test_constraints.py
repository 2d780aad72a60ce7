"""The pinned versions against what the package asks for."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LINES = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]


def pins(python):
    """What is pinned for a Python, by name; each once."""
    valid = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    assert len({canonicalize_name(pin.name) for pin in valid}) == len(valid)
    return {canonicalize_name(pin.name): pin for pin in valid}


def needed(name, extras, found):
    """Adds the packages that a package needs, and those that they need, each with the extras it is wanted with."""
    for text in metadata.requires(name) or []:
        wanted = Requirement(text)
        marker = wanted.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            other = canonicalize_name(wanted.name)
            # What torch needs for a GPU it pins itself.
            # One package may be wanted plain and with an extra (fsspec, fsspec[http]), which needs more.
            asked = (other, *sorted(wanted.extras))
            if asked not in found and not re.match("nvidia-|cuda-|triton", other):
                found.add(asked)
                needed(other, wanted.extras, found)
    return found


def test_all_that_is_needed_is_pinned_and_nothing_else():
    here = pins(f"{sys.version_info[0]}.{sys.version_info[1]}")
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    if not all(pin.specifier.contains(installed[name]) for name, pin in here.items() if name in installed):
        pytest.skip("other versions than the pinned ones are installed, which may need other packages")
    assert set(here) == {name for name, *_ in needed("supple", {"lab", "dev"}, set())}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_has_a_version_of_every_package(python):
    extra = {"async-timeout", "exceptiongroup", "six", "tomli"} if python == "3.10" else set()
    missing = {"orjson"} if python == "3.13" else set()
    assert set(pins(python)) - extra | missing == set(pins("3.11"))
    assert all(len(list(pin.specifier)) == 1 and str(pin.specifier).startswith("==") for pin in pins(python).values())
    assert str(pins(python)["torch"].specifier) == "==2.13.0"
