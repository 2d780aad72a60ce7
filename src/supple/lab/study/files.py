"""Files that are either the old or the new ones whatever happens, and folders that one process at a time writes to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Busy(OSError):
    """Another process writes into the folder."""


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under another name, and then puts it in the place of the old one.

    After a crash, a full disk or a loss of power at any moment the file is either the old or the new one, complete.
    OSError if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        write(new)
        _to_disk(new)
        os.replace(new, path)
        _to_disk(path.parent)
    except Exception as error:
        with suppress(OSError):
            new.unlink()
        # Libraries say in ways of their own that a disk is full.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OSError(f"cannot write {path}: {reason}") from error


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
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Keeps other processes from writing into a folder; ends by itself when this process does, however it ends.

    Waits some seconds for another process; :class:`Busy` if it writes into the folder all that time. A folder that is
    refused meanwhile, with a ValueError or an OSError, is left as it was.
    """
    path = folder / ".lock"
    was_there, lock = path.exists(), FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise Busy(
            f"another process is writing into {folder}; wait until it is done, stop it, or give another folder with "
            "--out"
        ) from error
    try:
        yield
    except (OSError, ValueError):
        if not was_there:
            with suppress(OSError):
                path.unlink()
        raise
    finally:
        lock.release()
