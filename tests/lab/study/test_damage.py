"""Folders of results in which something is damaged, missing or of another run: named, never believed, trained again."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from cli_runs import run as command
from cli_runs import words
from mutations import mutate
from small_studies import study

from supple.lab.study import files, load, running
from supple.lab.study.files import DIGESTS, Damaged
from supple.lab.study.manifest import open_manifest
from supple.lab.study.progress import Watcher
from supple.lab.study.results import CHECKPOINT, DISTURBANCES, MANIFEST, RUNS, TASKS, Results
from supple.lab.study.run_config import RunConfig

PART = (TASKS, DISTURBANCES, CHECKPOINT)


def config(folder: Path, tasks: int = 2, seeds: int = 1) -> RunConfig:
    """Two parts, since networks of another size are trained in a part of their own."""
    methods = {"base": {"network": {"hidden": 6}}, "swr": {"frequency": 5, "factor": 0.05}}
    problem, measure = {"data": "mnist10k", "batch_size": 1000}, {"examples": 40, "disturbances": 1}
    tiny = study(methods, problem=problem, measure=measure, run={"tasks": tasks, "seeds": seeds})
    return RunConfig(tiny, "tiny", folder, processes=1, command="supple run tiny.toml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, thread_workers: None) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "tiny"
    assert running.run(config(folder)).complete
    return folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, thread_workers: None) -> Path:
    """The same study with one task more."""
    folder = tmp_path_factory.mktemp("longer") / "tiny"
    assert running.run(config(folder, 3)).complete
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def without_digests(folder: Path) -> None:
    """Makes a folder one of an earlier version."""
    for place in (folder, *(folder / "parts").iterdir()):
        (place / DIGESTS).unlink()


def part_files(folder: Path) -> dict[str, bytes]:
    """Tables, checkpoints and digests of all parts."""
    places = sorted((folder / "parts").iterdir())
    return {f"{place.name}/{name}": (place / name).read_bytes() for place in places for name in (*PART, DIGESTS)}


def same(one: Results, other: Results) -> bool:
    return all(getattr(one, name).equals(getattr(other, name)) for name in ("runs", "tasks", "disturbances"))


class Said(Watcher):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def say(self, message: str) -> None:
        self.messages.append(message)


def flip(path: Path, place: float = 0.5) -> None:
    """Changes one bit."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.one_in(9)
@pytest.mark.parametrize("name", ["lr[1]", "lr*", "lr?", "~", "lr=1", "{lr1,lr2}", "lr%31", "**", "[!x]*"])
def test_no_name_of_a_folder_is_a_pattern(
    folder: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Each would find the neighbour, or the home directory, if it were one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "lr1"))
    shutil.copytree(longer, tmp_path / "lr1")
    shutil.copytree(folder, tmp_path / name)
    assert same(load(Path(name)), load(folder))
    without_digests(tmp_path / name)
    assert same(load(Path(name)), load(folder))
    assert running.run(config(Path(name), 3)).complete
    assert same(load(Path(name)), load(longer))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("name", [TASKS, DISTURBANCES])
def test_a_table_that_is_missing_is_not_done(folder: Path, copy: Path, name: str, earlier: bool) -> None:
    if earlier:
        without_digests(copy)
    path = copy / "parts" / "0001" / name
    path.unlink()
    with pytest.raises(Damaged, match=f"0001/{name} is missing; supple run trains .* delete .*0001"):
        load(copy)
    assert f"{name} is missing" in words(command("report", copy))
    said = Said()
    assert running.run(config(copy), said).complete
    assert said.messages == [f"{path} is missing; the runs of its part are trained again from the first task"]
    assert same(load(copy), load(folder))


@pytest.mark.one_in(9)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("name", PART)
def test_a_flipped_bit_is_noticed_and_its_part_trained_again(longer: Path, copy: Path, name: str, place: float) -> None:
    path = copy / "parts" / "0000" / name
    other = (copy / "parts" / "0001" / TASKS).stat().st_mtime_ns
    flip(path, place)
    if name != CHECKPOINT:
        with pytest.raises(Damaged, match=f"0000/{name} is damaged .*SHA-256"):
            load(copy)
    said = Said()
    assert running.run(config(copy), said).complete
    assert len(said.messages) == 1
    assert f"{path} is damaged" in said.messages[0]
    assert (copy / "parts" / "0001" / TASKS).stat().st_mtime_ns == other
    assert running.run(config(copy, 3)).complete
    assert part_files(copy) == part_files(longer)


def test_results_stay_where_only_the_checkpoint_is_damaged(folder: Path, longer: Path, copy: Path) -> None:
    """They are whole; it is more tasks that need it."""
    flip(copy / "parts" / "0000" / CHECKPOINT)
    before = (copy / "parts" / "0000" / TASKS).stat().st_mtime_ns
    said = Said()
    assert running.run(config(copy), said).complete
    assert "the results of its part are whole, and stay" in said.messages[0]
    assert (copy / "parts" / "0000" / TASKS).stat().st_mtime_ns == before
    assert same(load(copy), load(folder))
    assert running.run(config(copy, 3)).complete
    assert part_files(copy) == part_files(longer)


def test_a_zeroed_checkpoint_does_not_go_on(longer: Path, copy: Path) -> None:
    path = copy / "parts" / "0000" / CHECKPOINT
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
    said = Said()
    assert running.run(config(copy, 3), said).complete
    assert said.messages == [
        f"{path} is damaged (its SHA-256 is not the one in {DIGESTS}); the runs of its part are trained again from the "
        "first task"
    ]
    assert part_files(copy) == part_files(longer)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", PART)
@pytest.mark.parametrize("source", ["another part", "another time"])
def test_files_of_another_part_or_time_are_noticed(
    folder: Path, longer: Path, tmp_path: Path, name: str, source: str
) -> None:
    copy = Path(shutil.copytree(longer, tmp_path / "copy"))
    old = folder / "parts" / "0001" if source == "another time" else copy / "parts" / "0000"
    shutil.copy(old / name, copy / "parts" / "0001" / name)
    if name != CHECKPOINT:
        with pytest.raises(Damaged, match=f"0001/{name} is damaged"):
            load(copy)
    said = Said()
    assert running.run(config(copy, 3), said).complete
    assert len(said.messages) == 1
    assert same(load(copy), load(longer))


def test_folders_of_earlier_versions_have_no_digests(folder: Path, longer: Path, copy: Path) -> None:
    without_digests(copy)
    assert same(load(copy), load(folder))
    assert running.run(config(copy)).complete
    assert part_files_without_digests(copy) == part_files_without_digests(folder)
    assert running.run(config(copy, 3)).complete
    assert part_files(copy) == part_files(longer)


def part_files_without_digests(folder: Path) -> dict[str, bytes]:
    places = sorted((folder / "parts").iterdir())
    return {f"{place.name}/{name}": (place / name).read_bytes() for place in places for name in PART}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("removed", range(5))
def test_killed_while_a_damaged_part_is_taken_away(
    folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    """What is left after each removal never counts as results."""
    one = open_manifest(copy).part(0)
    flip(one.folder / DISTURBANCES)
    real, count = Path.unlink, itertools.count()

    def crash(path: Path, missing_ok: bool = False) -> None:
        if path.parent == one.folder and next(count) == removed:
            raise KeyboardInterrupt
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", crash)
    try:
        one._discard()
    except KeyboardInterrupt:
        assert removed < 4
    monkeypatch.undo()
    with suppress(Damaged):
        assert not one.complete(1)
    assert running.run(config(copy)).complete
    assert same(load(copy), load(folder))


@pytest.mark.parametrize("name", [MANIFEST, RUNS, DIGESTS])
def test_damage_beside_the_parts(folder: Path, copy: Path, name: str) -> None:
    flip(copy / name)
    with pytest.raises(Damaged):
        load(copy)
    assert command("report", copy).exit_code == 1
    if name == RUNS:
        assert running.run(config(copy)).complete
        assert same(load(copy), load(folder))
    else:
        with pytest.raises(Damaged, match="put it back from a copy"):
            running.run(config(copy))


@pytest.mark.parametrize("earlier", [False, True])
def test_parts_without_a_manifest_are_not_those_of_the_next_study(copy: Path, earlier: bool) -> None:
    """Their tables are of other runs, though of the same number."""
    if earlier:
        without_digests(copy)
    (copy / MANIFEST).unlink()
    for use in (load, lambda folder: running.run(config(folder))):
        with pytest.raises(Damaged, match=f"{MANIFEST} is missing; put it back from a copy"):
            use(copy)


def test_killed_before_the_first_manifest(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = files.replace, itertools.count()

    def crash(path: Path, data: bytes) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(files, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        running.run(config(tmp_path / "new"))
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="holds no results"):
        load(tmp_path / "new")
    assert running.run(config(tmp_path / "new")).complete
    assert same(load(tmp_path / "new"), load(folder))


@pytest.mark.parametrize("name", [MANIFEST, DIGESTS, f"parts/0001/{TASKS}", f"parts/0001/{CHECKPOINT}"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes among files here")
def test_what_is_no_file_is_never_waited_for(copy: Path, name: str, kind: str) -> None:
    """A pipe that nobody writes into, or a device without an end, would be read for ever."""
    path = copy / name
    path.unlink()
    {"folder": path.mkdir, "pipe": partial(os.mkfifo, path), "device": partial(path.symlink_to, "/dev/zero")}[kind]()
    for use in (load, lambda folder: running.run(config(folder))):
        with pytest.raises(OSError, match=f"cannot read .*{name}: it is no file; let it be read, or put it back"):
            use(copy)


@pytest.mark.parametrize("name", [DIGESTS, f"parts/0001/{TASKS}"])
def test_a_file_that_memory_does_not_hold_is_named(copy: Path, name: str) -> None:
    os.truncate(copy / name, 2**42)
    with pytest.raises(MemoryError, match=f"{name}, of 4,398.0 GB, does not fit into memory; put it back"):
        load(copy)
    assert f"{Path(name).name}, of 4,398.0 GB, does not fit" in words(command("report", copy))


@pytest.mark.parametrize("name", PART[:2])
def test_rows_of_other_runs_are_noticed_without_digests(folder: Path, copy: Path, name: str) -> None:
    without_digests(copy)
    shutil.copy(copy / "parts" / "0001" / name, copy / "parts" / "0000" / name)
    with pytest.raises(Damaged, match=f"0000/{name} is damaged .it has rows of other runs.; supple run trains"):
        load(copy)
    assert running.run(config(copy)).complete
    assert same(load(copy), load(folder))


def test_a_row_without_a_task_is_noticed_without_digests(longer: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(longer, tmp_path / "copy"))
    without_digests(copy)
    path = copy / "parts" / "0000" / TASKS
    table = pl.read_parquet(path)
    table.with_columns(pl.when(pl.col("task") != 1).then("task").alias("task")).write_parquet(path)
    with pytest.raises(Damaged, match=f"0000/{TASKS} is damaged .not every run has each task once."):
        load(copy)


def test_a_manifest_that_was_changed_on_purpose(copy: Path) -> None:
    text = (copy / MANIFEST).read_text().replace('"tiny"', '"renamed"')
    (copy / MANIFEST).write_text(text)
    with pytest.raises(Damaged, match=f"if it was changed on purpose, delete .*{DIGESTS}"):
        load(copy)
    (copy / DIGESTS).unlink()
    assert load(copy).name == "renamed"


def test_a_reader_while_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each write of a save, and if another save comes between the digests and the file."""
    old, new = {"a": b"1", "b": b"1"}, {"a": b"2", "b": b"2"}
    files.write(tmp_path, old)
    real, seen = files.replace, []

    def look(path: Path, data: bytes) -> None:
        seen.append((files.content(tmp_path / "a"), files.content(tmp_path / "b")))
        real(path, data)

    monkeypatch.setattr(files, "replace", look)
    files.write(tmp_path, new)
    assert seen == [(b"1", b"1"), (b"1", b"1"), (b"2", b"1"), (b"2", b"2")]
    monkeypatch.undo()
    first = [files.digests(tmp_path)]
    files.write(tmp_path, {"a": b"3", "b": b"3"})
    known = files.digests
    monkeypatch.setattr(files, "digests", lambda folder: first.pop() if first else known(folder))
    assert files.content(tmp_path / "a") == b"3"


def mutated(whole: Path, folder: Path, seed: int, earlier: bool) -> str:
    """A copy in which one file was changed at random, and what was changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if earlier:
        without_digests(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".claim-"))
    return f"seed {seed}: {mutate(random.Random(seed), paths)}"


@pytest.mark.parametrize("seed", [0, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("earlier", [False, True])
def test_random_damage_is_an_error_or_changes_nothing(folder: Path, tmp_path: Path, seed: int, earlier: bool) -> None:
    """With digests; without them it is an error, or cannot be seen."""
    whole = load(folder)
    for number in range(seed, seed + (500 if seed else 30)):
        what = mutated(folder, tmp_path / "copy", number, earlier)
        try:
            found = load(tmp_path / "copy")
        except (OSError, ValueError) as error:
            named = str(tmp_path / "copy") in str(error)
        else:
            named = earlier or (same(found, whole) and found.study == whole.study and found.steps == whole.steps)
        assert named, what


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("earlier", [False, True])
def test_random_damage_in_commands(folder: Path, tmp_path: Path, earlier: bool) -> None:
    """No command shows a traceback, and where a run says that it is complete, the numbers are right."""
    whole, copy = load(folder), tmp_path / "copy"
    for number in range(2000, 2060):
        what = mutated(folder, copy, number, earlier)
        result = command("report", copy, "--formats", "csv")
        assert result.exit_code == 0 or (result.exit_code == 1 and "Error: " in words(result)), what
        assert isinstance(result.exception, SystemExit | None), what
        said = Said()
        try:
            complete = running.run(config(copy), said).complete
        except (OSError, ValueError) as error:
            right = str(copy) in str(error)
        else:
            right = complete and (earlier or same(load(copy), whole))
        assert right, what
