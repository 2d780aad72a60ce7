"""The file formats of data sets: IDX, the binary version of CIFAR, and what compresses and holds them."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\0"


def decompress(content: bytes, name: str) -> bytes:
    """Undoes gzip or xz compression, told by the first bytes; other content comes back as it is.

    A ValueError says whether the data is cut short or damaged; content whose name ends in ".gz" has to be gzip.
    """
    try:
        if content.startswith(_GZIP):
            return gzip.decompress(content)
        if content.startswith(_XZ):
            import lzma  # some builds of Python have no lzma, and only the shipped subset needs it

            try:
                return lzma.decompress(content)
            except lzma.LZMAError as error:
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
    return content


def read_content(path: str | PathLike[str]) -> bytes:
    """The uncompressed bytes of a file, plain or compressed with gzip or xz; errors as of :func:`decompress`."""
    return decompress(Path(path).read_bytes(), str(path))


def read_member(path: Path, member: str) -> bytes:
    """The content of a file in a gzip-compressed tar archive; a ValueError if archive or file are not what they are."""
    # All of it is decompressed before a part is taken, because the checksum stands at the end.
    try:
        with tarfile.open(fileobj=io.BytesIO(read_content(path)), mode="r:") as archive:
            for one in archive:
                if one.name.removeprefix("./") == member and (content := archive.extractfile(one)) is not None:
                    return content.read()
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar archive: {error}; get {path.name} again") from error
    raise ValueError(f"{path} does not hold {member}: it is another archive; get {path.name} again")


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
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=content[3], offset=4))
    promised = start + math.prod(shape) * kind.itemsize
    if len(content) != promised:
        fault = "is cut short" if len(content) < promised else "has bytes too many"
        raise ValueError(
            f"{name} {fault}: its header says {kind.name} of shape {shape}, which is {promised} bytes with the header, "
            f"but it has {len(content)}"
        )
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))


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
