"""Imports point one way: the library knows nothing of the laboratory, and needs torch and numpy only."""

import ast
from pathlib import Path

import pytest

import supple

SOURCE = Path(supple.__file__).parent
FLOORS = ["functional", "structure", "optim", "methods", "surgery", "metrics", "probing", "integrations"]
"""The rooms of the library; each imports those before it."""
LAB = ["data", "streams", "nn", "population", "study", "report", "studies", "commands"]
"""The rooms of the laboratory."""


def imported(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms(folder, prefix):
    """Which rooms of a floor the files of a room import, each with the file."""
    for path in sorted(folder.rglob("*.py")):
        for name in imported(path):
            if name.startswith(prefix) and len(name) > len(prefix):
                yield name.removeprefix(prefix).split(".")[0], path.relative_to(SOURCE)


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_of_the_library_imports_only_what_stands_below_it(room):
    allowed = FLOORS[: FLOORS.index(room) + 1]
    wrong = [(str(path), other) for other, path in rooms(SOURCE / room, "supple.") if other not in allowed]
    assert wrong == []


@pytest.mark.parametrize("room", LAB)
def test_a_room_of_the_laboratory_imports_only_what_stands_below_it(room):
    allowed = LAB[: LAB.index(room) + 1]
    found = rooms(SOURCE / "lab" / room, "supple.lab.")
    wrong = [(str(path), other) for other, path in found if other in LAB and other not in allowed]
    assert wrong == []


def test_every_room_has_its_place():
    def folders(path):
        return {one.name for one in path.iterdir() if one.is_dir() and any(one.rglob("*.py"))}

    assert folders(SOURCE) == {*FLOORS, "lab"}
    assert folders(SOURCE / "lab") == set(LAB)
