"""Finding the files of a data set in a local folder or the cache, and downloading those that are missing.

A file is known by the SHA-256 of its uncompressed content, wherever it comes from.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from supple.lab.data.archive import read_member
from supple.lab.data.download import download
from supple.lab.data.idx import read_content
from supple.lab.data.sources import DATA_SETS, DataSet, data_set

CACHE_VARIABLE = "SUPPLE_DATA"
"""The environment variable that says where the cache is."""


@dataclass(frozen=True)
class Found:
    """A file of a data set in a folder.

    Args:
        path: where it lies, plain or compressed, or the archive that it lies in.
        content: its uncompressed content.
        verified: whether the content is that of the data set.
    """

    path: Path
    content: bytes
    verified: bool


@dataclass(frozen=True)
class FileState:
    """Whether a file of a data set is there.

    Args:
        file: name of the file, without ".gz".
        path: where it lies; None where it is missing.
        verified: whether its content is that of the data set.
    """

    file: str
    path: Path | None
    verified: bool


@dataclass(frozen=True)
class DataSetState:
    """Whether a data set is there.

    Args:
        source: the data set.
        folder: the folder that was looked into.
        files: the state of each file.
    """

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

    Returns:
        The value of the environment variable SUPPLE_DATA; where it is not set or empty, the system's folder for caches.

    Raises:
        ModuleNotFoundError: if SUPPLE_DATA is not set and pooch is not installed.
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


def _given_folder(data_dir: str | os.PathLike[str]) -> Path:
    """A folder of the user's; an error where there is none."""
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give another with --data-dir (data_dir= in Python), or leave the option out "
            "for the cache of data sets"
        )
    return folder


def check_own_files(data_dir: str | os.PathLike[str] | None, verify: bool) -> None:
    """Checks that only files of the user's are taken unverified.

    Args:
        data_dir: a folder of the user's, or None.
        verify: whether the content of files has to be that of the data set.

    Raises:
        ValueError: if ``verify`` is off without ``data_dir``.
    """
    if data_dir is None and not verify:
        raise ValueError(
            "verify=False (--no-verify) is for files of your own: give their folder with data_dir (--data-dir), or "
            "leave it out"
        )


def _names(source: DataSet, file: str) -> tuple[str, ...]:
    """What a file, or the archive that holds it, may be called."""
    return (file, f"{file}.gz", *([source.archive.name] if source.archive else []))


def _candidates(source: DataSet, file: str, folder: Path) -> list[Path]:
    """Where a file may lie in a folder, the likeliest place first.

    The folders of the data set come before the folder itself, because files of other data sets have the same names.
    """
    places = [folder / name for name in (source.name, *source.folders)] + [folder, folder / "raw"]
    return [place / name for place in places for name in _names(source, file)]


def _read(source: DataSet, file: str, path: Path) -> bytes:
    """The uncompressed content of a file, which lies there by itself or in the archive."""
    if source.archive is not None and path.name == source.archive.name:
        return read_member(path, source.archive, file)
    return read_content(path)


def find(source: DataSet, file: str, folder: Path, verify: bool = True) -> Found | None:
    """Looks for a file of a data set in a folder.

    Args:
        source: the data set.
        file: name of the file, without ".gz"; a key of ``source.digests``.
        folder: the folder; its subfolders named after the data set are looked into too.
        verify: whether a file with the right content goes before others of its name; without it the first is taken.

    Returns:
        The file, or, where only others of its name are there, the first of those; None where none is there.

    Raises:
        ValueError: if a compressed file is damaged or cut short.
        OSError: if a file cannot be read.
    """
    first = None
    for path in filter(Path.is_file, _candidates(source, file, folder)):
        content = _read(source, file, path)
        found = Found(path, content, hashlib.sha256(content).hexdigest() == source.digests[file])
        if found.verified or not verify:
            return found
        first = first or found
    return first


def _local(source: DataSet, file: str, folder: Path, verify: bool) -> Found:
    """A file in a folder of the user's; an error where it is missing or not verified."""
    found = find(source, file, folder, verify)
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


def _cached(source: DataSet, file: str) -> Found:
    """A file in the cache, downloaded where it is missing or not right."""
    cache = cache_folder()
    try:
        found = find(source, file, cache)
    except ValueError:  # a damaged file in the cache is replaced
        found = None
    if found is not None and found.verified:
        return found
    path = download(source, file, cache / source.name)
    return Found(path, read_content(path), verified=True)


def obtain(source: DataSet, file: str, data_dir: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Found:
    """Gets one file of a data set, from a local folder or from the cache and the network.

    Args:
        source: the data set.
        file: name of the file, without ".gz"; a key of ``source.digests``.
        data_dir: a folder with the files, compressed or not, or with the archive that holds them, in itself or in a
            subfolder named after the data set. It is only read; nothing is downloaded. None: the cache, and where the
            file is missing there, a download.
        verify: whether the content of a file in ``data_dir`` has to be that of the data set. What is downloaded is
            always verified.

    Returns:
        The file.

    Raises:
        FileNotFoundError: if the file is not in ``data_dir``, or that is no folder.
        ValueError: if a file in ``data_dir`` is damaged or is another file, or ``verify`` is off without ``data_dir``.
        ConnectionError: if the file could not be downloaded; the message says how to do without.
    """
    check_own_files(data_dir, verify)
    if data_dir is None:
        return _cached(source, file)
    return _local(source, file, _given_folder(data_dir), verify)


def fetch(name: str, data_dir: str | os.PathLike[str] | None = None, *, verify: bool = True) -> dict[str, Path]:
    """Makes sure that every file of a data set is there, and downloads those that are not.

    Args:
        name: a key of :data:`supple.lab.data.sources.DATA_SETS`.
        data_dir: as for :func:`obtain`.
        verify: as for :func:`obtain`.

    Returns:
        Where each file lies, by its name without ".gz".

    Raises:
        FileNotFoundError: as :func:`obtain`.
        ValueError: as :func:`obtain`, or if no data set has that name.
        ConnectionError: as :func:`obtain`.
    """
    source = data_set(name)
    return {file: obtain(source, file, data_dir, verify=verify).path for file in source.digests}


def state(name: str, data_dir: str | os.PathLike[str] | None = None) -> DataSetState:
    """Whether a data set is there; downloads nothing.

    Args:
        name: a key of :data:`supple.lab.data.sources.DATA_SETS`.
        data_dir: the folder to look into; None: the cache.

    Returns:
        The state of its files. The whole content is read and compared with its digest.

    Raises:
        FileNotFoundError: if ``data_dir`` is no folder.
        ValueError: if no data set has that name.
    """
    source = data_set(name)
    folder = cache_folder() if data_dir is None else _given_folder(data_dir)
    return DataSetState(source, folder, tuple(_file_state(source, file, folder) for file in source.digests))


def _file_state(source: DataSet, file: str, folder: Path) -> FileState:
    try:
        found = find(source, file, folder)
    except ValueError:
        return FileState(file, next(filter(Path.is_file, _candidates(source, file, folder))), False)
    return FileState(file, None, False) if found is None else FileState(file, found.path, found.verified)


def states(data_dir: str | os.PathLike[str] | None = None) -> list[DataSetState]:
    """Which data sets are there; downloads nothing.

    Args:
        data_dir: the folder to look into; None: the cache.

    Returns:
        The state of each data set that can be fetched.

    Raises:
        FileNotFoundError: if ``data_dir`` is no folder.
    """
    return [state(name, data_dir) for name in DATA_SETS]
