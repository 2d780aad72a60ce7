"""The file formats of data sets: IDX, the binary version of CIFAR, and what compresses and holds them."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zlib
from collections.abc import Collection
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\0"
_LONGEST_HEADER = 4 + 4 * 255
"""Bytes of the header of an IDX file with the most dimensions."""


def decompress(content: bytes, name: str, limit: int | None = None) -> bytes:
    """Undoes gzip or xz compression, told by the first bytes; other content comes back as it is.

    No more is decompressed than ``limit`` bytes; None: than the header of an IDX file, which it is, says. A ValueError
    says whether the data is cut short or damaged, or there is more; content whose name ends in ".gz" has to be gzip.
    """
    try:
        if content.startswith(_GZIP):
            return _read(gzip.GzipFile(fileobj=io.BytesIO(content)), name, limit)
        if content.startswith(_XZ):
            import lzma  # some builds of Python have no lzma, and only the shipped subset needs it

            try:
                return _read(lzma.LZMAFile(io.BytesIO(content)), name, limit)
            except (lzma.LZMAError, EOFError) as error:
                raise ValueError(f"{name} is damaged or cut short: {error}; get it again") from error
    except EOFError as error:
        raise ValueError(f"{name} is cut short: its gzip data ends too early; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{name} is damaged: {error}; get it again") from error
    if name.endswith(".gz"):
        raise ValueError(
            f"{name} is not gzip: it starts with {content[:8]!r}. It may be a web page saved in place of the data: get "
            f"it again. If it is the uncompressed data, rename it to {Path(name).stem}"
        )
    return _within(content, name, limit)


def _read(stream: io.BufferedIOBase, name: str, limit: int | None) -> bytes:
    """The content of a compressed file, no more than the limit."""
    start = b""
    if limit is None:
        start = stream.read(_LONGEST_HEADER)
        limit = _promised(start)
    if limit is None:
        parse_idx(start, name)  # which says what is wrong with its header
        return start
    return _within(start + stream.read(max(1, limit + 1 - len(start))), name, limit)


def _within(content: bytes, name: str, limit: int | None) -> bytes:
    if limit is not None and len(content) > limit:
        raise ValueError(f"{name} has bytes too many: more than {limit:,} are not expected of it; get it again")
    return content


def read_content(path: str | PathLike[str], limit: int | None = None) -> bytes:
    """The uncompressed bytes of a file, plain or compressed with gzip or xz; limit and errors as of `decompress`."""
    with open(path, "rb") as file:
        # What is compressed is not larger than what is not.
        return decompress(file.read(-1 if limit is None else limit + 1), str(path), limit)


def read_members(path: Path, members: Collection[str], limit: int | None = None) -> dict[str, bytes]:
    """The contents of files in a gzip-compressed tar archive; a ValueError if archive or files are not what they are.

    Of the whole archive no more is decompressed than ``limit`` bytes.
    """
    # All of it is decompressed before a part is taken, because the checksum stands at the end.
    whole = read_content(path, limit)
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for one in archive:
                name = one.name.removeprefix("./")
                # What is no plain file, such as a link to another, takes up more than it says.
                if name in members and name not in found and one.isreg() and not one.issparse():
                    content = archive.extractfile(one)
                    assert content is not None
                    found[name] = content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no tar archive: {error}; get {path.name} again") from error
    for member in members:
        if member not in found:
            raise ValueError(f"{path} does not hold {member}: it is another archive; get {path.name} again")
    return found


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array in the uncompressed bytes of an IDX file, in the machine's byte order; writable.

    An IDX file is two zero bytes, a byte for the element type, a byte for the number of dimensions, a big-endian
    unsigned 32-bit size a dimension, and the elements in row-major order, big-endian (LeCun, Cortes and Burges, "The
    MNIST database of handwritten digits", section "The IDX file format"). A ValueError names the file and its fault.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise ValueError(
            f"{name} is not an IDX file: it starts with {content[:4]!r}, and an IDX file starts with two zero bytes, "
            "an element type and a number of dimensions above 0"
        )
    if content[2] not in _TYPES:
        allowed = ", ".join(f"0x{code:02X} ({np.dtype(kind).name})" for code, kind in _TYPES.items())
        raise ValueError(f"{name} has element type 0x{content[2]:02X}, which IDX does not know; it knows {allowed}")
    kind, start = np.dtype(_TYPES[content[2]]), 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(
            f"{name} is cut short: {content[3]} dimensions need a header of {start} bytes, not {len(content)}"
        )
    shape = _shape(content)
    promised = start + math.prod(shape) * kind.itemsize
    if len(content) != promised:
        fault = "is cut short" if len(content) < promised else "has bytes too many"
        raise ValueError(
            f"{name} {fault}: its header says {kind.name} of shape {shape}, which is {promised} bytes with the header, "
            f"but it has {len(content)}"
        )
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


def _shape(content: bytes) -> tuple[int, ...]:
    return tuple(int(size) for size in np.frombuffer(content, ">u4", count=content[3], offset=4))


def _promised(start: bytes) -> int | None:
    """How many bytes an IDX file has, by its first; None of what is none."""
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or len(start) < 4 + 4 * start[3]:
        return None
    return 4 + 4 * start[3] + math.prod(_shape(start)) * np.dtype(_TYPES[start[2]]).itemsize


def parse_cifar(content: bytes, name: str, labels: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The images uint8 [N, 3, 32, 32] and labels int64 [N] in the bytes of a file of CIFAR-10 or CIFAR-100.

    A file is a row of records without a header: one byte a label (CIFAR-10: the class; CIFAR-100: the coarse class,
    then the fine one), then 3,072 bytes of a 32 x 32 image, all of red, then green, then blue, each row by row
    (Krizhevsky, "The CIFAR-10 dataset", section "Binary version"). ``labels`` has the number of classes that each label
    byte counts, of which the last is taken. A ValueError names the file and its fault.
    """
    length = len(labels) + 3 * 32 * 32
    if not content or len(content) % length:
        fault = f"the last has {len(content) % length}" if content else "there is none"
        raise ValueError(
            f"{name} is cut short or not in the binary format of CIFAR-{labels[-1]}: its {len(content)} bytes have to "
            f"be records of {length} bytes, but {fault}; get it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    for column, classes in enumerate(labels):
        worst = int(records[:, column].argmax())
        if records[worst, column] >= classes:
            raise ValueError(
                f"{name} is not in the binary format of CIFAR-{labels[-1]}: byte {column} of record {worst}, a label, "
                f"is {records[worst, column]}, and there are labels from 0 to {classes - 1}"
            )
    images = records[:, len(labels) :].reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(images), torch.from_numpy(records[:, len(labels) - 1].astype(np.int64))
