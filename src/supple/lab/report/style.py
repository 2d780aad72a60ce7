"""One label and one colour for each method, and the two themes, used by every figure, table and page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodStyle:
    """How a method is shown.

    Args:
        label: what people call it.
        name: its name in full.
        colour: on a light background.
        dark: on a dark background.
        dash: the line, as matplotlib's ``linestyle``.
        marker: of single points, as matplotlib's ``marker``.
    """

    label: str
    name: str
    colour: str
    dark: str
    dash: Any = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Theme:
    """Colours of everything that is no method.

    Args:
        name: "light" or "dark"; also which of a method's colours is used.
        background: of a page and a figure.
        ink: text.
        muted: text of second rank, ticks and axes.
        grid: lines in the background.
    """

    name: str
    background: str
    ink: str
    muted: str
    grid: str

    def colour(self, method: str) -> str:
        """The colour of a method in this theme.

        Args:
            method: a key of :data:`STYLES`.

        Returns:
            The colour, as "#rrggbb".

        Raises:
            ValueError: if the method has no style.
        """
        return self.of(method_style(method))

    def of(self, style: MethodStyle) -> str:
        """The colour of a style in this theme.

        Args:
            style: the style.

        Returns:
            The colour, as "#rrggbb".
        """
        return style.dark if self.name == "dark" else style.colour


LIGHT = Theme("light", background="#ffffff", ink="#1a1d21", muted="#5b6470", grid="#e4e7eb")
DARK = Theme("dark", background="#14171a", ink="#e8eaed", muted="#9aa3ad", grid="#2b3036")

# The colours of Okabe and Ito, which people with any common form of colour blindness tell apart. Methods that are
# related have related colours: shrink and perturb is L2 with noise.
STYLES: dict[str, MethodStyle] = {
    "base": MethodStyle("base", "plain training", "#5f6670", "#aab2bc", dash=(0, (4, 1.6))),
    "l2": MethodStyle("L2", "weight decay", "#56b4e9", "#7cc7f2"),
    "shrink_and_perturb": MethodStyle("S&P", "shrink and perturb", "#0072b2", "#3d9fdb"),
    "cbp": MethodStyle("CBP", "continual backpropagation", "#009e73", "#22bd92"),
    "redo": MethodStyle("ReDo", "recycling dormant neurons", "#cc79a7", "#dc93bb"),
    "swr": MethodStyle("SWR", "selective weight reinitialization", "#d55e00", "#f07f2a"),
    # Not quite black: matplotlib leaves black out of SVG files, so that no theme could take its place.
    "reset": MethodStyle(
        "scratch", "drawn again at each addition of classes", "#111111", "#fafafa", dash=(0, (1.2, 1.2))
    ),
}
"""The methods by name. Source of the colours: Okabe and Ito, "Color universal design", 2008."""


def method_style(method: str) -> MethodStyle:
    """How a method is shown.

    Args:
        method: a key of :data:`STYLES`.

    Returns:
        Its style.

    Raises:
        ValueError: if it has none.
    """
    if method not in STYLES:
        raise ValueError(f"method {method!r} has no style; add it to STYLES beside {list(STYLES)}")
    return STYLES[method]
