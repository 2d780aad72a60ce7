"""Which runs a folder has, in which parts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from small_studies import STRONG, study

from supple.lab.study.manifest import Manifest

METHODS = list(STRONG)


def runs(manifest: Manifest) -> dict[int, tuple[int, str]]:
    """Seed and method of each run, as its parts say."""
    found: dict[int, tuple[int, str]] = {}
    for number in range(len(manifest.parts)):
        part = manifest.part(number)
        pairs = [(seed, column.method) for seed in part.seeds for column in part.columns]
        assert not set(found) & set(part.runs)
        found |= dict(zip(part.runs, pairs, strict=True))
    return found


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
            st.lists(st.integers(0, 4), min_size=1, unique=True),
            st.integers(1, 12),
        ),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_every_run_once_whatever_is_added_and_halved(
    additions: list[tuple[list[str], list[int], int]], data: st.DataObject
) -> None:
    whole = study()
    manifest = Manifest(Path(), "tiny", whole, 12, {}, {})
    wanted: set[tuple[int, str]] = set()
    for methods, seeds, size in additions:
        before = runs(manifest)
        columns = [column for column in whole.columns if column.method in methods]
        manifest.add_missing(columns, seeds, lambda column, seeds, columns, size=size: size)
        wanted |= {(seed, method) for seed in seeds for method in methods}
        found = runs(manifest)
        assert {run: found[run] for run in before} == before
        assert sorted(found) == list(range(len(wanted)))
        assert set(found.values()) == wanted
        assert all(manifest.part(number).size <= size for number in range(len(manifest.parts)) if not before)
    found = runs(manifest)
    for _ in range(3):
        large = [number for number in range(len(manifest.parts)) if manifest.part(number).size > 1]
        if large:
            number = data.draw(st.sampled_from(large))
            size, other = manifest.part(number).size, manifest.halve(number)
            assert manifest.part(number).size + manifest.part(other).size == size
            assert min(manifest.part(number).size, manifest.part(other).size) > 0
            assert runs(manifest) == found
