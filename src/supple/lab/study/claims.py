"""Claims: who may write into a folder, on one machine or on many that share it.

A claim is a file ``.claim-N`` in the folder; the one with the largest number counts. It says who holds it and how often
that one has renewed it; who is done writes so, and the file stays. The next is N + 1, made by an exclusive create,
which one of several wins, over NFS too. It may be made where the last was given back, where its process has ended on
this machine, or where it has not been renewed for :data:`LOST_AFTER` seconds of the watcher's own clock: no two clocks
are compared, and nothing is locked. Who was taken for lost, and is not, finds its file gone when it next renews it,
which it does before it writes.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

RENEWED_EVERY = 5.0
"""Seconds between two renewals of a claim."""

LOST_AFTER = 60.0
"""Seconds without a renewal after which a claim is taken over."""

_SIZE = 4096
"""Bytes of a claim; it is always written as a whole."""

_PREFIX = ".claim-"


class Busy(OSError):
    """Another process writes into the folder."""


class Lost(OSError):
    """The claim was taken over by another, who took its holder for lost."""


@dataclass(frozen=True)
class Claim:
    """What the last claim of a folder says.

    ``holder`` is its :func:`here`, with what it adds; ``renewed`` how often it was; ``before`` are earlier holders.
    """

    number: int
    text: bytes
    holder: Mapping[str, Any] = field(default_factory=dict)
    renewed: int = 0
    note: Mapping[str, Any] = field(default_factory=dict)
    given_back: bool = False
    before: tuple[Mapping[str, Any], ...] = ()

    @property
    def free(self) -> bool:
        """Whether it was given back, or its process has ended on this machine."""
        return self.given_back or _has_ended(self.holder)

    @property
    def holders(self) -> tuple[Mapping[str, Any], ...]:
        """All who have held it, the last one last."""
        return (*self.before, self.holder) if self.holder else self.before


def read(folder: Path) -> Claim | None:
    """The last claim of a folder; None if there is none."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    number = max(numbers)
    try:
        text = _path(folder, number).read_bytes()
    except FileNotFoundError:
        return read(folder)  # taken over meanwhile
    try:
        content = json.loads(text)
        return Claim(
            number, text, content["holder"], content["renewed"], content["note"], content["given_back"],
            tuple(content["before"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return Claim(number, text)  # it is just being written


class Watch:
    """Watches claims, and tells which have not been renewed for so long that they may be taken over."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, float]] = {}

    def silent(self, folder: Path, claim: Claim) -> float:
        """For how many seconds of those that were watched the claim of a folder has not been renewed."""
        now = time.monotonic()
        text, since = self._seen.get(folder, (b"", now))
        if text != claim.text:
            since = now
        self._seen[folder] = claim.text, since
        return now - since

    def lost(self, folder: Path, claim: Claim) -> bool:
        """Whether a claim that is not free has been silent for so long that it may be taken over."""
        return not claim.free and self.silent(folder, claim) >= LOST_AFTER


class Holder:
    """One who holds the claim of a folder, and renews it in a thread until it is given back."""

    def __init__(self, folder: Path, claim: Claim | None, about: Mapping[str, Any]) -> None:
        self.folder, self._previous = folder, claim
        self.note: Mapping[str, Any] = {}
        self._number = 1 if claim is None else claim.number + 1
        self._holder = {**here(), **about}
        # Runs of holders that differ in nothing are one.
        before = () if claim is None else claim.holders
        self._before = [one for k, one in enumerate(before) if one not in before[k + 1 :]][-8:]
        self._renewed, self._given_back = 0, False
        self._lock, self._done = threading.Lock(), threading.Event()
        path = _path(folder, self._number)
        try:
            self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError as error:
            raise Busy(f"{folder} was claimed by another process") from error
        try:
            self._write()
            if (claim is not None and claim.number not in _numbers(folder)) or max(_numbers(folder)) > self._number:
                # What was seen was long ago; another has been here meanwhile.
                raise Busy(f"{folder} was claimed by another process")
        except OSError as error:
            os.close(self._descriptor)
            path.unlink(missing_ok=True)
            if isinstance(error, Busy):
                raise
            raise OSError(f"cannot write {path}: {error.strerror or error}") from error
        for number in _numbers(folder):
            if number < self._number:
                _path(folder, number).unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Shows that the holder is there; :class:`Lost` if another has taken over."""
        with self._lock:
            try:
                self._renewed += 1
                self._write()
                there = os.fstat(self._descriptor).st_nlink > 0
            except OSError as error:
                raise Lost(f"{self.folder} cannot be written to any more, or was taken over ({error})") from error
        if not there:
            raise Lost(f"{self.folder} was taken over by another process, which had not heard of this one for long")

    def give_back(self, forget: bool = False) -> None:
        """Lets others have it; ``forget``: as if it had not been claimed."""
        self._done.set()
        self._thread.join()
        self._given_back = True
        with suppress(OSError):
            if forget:
                if self._previous is not None and _path(self.folder, self._number).exists():
                    _path(self.folder, self._previous.number).write_bytes(self._previous.text)
                _path(self.folder, self._number).unlink()
            else:
                self.renew()
        os.close(self._descriptor)

    def _keep(self) -> None:
        while not self._done.wait(RENEWED_EVERY):
            with suppress(OSError):  # who writes next is told
                self.renew()

    def _write(self) -> None:
        content = {
            "holder": self._holder,
            "renewed": self._renewed,
            "note": self.note,
            "given_back": self._given_back,
            "before": self._before,
        }
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(content).encode().ljust(_SIZE))
        os.fsync(self._descriptor)


def claimed(folder: Path, wait: float = 0.0) -> AbstractContextManager[Holder]:
    """Keeps other processes, here or on other machines, from writing into a folder until this one is done or dead.

    Waits some seconds for another process; :class:`Busy` if it holds the folder all that time. A folder that is refused
    meanwhile, with a ValueError or an OSError, is left as it was.
    """
    end, watch = time.monotonic() + wait, Watch()
    while True:
        claim = read(folder)
        if claim is None or claim.free or watch.lost(folder, claim):
            with suppress(Busy):
                return _given_back(Holder(folder, claim, {}))
        if time.monotonic() >= end:
            raise Busy(
                f"another process is writing into {folder}; wait until it is done, stop it, or give another folder "
                f"with --out{_who(read(folder))}"
            )
        time.sleep(min(0.2, LOST_AFTER / 10))


def take(folder: Path, lost: str | None, **about: Any) -> AbstractContextManager[Holder]:
    """Claims a folder, as :func:`claimed` does, at once; :class:`Busy` if another holds it.

    ``lost`` is the :func:`mark` of a claim that somebody has watched for long enough to take it over; ``about`` is what
    is said of the holder beside :func:`here`.
    """
    claim = read(folder)
    if claim is None or claim.free or mark(claim) == lost:
        return _given_back(Holder(folder, claim, about))
    raise Busy(f"{folder} is claimed{_who(claim)}")


@contextmanager
def _given_back(holder: Holder) -> Iterator[Holder]:
    try:
        yield holder
    except (OSError, ValueError):
        holder.give_back(forget=True)
        raise
    except BaseException:
        holder.give_back()
        raise
    else:
        holder.give_back()


def mark(claim: Claim) -> str:
    """What differs between two claims, or two renewals of one."""
    return f"{claim.number}:{claim.renewed}:{claim.holder.get('process')}:{claim.holder.get('host')}"


@cache
def _machine() -> dict[str, Any]:
    """This machine, by what no other one, and no other container on it, has."""
    found = {"host": socket.gethostname()}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        found["space"] = os.readlink("/proc/self/ns/pid")
    return found


@cache
def processor() -> str:
    """The kind of processor, such as "AMD EPYC 9R14"."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def here() -> dict[str, Any]:
    """This process, as a claim names its holder."""
    return {**_machine(), "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str:
    """When a process of this machine started, by its kernel, which tells it from a later one of that number."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        # One that has ended stays until its parent has asked how.
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


def _has_ended(holder: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; of another machine nobody can tell."""
    if os.name != "posix" or not holder or any(holder.get(name) != value for name, value in _machine().items()):
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return holder.get("started") != _started(holder["process"])


def _who(claim: Claim | None) -> str:
    return f" (it is process {claim.holder['process']} on {claim.holder['host']})" if claim and claim.holder else ""


def _path(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number:06d}"


def _numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [int(name.removeprefix(_PREFIX)) for name in names if name.startswith(_PREFIX) and name[-6:].isdigit()]
