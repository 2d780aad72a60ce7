"""Figures: what is drawn, and that it can be read in both sizes and themes."""

import io
import math
import re

import matplotlib.image
import numpy as np
import polars as pl
import pytest
from compared import view_of
from fake_results import Row, write
from figure_texts import texts_of, texts_outside
from matplotlib.lines import Line2D

from supple.lab.report.figures import (
    Canvas,
    Panel,
    curves,
    dots,
    spans_decades,
    to_file,
    to_themed_svg,
    whole_axis,
)
from supple.lab.report.style import DARK, LIGHT, colour_pairs, shades, styles_of
from supple.lab.report.sweeps import draw_sweep, sweep_of

KINDS = {"base": "base", "tanh": "base", "swr": "swr", "swr_gradient_mean": "swr", "cbp_activation": "cbp"}
STYLES = styles_of(KINDS)
CANVASES = [Canvas(theme, narrow) for theme in (LIGHT, DARK) for narrow in (False, True)]


def frame(names, scale=1.0, seeds=4, value=lambda random, name, k: 0.7 + 0.1 * random):
    """Curves of 100 points."""
    rng = np.random.default_rng(0)
    rows = [
        (name, seed, 10 * k + 5.5, scale * value(rng.random(), name, k))
        for name in names
        for seed in range(seeds)
        for k in range(100)
    ]
    return pl.DataFrame(rows, ["line", "seed", "x", "value"], orient="row")


def drawn(canvas, *panels, reading=("One", "two"), **options):
    axis = whole_axis("task", 1, 1000)
    with matplotlib.rc_context(canvas.sheet):
        return curves(canvas, panels, STYLES, "Accuracy over tasks", reading, axis, **options)


def line_of(axes, name, theme=LIGHT):
    (line,) = (line for line in axes.lines if line.get_color() == theme.of(STYLES[name]))
    return line


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_line_for_each_method_and_a_legend(canvas):
    values = frame(KINDS)
    figure = drawn(canvas, Panel("accuracy", values, within=(0, 1)))
    assert texts_outside(figure) == []
    for name in KINDS:
        means = values.filter(line=name).group_by("x", maintain_order=True).agg(pl.mean("value"))["value"]
        np.testing.assert_allclose(line_of(figure.axes[0], name, canvas.theme).get_ydata(), means)
    shown = {text.get_text() for text in texts_of(figure)}
    assert {style.label for style in STYLES.values()} | {
        "Accuracy over tasks",
        "One\ntwo" if canvas.narrow else "One; two",
    } <= shown
    assert figure.get_size_inches()[0] == canvas.width


def test_the_legend_reads_from_the_highest_line_to_the_lowest():
    ends = {"base": 0.2, "swr": 0.9, "tanh": 0.5}
    figure = drawn(Canvas(), Panel("", frame(ends, value=lambda random, name, k: ends[name] * k / 99)))
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["SWR", "tanh", "base"]


def test_a_wide_band_does_not_flatten_the_lines():
    values = frame(["base", "swr"]).with_columns(
        value=pl.when(line="swr", seed=0)
        .then(pl.when(pl.col("x") > 500).then(0.1).otherwise("value"))
        .otherwise("value")
    )
    axes = drawn(Canvas(), Panel("", values, within=(0, 1))).axes[0]
    bottom, top = axes.get_ylim()
    means = np.concatenate([line_of(axes, name).get_ydata() for name in ("base", "swr")])
    assert top - bottom <= 3.2 * np.ptp(means)
    assert bottom <= means.min() <= means.max() <= top


@pytest.mark.parametrize("canvas", CANVASES)
def test_panels(canvas):
    growing = frame(["swr"], value=lambda random, name, k: 10 ** (3 * k / 99))
    panels = [
        Panel("dead units", frame(KINDS), bottom=0, alike="same"),
        Panel("rank", frame(KINDS, 100)),
        Panel("mean |gradient|", frame(KINDS, 1e-3), logarithmic=True),
        Panel("reinitialized", growing, logarithmic=True),
        Panel("others", frame(KINDS, 3.0), alike="same"),
    ]
    figure = drawn(canvas, *panels)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [panel.title for panel in panels]
    assert [axes.get_yscale() for axes in shown] == ["linear", "linear", "linear", "log", "linear"]
    assert shown[0].get_ylim() == shown[4].get_ylim()
    assert texts_outside(figure) == []


def test_what_is_missing_is_not_drawn():
    values = frame(["base", "swr"]).with_columns(value=pl.when(pl.col("x") < 500).then("value"))
    values = values.filter(~((pl.col("line") == "swr") & (pl.col("seed") > 0)))
    axes = drawn(Canvas(), Panel("", values)).axes[0]
    assert len(line_of(axes, "base").get_xdata()) == 50
    assert Panel("", values.with_columns(value=pl.lit(math.nan))).empty
    assert not Panel("", values).empty


@pytest.mark.parametrize("canvas", CANVASES)
def test_dots(canvas):
    rng = np.random.default_rng(0)
    rows = [(name, seed, 0.1 * k + 0.1 + 0.01 * rng.random()) for k, name in enumerate(KINDS) for seed in range(4)]
    values = pl.DataFrame(rows, ["line", "seed", "value"], orient="row").filter(pl.col("line") != "tanh")
    panels = [Panel("loss", values), Panel("std", values, logarithmic=True)]
    with matplotlib.rc_context(canvas.sheet):
        figure = dots(canvas, panels, STYLES, "Title", ["One"])
    assert texts_outside(figure) == []
    means = values.group_by("line", maintain_order=True).agg(pl.mean("value"))["value"].to_list()
    for axes in figure.axes:
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        by_place = sorted(points, key=lambda line: line.get_ydata()[0])
        assert [line.get_xdata()[0] for line in by_place] == pytest.approx(means)
        # From the top: the first row is the highest.
        assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_decades():
    assert spans_decades(pl.Series([1.0, 30.0, 0.0, math.nan, None]))
    assert not spans_decades(pl.Series([1.0, 3.0]))


GRID = [
    (
        {"frequency": f, "factor": g, "optimizer.step_size": s},
        -0.01 * abs(a - 1) - 0.02 * abs(b - 1) - 0.05 * (s == 0.1),
    )
    for a, f in enumerate((512, 1024, 2048))
    for b, g in enumerate((1e-6, 1e-5, 1e-4, 1e-3))
    for s in (0.05, 0.1)
]


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    rows = [Row("base", 0.9, 0.8), Row("swr", 0.9, 0.9, grid=GRID, disturbance=0.1), Row("cbp", 0.9, 0.9)]
    return view_of(write(tmp_path_factory.mktemp("results") / "one", rows, tasks=20, seeds=3))


@pytest.mark.parametrize("canvas", CANVASES)
def test_sweep(view, canvas):
    line = view.lines[1]
    sweep = sweep_of(line)
    assert sweep.names == ["factor", "frequency"]
    assert sweep.fixed == {"optimizer.step_size": 0.05}
    assert sweep.best == (1, 1)
    means = np.zeros((4, 3))
    for i, factor in enumerate((1e-6, 1e-5, 1e-4, 1e-3)):
        for j, frequency in enumerate((512, 1024, 2048)):
            point = {"frequency": frequency, "factor": factor, "optimizer.step_size": 0.05}
            means[i, j] = line.runs.filter(**{k: v for k, v in point.items() if "." not in k}).filter(
                pl.col("optimizer.step_size") == 0.05
            )["late"].mean()  # fmt: skip
    styles = shades(line.style, 3)
    with matplotlib.rc_context(canvas.sheet):
        figure = draw_sweep(canvas, sweep, styles, view.lines[0], "Title", ["One"], line.what)
    assert texts_outside(figure) == []
    curve, heat = figure.axes
    assert [type(one) for one in curve.lines].count(Line2D) == 5
    values = [one.get_ydata() for one in curve.lines if len(one.get_ydata()) == 4]
    np.testing.assert_allclose(values, means.T)
    cells = [text.get_text() for text in heat.texts]
    assert cells[:4] == [f"{100 * value:.1f}" for value in means[:, 0]]
    assert [text.get_weight() for text in heat.texts].count("bold") == 1


def test_which_figures_there_are(view):
    assert [figure.name for figure in view.figures()] == [
        "small-accuracy", "small-correlates", "small-disturbances", "small-sweep-swr"
    ]  # fmt: skip
    for figure in view.figures():
        assert figure.caption.endswith(".")


@pytest.mark.parametrize(
    ("tasks", "seeds", "words"), [(500, 3, "mean of 5 tasks, 3 seeds"), (20, 1, "one task, one seed")]
)
def test_the_figure_says_how_it_was_binned(tmp_path, tasks, seeds, words):
    figure = next(view_of(write(tmp_path, [Row("base")], tasks=tasks, seeds=seeds)).figures()).draw(Canvas())
    assert any(words in text.get_text() for text in texts_of(figure))


def test_svg_of_both_themes():
    styles = list(STYLES.values())
    panel = Panel("", frame(KINDS))
    light, dark = (drawn(Canvas(theme), panel) for theme in (LIGHT, DARK))
    pairs = colour_pairs(styles)
    themed = to_themed_svg(light, styles).decode()
    rules = re.search(r"<style>svg\{(.*?)\}@media\(prefers-color-scheme:dark\)\{svg\{(.*?)\}\}</style>", themed)
    found = [dict(re.findall(r"(--c\d+):(#\w+)", part)) for part in rules.groups()]
    assert {found[0][name]: found[1][name] for name in found[0]} == pairs
    body = themed[rules.end() :]
    assert not set(re.findall(r": (#[0-9a-f]{6})\b", body)) & set(pairs)
    # With its variables put back it is the figure in the light theme, and in the dark theme the figure of that.
    for values, expected in zip(found, (light, dark), strict=True):
        colours = re.findall(r": (#[0-9a-f]{6})\b", re.sub(r"var\((--c\d+)\)", lambda m, v=values: v[m[1]], body))
        assert set(colours) == set(re.findall(r": (#[0-9a-f]{6})\b", to_file(expected, "svg").decode()))
    assert to_themed_svg(drawn(Canvas(), panel), styles) == themed.encode()


def test_files():
    figure = drawn(Canvas(), Panel("", frame(["swr"])))
    assert to_file(figure, "pdf").startswith(b"%PDF")
    pixels = matplotlib.image.imread(io.BytesIO(to_file(figure, "png")))
    assert pixels.shape[1] == 1600
    seen = {tuple(colour) for colour in np.round(255 * pixels[::2, ::2, :3].reshape(-1, 3)).astype(int)}
    assert tuple(round(255 * part) for part in matplotlib.colors.to_rgb(STYLES["swr"].colour)) in seen
