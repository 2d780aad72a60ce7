"""Permuted images: each task has its own random order of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from supple.lab.report.view import View


class PermutedView(View):
    """A folder of permuted images; tasks are equally hard, and each shows every image once."""

    kind: ClassVar[str] = "permuted"
    problem: ClassVar[str] = (
        "permuted images: each task has its own random order of the pixels, and shows every image once"
    )
    how_to_read: ClassVar[Sequence[str]] = (
        "Each task shows the same images with the pixels in a new random order, so every task is equally hard. A "
        "network that keeps its ability to learn does as well on the last task as on the first; a line that falls is "
        "loss of plasticity.",
        *View.how_to_read,
    )
