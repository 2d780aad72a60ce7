"""Names and texts of others, such as those in a folder of results, made harmless wherever they are shown.

What is markup in one form only is escaped where that is written: tables as Markdown, LaTeX and CSV in
:mod:`supple.lab.report.tables`, the page by its template; figures read no markup.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from rich.text import Text

_JOINERS = "\u200c\u200d"
"""What joins and parts letters and emoji, without which some languages cannot be written."""

_HIDDEN = {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
"""Categories of characters that cannot be seen, or change how others are shown: control characters, writing from right
to left by command, halves of characters, and what is no character."""


def visible(text: str, keep: str = "") -> str:
    """Text with each character that cannot be seen, or changes how others are shown, as Python writes it.

    Those in ``keep``, such as line breaks, stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if unicodedata.category(character) not in _HIDDEN or character in _JOINERS + keep
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def short(text: str, length: int = 40) -> str:
    """Visible text of at most so many characters."""
    seen = visible(text)
    return seen if len(seen) <= length else f"{seen[: length - 1]}…"


def shown(text: object, style: str = "") -> Text:
    """Text for a terminal, in which nothing is markup and nothing moves the cursor but line breaks."""
    return Text(visible(str(text), keep="\n"), style)


def file_name(name: str, taken: Collection[str] = (), otherwise: str = "unnamed") -> str:
    """A name for files and anchors, of a few small letters, digits and hyphens, that is not taken yet."""
    plain = re.sub(r"[^a-z0-9]+", "-", name[:1000].lower()).strip("-")[:80].strip("-") or otherwise
    found, k = plain, 2
    while found in taken:
        found, k = f"{plain}-{k}", k + 1
    return found
