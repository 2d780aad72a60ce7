"""Hidden units found by tracing: in models of many kinds, against descriptions written by hand and by what they do."""

import re
from pathlib import Path

import pytest
import torch
from traced_checks import (
    assert_accounted,
    assert_found,
    assert_methods_take_steps,
    assert_replacing_silences,
    assert_untouched,
    everything,
)
from traced_models import CASES

import supple


def make(name):
    torch.manual_seed(0)
    return CASES[name].make()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CASES)
def test_which_units_are_found_and_which_are_left_out(name):
    case, model = CASES[name], make(name)
    before = everything(model)
    found = supple.units(model, case.example)
    assert_untouched(model, before)
    assert_found(found, case.groups, case.excluded)
    assert_accounted(model, found)
    # In evaluation mode other operations run, but the units are the same.
    assert supple.units(model.eval(), case.example).groups == found.groups


@pytest.mark.parametrize("name", CASES)
def test_replacing_a_unit_silences_it_and_nothing_else(name):
    model = make(name)
    assert_replacing_silences(model, CASES[name].example, supple.units(model, CASES[name].example))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", CASES)
def test_unit_methods_take_steps(name):
    model = make(name)
    assert_methods_take_steps(model, CASES[name].example, supple.units(model, CASES[name].example))


def test_the_documentation_shows_what_is_found():
    text = (Path(__file__).parents[2] / "docs" / "usage.md").read_text()
    blocks = re.findall(r"```python\n(class .*?)```", text, flags=re.DOTALL)
    names = {"torch": torch, "supple": supple}
    *_, shown, by_hand = (exec(block, names) or dict(names) for block in blocks)
    assert f"```\n{shown['units']}\n```" in text
    assert supple.units(by_hand["model"], torch.zeros(1, 4)).groups == (by_hand["torso"],)
