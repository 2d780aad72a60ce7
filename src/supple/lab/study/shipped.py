"""The studies that come with supple: finding them by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from supple.lab.study.errors import StudyError

FOLDER = Path(__file__).parents[1] / "studies"
"""The studies that come with supple."""


def names() -> list[str]:
    """Names of the studies that come with supple, such as "permuted_mnist/small"."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.toml"))


def find(study: str) -> tuple[Path, str]:
    """Finds a study file by its path, or by the name of one that comes with supple; gives its path and name."""
    path = Path(study)
    if path.is_file():
        if not path.stem.strip("."):
            raise StudyError(f"{path} has no name for its results to be called by; rename it")
        inside = path.resolve().is_relative_to(FOLDER.resolve())
        place = path.resolve().relative_to(FOLDER.resolve()) if inside else Path(path.name)
        return path, place.with_suffix("").as_posix()
    name = study.removeprefix("studies/").removesuffix(".toml")
    if name in names():
        return FOLDER / f"{name}.toml", name
    # Whoever leaves the folder out means the study and not the sweeps of the same name.
    full = {one.rpartition("/")[2]: one for one in sorted(names(), key=len, reverse=True)}
    near = difflib.get_close_matches(name, [*names(), *full], n=1, cutoff=0.4)
    hint = f" Did you mean {full.get(near[0], near[0])}?" if near else ""
    raise StudyError(
        f"there is no file {study!r}, and no study of that name comes with supple.{hint} There are "
        f"{', '.join(names())}."
    )
