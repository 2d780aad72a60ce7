"""How methods are shown: one label, colour, dash and marker each, and the two themes of every figure, table and page.

A method of the package or of somebody else states its label and colours in its class, as ``about``. Variants of a
method and networks that are trained plainly get a colour that is told from all others, near that of their method where
it has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np

from supple.lab.report.statistics import Array
from supple.lab.report.texts import words
from supple.methods import registry


@dataclass(frozen=True)
class Style:
    """How a method is shown: its colour on a light and on a dark background, as "#rrggbb"; dashes of its lines and the
    marker of its points, as matplotlib has them.
    """

    label: str
    title: str
    colour: str
    dark: str
    dash: Any = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is no method."""

    name: str
    background: str
    ink: str
    muted: str
    grid: str

    def of(self, style: Style) -> str:
        """The colour of a style in this theme."""
        return style.dark if self.name == "dark" else style.colour


LIGHT = Theme("light", background="#ffffff", ink="#1a1d21", muted="#5b6470", grid="#e4e7eb")
DARK = Theme("dark", background="#14171a", ink="#e8eaed", muted="#9aa3ad", grid="#2b3036")

BASELINES: Mapping[str, Style] = {
    "base": Style("base", "plain training", "#5f6670", "#aab2bc", dash=(0, (4, 1.6))),
    # Not quite black: matplotlib leaves black out of SVG files, so that no theme could take its place.
    "reset": Style("scratch", "drawn again at each addition of classes", "#111111", "#fafafa", dash=(0, (1.2, 1.2))),
}
"""What studies compare methods with and is no method itself."""

_DASHES: Sequence[Any] = ((0, (6, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1.2)), "-")
_MARKERS = "sD^vPX<>o"


def own_style(kind: str) -> Style | None:
    """The style of a baseline, of a method of the package or of one named "package.module:Class"; None of others."""
    if kind in BASELINES:
        return BASELINES[kind]
    try:
        about = registry.find(kind).about
    except ValueError:
        return None
    number = [*registry.METHODS].index(about.name) if about.name in registry.METHODS else 0
    dash = ("-", *_DASHES)[number // len(_MARKERS)]
    return Style(about.label, about.title, about.colour, about.dark, dash, _MARKERS[number % len(_MARKERS)])


def label_of(kind: str) -> str:
    """What people call a kind of method."""
    style = own_style(kind)
    return words(kind) if style is None else style.label


def styles_of(kinds: Mapping[str, str], labels: Mapping[str, str] = MappingProxyType({})) -> dict[str, Style]:
    """Styles of what some studies compare, all different, by the names that the studies give it.

    What bears a method's own name has the method's style, and so has the first of a kind that a study can not call by
    its own name; others are variants. ``labels`` are those of variants that bear a method's own name nevertheless.
    """
    styles: dict[str, Style] = {}
    for name, kind in kinds.items():
        own = own_style(kind)
        if own is not None and (name == kind or ":" in kind) and name not in labels and own not in styles.values():
            styles[name] = own
    # A variant keeps off the colours of all methods, whether they are shown or not, so that reports agree.
    known = [*BASELINES.values(), *filter(None, map(own_style, registry.METHODS)), *styles.values()]
    colours, numbers = [style.colour for style in known], dict.fromkeys(kinds.values(), 0)
    for name, kind in kinds.items():
        if name not in styles:
            own = own_style(kind)
            styles[name] = _variant(labels.get(name, name), kind, own, numbers[kind], colours)
            numbers[kind] += 1
            colours.append(styles[name].colour)
    return {name: styles[name] for name in kinds}


def _variant(name: str, kind: str, own: Style | None, number: int, taken: Sequence[str]) -> Style:
    hue = None if own is None or kind in BASELINES else _lch(own.colour)[2]
    colour = _farthest(taken, hue)
    # As many dashes as markers would pair them in the same way again and again; so one is left out each time around.
    dash = _DASHES[(number + number // len(_MARKERS)) % len(_DASHES)]
    title = words(kind) if own is None else own.title
    return Style(words(name), title, colour, _lightened(colour), dash, _MARKERS[number % len(_MARKERS)])


def shades(style: Style, count: int) -> list[Style]:
    """Styles for the values of a setting, in the order of the values: from far from the background to near it."""
    if count == 1:
        return [style]
    _, chroma, hue = _lch(style.colour)
    found = []
    for k in range(count):
        share = k / (count - 1)
        light, dark = (_hex(level, chroma, hue) for level in (0.28 + 0.46 * share, 0.94 - 0.46 * share))
        found.append(replace(style, label="", colour=light, dark=dark, dash="-", marker=("o" + _MARKERS)[k % 9]))
    return found


def colour_pairs(styles: Iterable[Style]) -> dict[str, str]:
    """For each colour of the light theme the one that takes its place in the dark theme."""
    roles = ("background", "ink", "muted", "grid")
    pairs = {getattr(LIGHT, role): getattr(DARK, role) for role in roles}
    return pairs | {style.colour: style.dark for style in styles}


def luminance(colour: str) -> float:
    """Relative luminance of a colour: 0 for black, 1 for white (WCAG 2.2)."""
    return float(np.dot((0.2126, 0.7152, 0.0722), _linear(colour)))


def contrast(one: str, other: str) -> float:
    """How well two colours are told apart as text and background, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


_HUE = 0.7
"""How far the hue of a variant may be from that of its method, in radians."""


def _farthest(taken: Sequence[str], hue: float | None) -> str:
    """The colour, near a hue if one is given, that differs most from all that are taken."""
    candidates, places = _candidates(hue)
    distances = np.linalg.norm(places[:, None] - np.array([_lab(colour) for colour in taken]), axis=2)
    return candidates[int(distances.min(axis=1).argmax())]


@cache
def _candidates(hue: float | None) -> tuple[list[str], Array]:
    """Colours, and where they lie among all."""
    hues = [k * math.tau / 24 for k in range(24)] if hue is None else [hue + _HUE * k / 6 for k in range(-6, 7)]
    found = [_hex(*lch) for lch in product((0.36, 0.44, 0.52, 0.6, 0.66, 0.72), (0.07, 0.11, 0.15, 0.19), hues)]
    return found, np.array([_lab(colour) for colour in found])


def _lightened(colour: str, least: float = 5.0) -> str:
    """The colour as light as makes it stand out from the dark background."""
    lightness, chroma, hue = _lch(colour)
    steps = (_hex(lightness + (0.97 - lightness) * k / 40, chroma, hue) for k in range(41))
    return next(one for one in steps if contrast(one, DARK.background) >= least)


# OKLab, in which equal distances look equal: from amounts of light to those that the three kinds of cones see, and from
# their cube roots to lightness, green to red and blue to yellow.
# Source: Ottosson, "A perceptual color space for image processing", 2020.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _lab(colour: str) -> Array:
    return np.asarray(_LAB @ np.cbrt(_CONES @ _linear(colour)))


def _lch(colour: str) -> tuple[float, float, float]:
    """Lightness, chroma and hue."""
    lightness, a, b = map(float, _lab(colour))
    return lightness, math.hypot(a, b), math.atan2(b, a)


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """The colour, with less chroma where a screen does not show so much of it."""
    for share in np.linspace(1, 0, 11):
        lab = np.array([lightness, share * chroma * math.cos(hue), share * chroma * math.sin(hue)])
        light = np.linalg.solve(_CONES, np.linalg.solve(_LAB, lab) ** 3)
        if (np.abs(light - 0.5) <= 0.5001).all():
            break
    light = light.clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * part):02x}" for part in encoded)


def _linear(colour: str) -> Array:
    """Red, green and blue as amounts of light."""
    parts = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
