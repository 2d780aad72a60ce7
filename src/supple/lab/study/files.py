"""Files that are either the old or the new ones whatever happens, and digests of them.

``digests.json`` holds a SHA-256 for each file of its folder. What is read is compared with it, so that nobody goes on
from, or reports, what a disk or a copy has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from polars.exceptions import PanicException
from pydantic import TypeAdapter, ValidationError

from supple.lab.limits import usable_memory

DIGESTS = "digests.json"

COPY = "put it back from a copy"

_Digests = TypeAdapter(dict[str, list[str | None]])
"""For each file the digests that it may have; None: it may be missing. While it is replaced there are several."""

_LARGE = 2**30
"""Bytes of a file that may not fit into memory."""

_Parsed = TypeVar("_Parsed")


class Damaged(ValueError):
    """A file is missing, or its content is not what was written; the message names it and says what to do."""

    def __init__(self, path: Path, reason: str, remedy: str = COPY) -> None:
        super().__init__(f"{path} is {reason}; {remedy}")
        self.path, self.reason = path, reason


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replaces files of a folder, one after another, and the digests, which are of these files and no others.

    At each moment the digests are right for the old and the new of what is being replaced. OSError if a file cannot be
    written.
    """
    known, new = digests(folder), {name: _digest(data) for name, data in contents.items()}
    before = {name: [_digest_of(folder / name)] for name in new} if known is None else known
    _replace_digests(folder, {**before, **{name: [*before.get(name, [None]), new[name]] for name in new}})
    for name, data in contents.items():
        replace(folder / name, data)
    _replace_digests(folder, {name: [digest] for name, digest in new.items()})


def content(path: Path, remedy: str = COPY) -> bytes | None:
    """What a file holds, compared with its digest; None where it is not there and need not be.

    Files in a folder without digests, as earlier versions wrote them, are taken as they are. :class:`Damaged` if it is
    not what was written, OSError if it cannot be read.
    """
    while True:
        known = digests(path.parent)
        found = _bytes(path)
        if known is None or (None if found is None else _digest(found)) in known.get(path.name, [None]):
            return found
        # Another process may have replaced both of them meanwhile.
        if digests(path.parent) == known:
            reason = "missing" if found is None else f"damaged (its SHA-256 is not the one in {DIGESTS})"
            raise Damaged(path, reason, remedy)


def read(path: Path, parse: Callable[[bytes], _Parsed], remedy: str = COPY) -> _Parsed:
    """What a file says; :class:`Damaged` where it is missing, is not what was written, or cannot be understood."""
    found = content(path, remedy)
    if found is None:
        raise Damaged(path, "missing", remedy)
    return parsed(path, lambda: parse(found), remedy, has_digests(path.parent))


def parsed(path: Path, parse: Callable[[], _Parsed], remedy: str = COPY, whole: bool = False) -> _Parsed:
    """What a parser makes of a file; :class:`Damaged` if it cannot, ValueError if the file is known to be whole."""
    try:
        return parse()
    except OSError as error:
        raise _named("read", path, error) from error
    except MemoryError as error:
        raise MemoryError(f"memory ran out while {path} was read") from error
    # On bytes that are none of its own a parser may raise anything; a panic of polars is no Exception.
    except (Exception, PanicException) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if not whole:
            raise Damaged(path, f"damaged ({reason})", remedy) from error
        if isinstance(error, RuntimeError):
            raise  # as torch does where memory runs out
        raise ValueError(f"{path} is whole, but cannot be read here ({reason})") from error


def has_digests(folder: Path) -> bool:
    """Whether the files of a folder have digests; earlier versions wrote none."""
    return digests(folder) is not None


def digests(folder: Path) -> dict[str, list[str | None]] | None:
    """The digests that the files of a folder may have; None if it has none."""
    path = folder / DIGESTS
    try:
        found = _bytes(path)
        return None if found is None else _Digests.validate_json(found, strict=True)
    except ValidationError as error:
        raise Damaged(path, "damaged", f"{COPY}, or delete it to take the files beside it as they are") from error


def opened(path: Path) -> BinaryIO:
    """Opens a file to read it; OSError where its name stands for a folder, or for a pipe or device without an end."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file")
    return path.open("rb")


def _bytes(path: Path) -> bytes | None:
    """What is in a file, None where there is none; OSError or MemoryError, with its name, if it cannot be read."""
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGE and size > usable_memory():
                raise MemoryError
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _named("read", path, error) from error
    except MemoryError as error:
        raise MemoryError(f"{path}, of {size / 1e9:,.1f} GB, does not fit into memory; {COPY}, or free some") from error


def _replace_digests(folder: Path, known: Mapping[str, Sequence[str | None]]) -> None:
    replace(folder / DIGESTS, json.dumps(known, indent=1).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_of(path: Path) -> str | None:
    found = _bytes(path)
    return None if found is None else _digest(found)


def replace(path: Path, data: bytes) -> None:
    """Writes a file under another name, and then puts it in the place of the old one.

    After a crash, a full disk or a loss of power at any moment the file is either the old or the new one, complete.
    OSError if it cannot be written.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(data)
        _to_disk(new)
        os.replace(new, path)
        _to_disk(path.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise _named("write", path, error) from error


def _named(what: str, path: Path, error: OSError) -> OSError:
    remedy = f"; let it be read, or {COPY}" if what == "read" else ""
    return OSError(f"cannot {what} {path}: {error.strerror or error}{remedy}")


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """A new folder whose files take their places in another when all are written; before, nothing changes there.

    Files of the same names are replaced, and nothing else is touched. OSError if a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield new
        written = sorted(new.rglob("*"), key=lambda path: not path.is_dir())
        for path in written:
            place = folder / path.relative_to(new)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(path, place)
    except OSError as error:
        if error.strerror is None:
            raise
        raise _named("write into", folder, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
