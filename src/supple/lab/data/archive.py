"""Reading one file out of a gzip-compressed tar archive, without unpacking it."""

from __future__ import annotations

import io
import tarfile
from os import PathLike

from supple.lab.data.idx import read_content
from supple.lab.data.sources import Archive


def read_member(path: str | PathLike[str], archive: Archive, file: str) -> bytes:
    """The content of a file in an archive. Nothing is written.

    Args:
        path: where the archive lies.
        archive: what it is.
        file: name of the file, without the archive's folder.

    Returns:
        The file's content.

    Raises:
        ValueError: if the archive is damaged, cut short, no archive, or does not hold the file; the message names it.
        OSError: if the archive cannot be read.
    """
    wanted = f"{archive.folder}/{file}"
    # All of it is decompressed before a part is taken, because the checksum stands at the end.
    try:
        with tarfile.open(fileobj=io.BytesIO(read_content(path)), mode="r:") as opened:
            for member in opened:
                if member.name.removeprefix("./") == wanted and member.isfile():
                    content = opened.extractfile(member)
                    assert content is not None
                    return content.read()
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar archive: {error}; get {archive.name} again") from error
    raise ValueError(f"{path} does not hold {wanted}: it is another archive; get {archive.name} again")
