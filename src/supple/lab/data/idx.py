"""Reading IDX files, the format of MNIST and its relatives.

An IDX file is two zero bytes, a byte for the element type, a byte for the number of dimensions, a big-endian unsigned
32-bit size a dimension, and the elements in row-major order, big-endian (LeCun, Cortes and Burges, "The MNIST database
of handwritten digits", section "The IDX file format").
"""

from __future__ import annotations

import gzip
import math
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
_XZ = b"\xfd7zXZ\0"


def decompress(content: bytes, name: str) -> bytes:
    """Undoes gzip or xz compression, told by the first bytes; other content comes back as it is.

    Args:
        content: the bytes of a file.
        name: what the file is called, for errors. Where it ends in ".gz" the content has to be gzip-compressed.

    Returns:
        The uncompressed bytes.

    Raises:
        ValueError: if the compressed data is cut short or damaged, or ``name`` ends in ".gz" and it is not gzip.
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
    """The uncompressed bytes of a file.

    Args:
        path: a file, plain or compressed with gzip or xz.

    Returns:
        Its uncompressed bytes.

    Raises:
        ValueError: as :func:`decompress`.
        OSError: if the file cannot be read.
    """
    return decompress(Path(path).read_bytes(), str(path))


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an IDX file.

    Args:
        content: the uncompressed bytes.
        name: what the file is called, for errors.

    Returns:
        An array of the shape and element type that the header gives, in the machine's byte order; writable.

    Raises:
        ValueError: if the header is no IDX header, the element type is unknown, or the length does not fit the header.
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


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Reads an IDX file, plain or compressed with gzip or xz.

    Args:
        path: the file.

    Returns:
        An array of the shape and element type that the header gives, in the machine's byte order; writable.

    Raises:
        ValueError: if the file is damaged, cut short, too long or no IDX file; the message names it.
        OSError: if the file cannot be read.
    """
    return parse_idx(read_content(path), str(path))
