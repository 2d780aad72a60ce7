"""Styles of what a study calls its own: variants of a method, networks, settings.

A variant has a colour near that of its method, and a dash and a marker of its own, so that it can be told from its
neighbours without colours too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from types import MappingProxyType
from typing import Any

from supple.lab.report.style import DARK, LIGHT, STYLES, MethodStyle

_COLOURS: Mapping[str, Sequence[str]] = {
    "l2": ("#2c7fb8", "#41a0c9", "#1f5f99", "#7a9fc9", "#3f6fae"),
    "shrink_and_perturb": ("#4a7ebb", "#08519c", "#6a8fd0", "#123f73", "#2f6f9f"),
    "cbp": ("#00664b", "#4d9221", "#2aa198", "#7a9a01", "#1b7837"),
    "redo": ("#882255", "#aa4499", "#9970ab", "#c2528b", "#5e3c99"),
    "reset": ("#e69f00", "#332288", "#8c510a", "#8fa8c8", "#a50f5a"),
    "swr": ("#a3330c", "#d99000", "#8a5a00", "#e8743b", "#6e2c00", "#b8860b", "#c4463a"),
    # Networks trained plainly, and methods that are not among the above: Tol's muted colours without the palest.
    "": ("#332288", "#44aa99", "#999933", "#cc6677", "#117733", "#882255", "#aa4499", "#4f9fc4"),
}
"""Colours of variants by the kind of method, on a light background. Source of the last: Tol, SRON/EPS/TN/09-002."""

_DASHES: Sequence[Any] = ((0, (6, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1.2)), "-")
_MARKERS = "sD^vPX<>"

_WORDS = {
    "gelu": "GELU", "silu": "SiLU", "relu": "ReLU", "crelu": "CReLU", "elu": "ELU", "l2": "L2", "sgd": "SGD",
    "adamw": "AdamW", "adam": "Adam", "swr": "SWR", "cbp": "CBP", "redo": "ReDo", "mlp": "MLP", "vit": "ViT",
}  # fmt: skip


def row_styles(rows: Mapping[str, str], labels: Mapping[str, str] = MappingProxyType({})) -> dict[str, MethodStyle]:
    """Styles of the rows of some studies.

    Rows that bear a method's own name have its style; the others are numbered within their kind, in the order given.

    Args:
        rows: for each name that a study gives a method, the kind of method.
        labels: what rows are called that are variants although they may bear a method's own name.

    Returns:
        For each name its style.
    """
    styles, taken = {}, dict.fromkeys(STYLES, 0)
    for name, kind in rows.items():
        if name in STYLES and name == kind and name not in labels:
            styles[name] = STYLES[name]
            continue
        family = kind if kind in _COLOURS else ""
        place = taken[family] = taken.get(family, 0) + 1
        styles[name] = _variant(labels.get(name, name), kind, family, place - 1)
    return styles


def shades(style: MethodStyle, count: int) -> list[MethodStyle]:
    """Styles for the values of a setting, in the order of the values: from far from the background to near it.

    Args:
        style: the method's.
        count: how many.

    Returns:
        The styles, without labels.
    """
    light = mix(style.colour, "#000000", 0.55), _toward(style.colour, "#ffffff", 0.6, LIGHT.background)
    dark = mix(style.dark, "#ffffff", 0.65), _toward(style.dark, "#000000", 0.6, DARK.background)
    shares = [k / max(1, count - 1) for k in range(count)]
    markers = islice(cycle("o" + _MARKERS), count)
    return [
        MethodStyle("", style.name, mix(*light, share), mix(*dark, share), "-", marker)
        for share, marker in zip(shares, markers, strict=True)
    ]


def colour_pairs(styles: Sequence[MethodStyle]) -> dict[str, str]:
    """For each colour of the light theme the one that takes its place in the dark theme.

    Args:
        styles: what else is drawn.

    Returns:
        Pairs of colours, as "#rrggbb".
    """
    roles = ("background", "ink", "muted", "grid")
    pairs = {getattr(LIGHT, role): getattr(DARK, role) for role in roles}
    return {**pairs, **{style.colour: style.dark for style in styles}}


def mix(colour: str, other: str, share: float) -> str:
    """A colour between two.

    Args:
        colour: as "#rrggbb".
        other: as "#rrggbb".
        share: of the other, 0 to 1.

    Returns:
        The colour, as "#rrggbb".
    """
    parts = zip(_parts(colour), _parts(other), strict=True)
    return "#" + "".join(f"{round((1 - share) * one + share * two):02x}" for one, two in parts)


def words(name: str) -> str:
    """A name in a study as people write it: "leaky_relu" is "leaky ReLU".

    Args:
        name: the name.

    Returns:
        The words.
    """
    return " ".join(_WORDS.get(part, part) for part in name.replace("-", "_").split("_") if part)


def _variant(name: str, kind: str, family: str, place: int) -> MethodStyle:
    colours = _COLOURS[family]
    colour = colours[place % len(colours)]
    # With as many dashes as would fit the colours a pair would come back too soon; so one is left out where they meet.
    dash = next(islice(cycle(_DASHES), place + place // len(colours), None))
    whole = STYLES[kind].name if kind in STYLES else words(kind)
    return MethodStyle(words(name), whole, colour, _lighter(colour), dash, _MARKERS[place % len(_MARKERS)])


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance.

    Args:
        colour: as "#rrggbb".

    Returns:
        0 for black, 1 for white.

    Source: WCAG 2.2.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in _parts(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _lighter(colour: str, least: float = 5.0) -> str:
    """The colour with as much white as makes it stand out from the dark background."""
    shares = (k / 20 for k in range(20))
    return next(
        c for c in (mix(colour, "#ffffff", share) for share in shares) if _contrast(c, DARK.background) >= least
    )


def _toward(colour: str, other: str, share: float, background: str, least: float = 2.0) -> str:
    """The colour with a share of another, or with as much of it as leaves it visible on the background."""
    steps = (mix(colour, other, share * k / 20) for k in range(20, -1, -1))
    return next((c for c in steps if _contrast(c, background) >= least), colour)
