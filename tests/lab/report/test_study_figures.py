"""Figures of studies: what is drawn, and that it can be read in both sizes and themes."""

import io
import re
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
from fake_results import Row, write
from figure_texts import texts_of, texts_outside

from supple.lab.report.correlates import correlates, drawn_panels
from supple.lab.report.dots import Panel, dots
from supple.lab.report.drawing import NARROW, WIDE, number, spans_decades, to_pdf, to_png, to_svg, to_themed_svg
from supple.lab.report.drawn import row_groups, section_figures, sweep_of
from supple.lab.report.figures import binned_accuracy
from supple.lab.report.measured import measure
from supple.lab.report.section import make_section
from supple.lab.report.sensitivity import sensitivity
from supple.lab.report.statistics import Interval
from supple.lab.report.style import DARK, LIGHT, STYLES
from supple.lab.report.variants import colour_pairs, luminance, mix, row_styles, shades, words
from supple.lab.study.results import load

ROWS = {"base": "base", "tanh": "base", "swr": "swr", "swr_gradient_mean": "swr", "cbp_activation": "cbp"}
CENTRES = np.arange(5.5, 1000, 10)


def curves(names, scale=1.0):
    rng = np.random.default_rng(0)
    return {name: scale * (0.7 + 0.1 * rng.random((100, 4))) for name in names}


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_styles_of_rows():
    styles = row_styles(ROWS)
    assert styles["swr"] is STYLES["swr"]
    assert styles == row_styles(dict(ROWS))
    assert styles["swr_gradient_mean"].label == "SWR gradient mean"
    assert words("leaky_relu") == "leaky ReLU"
    many = {f"{kind}_{k}": kind for kind in [*STYLES, "new"] for k in range(14)}
    found = row_styles({**many, **{kind: kind for kind in STYLES}})
    looks = [(style.colour, str(style.dash), style.marker) for style in found.values()]
    assert len(set(looks)) == len(looks)
    for style in found.values():
        assert contrast(style.colour, LIGHT.background) >= 2
        assert contrast(style.dark, DARK.background) >= 2
    # A method of its own kind is told from its variants by its line alone.
    assert all(found[f"{kind}_{k}"].colour != STYLES[kind].colour for kind in STYLES for k in range(14))


@pytest.mark.parametrize("kind", list(STYLES))
def test_shades_are_visible_and_in_order(kind):
    for theme in (LIGHT, DARK):
        colours = [theme.of(style) for style in shades(STYLES[kind], 7)]
        assert all(contrast(colour, theme.background) >= 1.9 for colour in colours)
        lights = [luminance(colour) for colour in colours]
        assert all((a < b) if theme is LIGHT else (a > b) for a, b in pairwise(lights))


def test_mix_and_number():
    assert mix("#000000", "#ffffff", 0.5) == "#808080"
    values = (2048, 1e-6, 5e-4, 0.05, 0, "gradient", True, 2_000_000, None)
    assert [number(value) for value in values] == [
        "2048",
        "1e-6",
        "5e-4",
        "0.05",
        "0",
        "gradient",
        "True",
        "2e6",
        "None",
    ]
    assert spans_decades(np.array([1.0, 30.0, 0.0, np.nan]))
    assert not spans_decades(np.array([1.0, 3.0]))


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_accuracy(size, theme):
    styles = row_styles(ROWS)
    drawn = curves(ROWS)
    drawn["tanh"][50:, 0] = np.nan
    figure = binned_accuracy(CENTRES, drawn, styles, "Accuracy over tasks", ["One", "two"], theme, size)
    assert texts_outside(figure) == []
    lines = {line.get_color(): line for line in figure.axes[0].lines if line.get_linewidth() == 2}
    for name, curve in drawn.items():
        line = lines[theme.of(styles[name])]
        np.testing.assert_allclose(line.get_ydata(), np.nanmean(curve, axis=1))
    shown = {text.get_text() for text in texts_of(figure)}
    assert {style.label for style in styles.values()} <= shown


def test_a_wide_band_does_not_flatten_the_lines():
    drawn = curves(["base", "redo"])
    drawn["redo"][50:, 0] = 0.1
    styles = row_styles({"base": "base", "redo": "redo"})
    axes = binned_accuracy(CENTRES, drawn, styles, "", []).axes[0]
    bottom, top = axes.get_ylim()
    means = [np.mean(curve, axis=1) for curve in drawn.values()]
    assert top - bottom <= 3.2 * np.ptp(means)
    assert bottom <= np.min(means)
    assert np.max(means) <= top


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_correlates(size):
    styles = row_styles(ROWS)
    drawn = {
        "dead": curves(ROWS),
        "rank": curves(ROWS, 100),
        "scale_magnitude": {name: np.full((100, 4), np.nan) for name in ROWS},
        "gradient_magnitude": curves(ROWS, 1e-3),
        "reinitialized": {name: np.zeros((100, 4)) for name in ROWS},
    }
    assert drawn_panels(drawn) == ["dead", "rank", "gradient_magnitude"]
    drawn["reinitialized"]["swr"] += np.geomspace(1, 1000, 100)[:, None]
    assert drawn_panels(drawn) == ["dead", "rank", "gradient_magnitude", "reinitialized"]
    figure = correlates(CENTRES, drawn, styles, "What goes along", ["One", "two"], LIGHT, size)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert shown[0].get_title(loc="left") == "dead units"
    assert [axes.get_yscale() for axes in shown] == ["linear", "linear", "linear", "log"]
    assert texts_outside(figure) == []
    with pytest.raises(ValueError, match="nothing to draw"):
        correlates(CENTRES, {"rank": {"base": np.full((100, 4), np.nan)}}, styles, "", [])


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_dots(size):
    styles = row_styles(ROWS)
    values = {name: Interval(0.1 * k + 0.1, 0.1 * k + 0.05, 0.1 * k + 0.15) for k, name in enumerate(ROWS)}
    del values["tanh"]
    figure = dots(
        [Panel("loss", values), Panel("std", values, logarithmic=True)], styles, "Title", ["One"], LIGHT, size
    )
    assert texts_outside(figure) == []
    for axes in figure.axes:
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert [line.get_xdata()[0] for line in points] == [interval.mean for interval in values.values()]
        # From the top: the first row is the highest.
        places = [axes.transData.transform((0.1, line.get_ydata()[0]))[1] for line in points]
        assert places == sorted(places, reverse=True)


def section_of(tmp_path, rows, **options):
    measured = measure(load(write(tmp_path / "one", rows, **{"tasks": 20, "seeds": 3, **options})))
    kinds = dict(measured.results.runs.select("method", "kind").iter_rows())
    return make_section(measured, row_styles(kinds), "one")


GRID = [
    (
        {"frequency": f, "factor": g, "optimizer.step_size": s},
        -0.01 * abs(a - 1) - 0.02 * abs(b - 1) - 0.05 * (s == 0.1),
    )
    for a, f in enumerate((512, 1024, 2048))
    for b, g in enumerate((1e-6, 1e-5, 1e-4, 1e-3))
    for s in (0.05, 0.1)
]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_sweep(tmp_path, size):
    section = section_of(tmp_path, [Row("base", 0.9, 0.8), Row("swr", 0.9, 0.9, grid=GRID)])
    row = section.rows[1]
    sweep = sweep_of(row)
    assert sweep.names == ("factor", "frequency")
    assert sweep.fixed == {"step size": 0.05}
    assert sweep.best == (1, 1)
    for i, factor in enumerate((1e-6, 1e-5, 1e-4, 1e-3)):
        for j, frequency in enumerate((512, 1024, 2048)):
            point = {"frequency": frequency, "factor": factor, "optimizer.step_size": 0.05}
            np.testing.assert_array_equal(sweep.late[i, j], row.late[row.points.index(point)])
    figure = sensitivity(sweep, row.style, (STYLES["base"], 0.8), "Title", ["One"], LIGHT, size)
    assert texts_outside(figure) == []
    curve, heat = figure.axes
    drawn = [line.get_ydata() for line in curve.lines if len(line.get_ydata()) == 4]
    np.testing.assert_allclose(drawn, sweep.late.mean(axis=2).T)
    cells = [text.get_text() for text in heat.texts]
    assert cells[:4] == [f"{100 * value:.1f}" for value in sweep.late.mean(axis=2)[:, 0]]
    assert sum(text.get_weight() == "bold" for text in heat.texts) == 1


def test_which_figures_there_are(tmp_path):
    rows = [Row("base", 0.9, 0.8), Row("swr", 0.9, 0.9, grid=GRID[:2], disturbance=0.1), Row("cbp", 0.9, 0.9)]
    keys = [drawn.key for drawn in section_figures(section_of(tmp_path, rows))]
    assert keys == ["one-accuracy", "one-correlates", "one-disturbances", "one-sweep-swr"]


def test_many_methods_are_spread_over_figures(tmp_path):
    rows = [Row("base", 0.9, 0.8), Row("swr", 0.9, 0.9), Row("cbp", 0.9, 0.9)]
    rows += [Row(f"swr_{k}", 0.9, 0.9, kind="swr") for k in range(12)]
    rows += [Row("tanh", 0.9, 0.9, kind="base")]
    section = section_of(tmp_path, rows, seeds=2)
    groups = row_groups(section.rows)
    assert [key for key, _, _ in groups] == ["", "-base", "-swr-1", "-swr-2"]
    named = [[row.name for row in members] for _, _, members in groups]
    assert named[0] == ["base", "swr", "cbp"]
    assert named[1] == ["base", "tanh"]
    assert all(group[:2] == ["base", "swr"] and len(group) <= 9 for group in named[2:])
    assert {name for group in named for name in group} == {row.name for row in rows}
    assert next(section_figures(section)).key == "one-overview"


def test_svg_of_both_themes():
    styles = row_styles(ROWS)
    figure = binned_accuracy(CENTRES, curves(ROWS), styles, "Title", ["One"])
    pairs = colour_pairs(list(styles.values()))
    themed = to_themed_svg(figure, pairs).decode()
    rules = re.search(r"<style>svg\{(.*?)\}@media\(prefers-color-scheme:dark\)\{svg\{(.*?)\}\}</style>", themed)
    light, dark = (dict(re.findall(r"(--c\d+):(#\w+)", part)) for part in rules.groups())
    assert {light[name]: dark[name] for name in light} == pairs
    body = themed[rules.end() :]
    assert not set(re.findall(r": (#[0-9a-f]{6})\b", body)) & set(pairs)
    # With its variables put back it is the figure in the light theme, and in the dark theme the figure of that.
    other = binned_accuracy(CENTRES, curves(ROWS), styles, "Title", ["One"], DARK)
    for values, expected in ((light, figure), (dark, other)):
        colours = re.findall(r": (#[0-9a-f]{6})\b", re.sub(r"var\((--c\d+)\)", lambda m, v=values: v[m[1]], body))
        assert set(colours) == set(re.findall(r": (#[0-9a-f]{6})\b", to_svg(expected).decode()))
    assert to_themed_svg(figure, pairs) == themed.encode()


def test_other_files():
    figure = binned_accuracy(CENTRES, curves(["swr"]), row_styles({"swr": "swr"}), "Title", ["One"])
    assert to_pdf(figure).startswith(b"%PDF")
    assert matplotlib.image.imread(io.BytesIO(to_png(figure))).shape == (960, 1600, 4)
