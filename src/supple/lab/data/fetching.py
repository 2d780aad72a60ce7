"""Finding the files of a data set in a local folder or the cache.

A file is known by the SHA-256 of its uncompressed content, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from supple.lab.data.downloading import download
from supple.lab.data.formats import read_content, read_members
from supple.lab.data.sources import DATA_SETS, DataSet, data_set

CACHE_VARIABLE = "SUPPLE_DATA"
"""The environment variable that says where the cache is."""


_OWN = 16
"""How many times as large as those of a data set files of one's own in its form may be."""


@dataclass(frozen=True)
class Found:
    """A file of a data set: where it lies, plain, compressed or in an archive, and its uncompressed content.

    It is verified where the content is that of the data set.
    """

    path: Path
    content: bytes
    verified: bool


@dataclass(frozen=True)
class FileState:
    """Whether a file of a data set is there (else its path is None), and has the content of the data set."""

    file: str
    path: Path | None
    verified: bool


@dataclass(frozen=True)
class DataSetState:
    """Whether the files of a data set are there, in a folder that was looked into."""

    source: DataSet
    folder: Path
    files: tuple[FileState, ...]

    @property
    def present(self) -> bool:
        """Whether every file is there."""
        return all(file.path is not None for file in self.files)

    @property
    def verified(self) -> bool:
        """Whether every file is there and has the content of the data set."""
        return all(file.verified for file in self.files)


def cache_folder() -> Path:
    """The folder that holds a subfolder of downloaded files for each data set.

    It is the value of the environment variable SUPPLE_DATA; where that is not set or empty, the system's folder for
    caches, which pooch knows.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the cache of data sets needs pooch: run pip install ".[lab]" in a clone of supple. Without it, give the '
            "folder of the files with --data-dir (data_dir= in Python)"
        ) from error
    return Path(pooch.os_cache("supple"))


def check_own_files(data_dir: str | os.PathLike[str] | None, verify: bool) -> None:
    """Raises a ValueError unless only files of the user's own are taken unverified."""
    if data_dir is None and not verify:
        raise ValueError(
            "verify=False (--no-verify) is for files of your own: give their folder with data_dir (--data-dir), or "
            "leave it out"
        )


def obtain(source: DataSet, file: str, data_dir: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Found:
    """Gets one file of a data set, from a local folder or from the cache and the network.

    A folder holds the files, compressed or not, or the archive with them, in itself or in a subfolder named after the
    data set; it is only read. What is downloaded is always verified. FileNotFoundError, ValueError (another file, or a
    damaged one) and ConnectionError say what to do.
    """
    check_own_files(data_dir, verify)
    if data_dir is None:
        return _cached(source, file)
    folder = _given_folder(data_dir)
    found = _find(source, file, folder, verify)
    if found is None:
        places = ", ".join(dict.fromkeys(str(path.parent) for path in _candidates(source, file, folder)))
        names = " nor ".join(_names(source, file))
        raise FileNotFoundError(
            f"{source.title}: neither {names} is in any of {places}. Put it into one of them, give "
            "another folder with --data-dir (data_dir= in Python), or leave the option out and download the "
            f"data set: supple data fetch {source.name}"
        )
    if verify and not found.verified:
        raise ValueError(
            f"{found.path} is not {source.title}'s {file}: the SHA-256 of its content is "
            f"{hashlib.sha256(found.content).hexdigest()}, not {source.digests[file]}. Give another folder with "
            "--data-dir (data_dir= in Python), or, if it is data of your own, take it as it is with --no-verify "
            "(verify=False)"
        )
    return found


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None, *, verify: bool = True) -> dict[str, Path]:
    """Where each file of a data set lies, by its name without ".gz"; those missing are downloaded, as by `obtain`."""
    source = data_set(name)
    return {file: obtain(source, file, data_dir, verify=verify).path for file in source.digests}


def state(name: str, data_dir: str | os.PathLike[str] | None = None) -> DataSetState:
    """Whether a data set is there, in a folder or the cache; all content is read, and nothing downloaded."""
    source = data_set(name)
    folder = cache_folder() if data_dir is None else _given_folder(data_dir)
    return DataSetState(source, folder, tuple(_file_state(source, file, folder) for file in source.digests))


def states(data_dir: str | os.PathLike[str] | None = None) -> list[DataSetState]:
    """The state of each data set that can be fetched."""
    return [state(name, data_dir) for name in DATA_SETS]


def _file_state(source: DataSet, file: str, folder: Path) -> FileState:
    try:
        found = _find(source, file, folder)
    except ValueError:
        return FileState(file, next(filter(Path.is_file, _candidates(source, file, folder))), False)
    return FileState(file, None, False) if found is None else FileState(file, found.path, found.verified)


def _given_folder(data_dir: str | os.PathLike[str]) -> Path:
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give another with --data-dir (data_dir= in Python), or leave the option out "
            "for the cache of data sets"
        )
    return folder


def _names(source: DataSet, file: str) -> tuple[str, ...]:
    """What a file, or the archive that holds it, may be called."""
    return (file, f"{file}.gz", *([source.archive.name] if source.archive else []))


def _candidates(source: DataSet, file: str, folder: Path) -> list[Path]:
    """Where a file may lie in a folder, the likeliest place first.

    The folders of the data set come before the folder itself, because files of other data sets have the same names.
    """
    unpacked = [f"{source.name}/{source.archive.folder}"] if source.archive else []
    places = [folder / name for name in (*unpacked, source.name, *source.folders)] + [folder, folder / "raw"]
    return [place / name for place in places for name in _names(source, file)]


def _find(source: DataSet, file: str, folder: Path, verify: bool = True) -> Found | None:
    """Looks for a file in a folder: the first with the right content, else, and without ``verify``, the first of all.

    A ValueError says that a compressed file is damaged or cut short.
    """
    first, times = None, 1 if verify else _OWN
    for path in filter(Path.is_file, _candidates(source, file, folder)):
        if source.archive is not None and path.name == source.archive.name:
            member = f"{source.archive.folder}/{file}"
            content = read_members(path, [member], times * source.whole)[member]
        else:
            # Files of one's own are as large as they like, where their header says how large.
            content = read_content(path, times * source.largest if verify or source.archive else None)
        found = Found(path, content, hashlib.sha256(content).hexdigest() == source.digests[file])
        if found.verified or not verify:
            return found
        first = first or found
    return first


def _cached(source: DataSet, file: str) -> Found:
    """A file in the cache, downloaded where it is missing, not right or damaged."""
    cache = cache_folder()
    try:
        found = _find(source, file, cache)
    except ValueError:
        found = None
    if found is not None and found.verified:
        return found
    path = download(source, file, cache / source.name)
    return Found(path, read_content(path), verified=True)
