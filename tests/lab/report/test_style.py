"""Styles: one for each method, all different, that can be seen in both themes."""

import sys
from itertools import pairwise

import pytest
from compared import view_of
from fake_results import Row, write

from supple.lab.report.comparison import settings_text
from supple.lab.report.page import make_report
from supple.lab.report.style import (
    BASELINES,
    DARK,
    LIGHT,
    colour_pairs,
    contrast,
    luminance,
    own_style,
    shades,
    styles_of,
)
from supple.lab.study.results import load
from supple.methods.registry import METHODS

KINDS = [*BASELINES, *METHODS]


@pytest.mark.parametrize("kind", METHODS)
def test_a_method_is_shown_as_it_says(kind):
    about, style = METHODS[kind].about, styles_of({kind: kind})[kind]
    assert (style.label, style.title, style.colour, style.dark) == (
        about.label, about.title, about.colour, about.dark
    )  # fmt: skip


@pytest.mark.slow
def test_variants_are_told_from_all_others():
    kinds = {f"{kind}_{k}": kind for kind in [*KINDS, "new"] for k in range(14)} | {kind: kind for kind in KINDS}
    styles = styles_of(kinds)
    assert styles == styles_of(dict(kinds))
    looks = [(style.colour, str(style.dash), style.marker) for style in styles.values()]
    assert len(set(looks)) == len(looks)
    for style in styles.values():
        assert contrast(style.colour, LIGHT.background) >= 1.99
        assert contrast(style.dark, DARK.background) >= 2
    assert all(styles[f"{kind}_{k}"].colour != styles[kind].colour for kind in KINDS for k in range(14))
    assert styles["swr_3"].label == "SWR 3"
    assert styles["swr_3"].title == METHODS["swr"].about.title


MINE = """
import supple
from supple.methods.settings import About


class Mine(supple.L2):
    about = About("mine", "MINE", "a method of mine", "#102030", "#a0b0c0", ("l2",), "nowhere")
"""


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    rows = [Row("base"), Row("first", kind="my_methods:Mine"), Row("second", kind="my_methods:Mine")]
    view = view_of(write(tmp_path / "one", rows, tasks=10, seeds=2))
    styles = {line.name: line.style for line in view.lines}
    assert (styles["first"].label, styles["first"].title, styles["first"].colour) == (
        "MINE", "a method of mine", "#102030"
    )  # fmt: skip
    assert styles["second"].label == "second"
    assert styles["second"].title == "a method of mine"
    assert len({style.colour for style in styles.values()}) == 3
    assert settings_text(view.lines[1].settings) == ""
    # Results can be looked at where the method is not.
    monkeypatch.undo()
    sys.modules.pop("my_methods")
    assert own_style("my_methods:Mine") is None
    assert make_report([load(tmp_path / "one")]).styles["first"].label == "first"


def test_nothing_is_imported_out_of_the_results(tmp_path, monkeypatch):
    """Neither from the folder itself, nor from a package that it lies in, nor what Python brings along."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    payload = "from pathlib import Path\nPath('ran').write_text('')\n"
    for place, kind in (("one", "one.payload:X"), ("two", "two.parts.payload:X"), ("three", "antigravity:X")):
        folder = write(tmp_path / place / "results", [Row("base"), Row("mine", kind=kind)], tasks=4, seeds=2)
        (tmp_path / place / "payload.py").write_text(payload)
        (tmp_path / place / "__init__.py").write_text(payload)
        (tmp_path / place / "parts").mkdir()
        (tmp_path / place / "parts" / "payload.py").write_text(payload)
        assert "mine" in make_report([load(folder)]).styles
        assert not (tmp_path / "ran").exists()
        assert "antigravity" not in sys.modules


@pytest.mark.parametrize("kind", KINDS)
def test_shades_are_visible_and_in_order(kind):
    style = own_style(kind)
    for theme in (LIGHT, DARK):
        colours = [theme.of(shade) for shade in shades(style, 7)]
        assert all(contrast(colour, theme.background) >= 1.9 for colour in colours)
        lights = [luminance(colour) for colour in colours]
        assert all((a < b) if theme is LIGHT else (a > b) for a, b in pairwise(lights))
    assert shades(style, 1) == [style]


def test_text_can_be_read():
    for theme in (LIGHT, DARK):
        assert contrast(theme.ink, theme.background) >= 7
        assert contrast(theme.muted, theme.background) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colour_pairs([BASELINES["base"]])[LIGHT.ink] == DARK.ink
