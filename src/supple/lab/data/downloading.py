"""Downloading the files of a data set from its mirrors: by https, no more than is expected, and the right ones."""

from __future__ import annotations

import hashlib
import io
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from supple.lab.data.formats import decompress, read_members
from supple.lab.data.sources import DataSet


def download(source: DataSet, file: str, folder: Path) -> Path:
    """Downloads a file, or the archive with all files, from the first mirror that gives the right content."""
    try:
        import pooch
    except ModuleNotFoundError as error:
        reasons = ['downloads need pooch: run pip install ".[lab]" in a clone of supple']
        raise ModuleNotFoundError(_advice(source, file, folder, reasons)) from error
    reasons = []
    for mirror in source.mirrors:
        url = _address(source, mirror, file)
        try:
            if source.archive is not None:
                return _unpacked(source, url, folder) / file
            # Compressed files differ from mirror to mirror, so pooch is to check the digest of what is in them.
            return Path(pooch.retrieve(url, source.digests[file], file, folder, downloader=_Download(source.largest)))
        except (OSError, ValueError) as error:  # what requests raises is an OSError
            reasons.append(f"{url}: {error}")
    raise ConnectionError(_advice(source, file, folder, reasons))


class _Download:
    """Downloads a file for pooch, which moves it to its place when its digest is right, and undoes its compression.

    Nothing is taken that is not sent by https, and no more than so many bytes, compressed or not.
    """

    def __init__(self, most: int, unpack: bool = True) -> None:
        self._most, self._unpack = most, unpack

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        import pooch

        _check_address(url)
        # Some servers offer to undo the compression on the way, and the length they announce is then wrong.
        http = pooch.HTTPDownloader(
            progressbar=True,
            chunk_size=1 << 16,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": _check_where_it_leads},
        )
        sent = _Bounded(self._most)
        http(url, sent, None)
        # Whether the mirror sent the data compressed or not is no matter, so no ".gz" in the name.
        name, content = url.rsplit("/", 1)[-1].removesuffix(".gz"), sent.getvalue()
        Path(output_file).write_bytes(decompress(content, name, self._most) if self._unpack else content)


class _Bounded(io.BytesIO):
    """Bytes that are sent, of which there may be only so many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, content: Any) -> int:
        if self.tell() + len(content) > self._most:
            raise ValueError(f"it sends more than {self._most:,} bytes, which is not what was asked for")
        return super().write(content)


def _check_address(url: str) -> None:
    """Refuses an address where others could change what is sent on its way; on this machine itself nobody can."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError(f"{url} is not https")


def _check_where_it_leads(response: Any, **_: Any) -> None:
    """Refuses an answer that leads to such an address, before that is asked."""
    if response.is_redirect:
        _check_address(urljoin(response.url, response.headers["location"]))


def _unpacked(source: DataSet, url: str, folder: Path) -> Path:
    """Downloads the archive of a data set; the folder with its files, all of them right."""
    import pooch

    archive = source.archive
    assert archive is not None
    unpacked = folder / archive.folder
    # What an interruption left would be taken for whole.
    shutil.rmtree(unpacked, ignore_errors=True)
    # Its digest is compared before anything is unpacked, and those of its files before they are written.
    downloader = _Download(source.whole, unpack=False)
    path = Path(pooch.retrieve(url, f"md5:{archive.md5}", archive.name, folder, downloader=downloader))
    contents = read_members(path, [f"{archive.folder}/{file}" for file in source.digests], source.whole)
    for file, digest in source.digests.items():
        if (found := hashlib.sha256(contents[f"{archive.folder}/{file}"]).hexdigest()) != digest:
            raise ValueError(f"the SHA-256 of {file} in {archive.name} is {found}, not {digest}")
    unpacked.mkdir(parents=True)
    for file in source.digests:
        (unpacked / file).write_bytes(contents[f"{archive.folder}/{file}"])
    path.unlink()
    return unpacked


def _address(source: DataSet, mirror: str, file: str) -> str:
    """Where a mirror has a file, or the archive that holds it."""
    return f"{mirror}{source.archive.name if source.archive else f'{file}.gz'}"


def _advice(source: DataSet, file: str, folder: Path, reasons: list[str]) -> str:
    """What went wrong with a download, and what to do by hand."""
    addresses = dict.fromkeys(_address(source, mirror, name) for name in source.digests for mirror in source.mirrors)
    listed = "\n".join(f"  {address}" for address in addresses)
    count, form = (1, "as it is") if source.archive else (len(source.digests), "as they are or uncompressed")
    return (
        f"{source.title}: {file} could not be downloaded.\n"
        + "\n".join(f"  {reason}" for reason in reasons)
        + f"\nTo try again: supple data fetch {source.name}"
        f"\nTo do without this, get {count} file{'s' * (count > 1)}, each from any one of its addresses:\n{listed}\n"
        f"and put what you got, {form}, into\n  {folder}\n"
        "or into a folder of your own that you give with --data-dir (data_dir= in Python). Files are compared with "
        "their SHA-256. The data set mnist10k is part of supple and needs no download."
    )
