"""The figure: what is drawn, what is written, and that it can be read."""

import io
from itertools import pairwise

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.report.drawing import NARROW, WIDE, to_png, to_svg
from supple.lab.report.figures import accuracy_over_tasks
from supple.lab.report.labels import spread
from supple.lab.report.style import DARK, LIGHT, STYLES, method_style


def curves(tasks=60, seeds=3):
    rng = np.random.default_rng(0)
    return {method: 0.7 + 0.1 * rng.random((tasks, seeds)) for method in STYLES}


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_line_and_a_label_for_each_method(theme):
    drawn = curves()
    axes = accuracy_over_tasks(drawn, "title", theme, width=20).axes[0]
    lines = {line.get_color(): line.get_ydata() for line in axes.lines if line.get_linewidth() == 2}
    for method, curve in drawn.items():
        expected = [curve[start : start + 20].mean() for start in (0, 20, 40)]
        np.testing.assert_allclose(lines[theme.colour(method)], expected)
    assert {text.get_text() for text in axes.texts} == {style.label for style in STYLES.values()}


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_texts_lie_inside_the_figure_and_do_not_overlap_where_lines_end_together(size):
    drawn = dict.fromkeys(STYLES, np.linspace(0.5, 0.8, 40).reshape(-1, 1) + np.array([0, 0.01]))
    figure = accuracy_over_tasks(drawn, "Accuracy on permuted MNIST", size=size)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(below.y1 <= above.y0 for below, above in pairwise(sorted(boxes, key=lambda box: box.y0)))
    boxes += [text.get_window_extent() for text in figure.texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


@pytest.mark.parametrize(("tasks", "seeds", "words"), [(60, 3, "3 tasks, 3 seeds"), (20, 1, "one task, one seed")])
def test_the_figure_says_how_it_was_binned(tasks, seeds, words):
    figure = accuracy_over_tasks(curves(tasks, seeds), "title")
    assert any(words in text.get_text() for text in figure.texts)


def test_images():
    figure = accuracy_over_tasks(curves(), "title")
    pixels = matplotlib.image.imread(io.BytesIO(to_png(figure)))
    assert pixels.shape == (960, 1600, 4)
    seen = {tuple(colour) for colour in np.round(255 * pixels[::2, ::2, :3].reshape(-1, 3)).astype(int)}
    for style in STYLES.values():
        assert tuple(round(255 * part) for part in matplotlib.colors.to_rgb(style.colour)) in seen
    svg = to_svg(figure)
    assert svg == to_svg(accuracy_over_tasks(curves(), "title"))
    assert b"<svg" in svg
    with pytest.raises(ValueError, match="no curves"):
        accuracy_over_tasks({}, "title")
    with pytest.raises(ValueError, match="'mine' has no style"):
        accuracy_over_tasks({"mine": np.ones((3, 1))}, "title")


@given(st.lists(st.floats(-100, 100), max_size=8), st.floats(0.1, 20))
def test_spread_keeps_order_and_distance_and_moves_no_more_than_needed(positions, gap):
    placed = spread(positions, gap)
    order = sorted(range(len(positions)), key=positions.__getitem__)
    for first, second in pairwise(order):
        assert placed[second] - placed[first] >= gap * (1 - 1e-9) - 1e-9
    assert sum(placed) == pytest.approx(sum(positions), abs=1e-6)
    if all(positions[b] - positions[a] >= gap for a, b in pairwise(order)):
        assert placed == positions


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_and_colours_told_apart():
    for theme in (LIGHT, DARK):
        assert contrast(theme.ink, theme.background) >= 7
        assert contrast(theme.muted, theme.background) >= 4.5
        assert all(contrast(theme.colour(method), theme.background) >= 2 for method in STYLES)
        assert len({theme.colour(method) for method in STYLES}) == len(STYLES)
    with pytest.raises(ValueError, match="'adam' has no style"):
        method_style("adam")
