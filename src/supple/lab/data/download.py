"""Downloading a file of a data set from the first mirror that gives the right content."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from supple.lab.data.archive import read_member
from supple.lab.data.idx import decompress
from supple.lab.data.sources import DataSet

if TYPE_CHECKING:
    from rich.progress import Progress


class ProgressBar:
    """A progress bar on standard error for one download, in the form that pooch's downloaders drive.

    Args:
        description: what is downloaded.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.total = 0
        self._progress: Progress | None = None

    def update(self, amount: int) -> None:
        """Moves the bar on; the first call shows it.

        Args:
            amount: bytes since the last call.
        """
        if self._progress is None:
            self._progress = self._start()
        self._progress.update(self._progress.task_ids[0], advance=amount)

    def reset(self) -> None:
        """Sets the bar back to no bytes."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=0)

    def close(self) -> None:
        """Leaves the bar as it is; it may be closed more than once."""
        if self._progress is not None:
            self._progress.stop()

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        progress = Progress("{task.description}", *columns, console=Console(stderr=True))
        progress.start()
        # A server that does not say how much it sends gets a bar without an end.
        progress.add_task(self.description, total=self.total or None)
        return progress


def _download(url: str, target: str | IO[bytes]) -> None:
    """Downloads into a file, with a progress bar."""
    import pooch

    bar = ProgressBar(url.rsplit("/", 1)[-1])
    # Some servers offer to undo the compression on the way, and the length they announce is then wrong.
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, headers={"Accept-Encoding": "identity"})
    try:
        downloader(url, target, None)
    finally:
        bar.close()


def _as_it_is(url: str, output_file: str | IO[bytes], _pooch: Any) -> None:
    """Downloads a file: a downloader for pooch, which then checks the digest.

    Pooch hands in a temporary file beside the final one and moves it there only when all is well.
    """
    _download(url, output_file)


def _decompressed(url: str, output_file: str | IO[bytes], _pooch: Any) -> None:
    """Downloads a file and undoes its compression: a downloader for pooch, as :func:`_as_it_is`."""
    compressed = io.BytesIO()
    _download(url, compressed)
    # Whether the mirror sent the data compressed or not is no matter, so no ".gz" in the name.
    name = url.rsplit("/", 1)[-1].removesuffix(".gz")
    Path(str(output_file)).write_bytes(decompress(compressed.getvalue(), name))


def _retrieve(url: str, digest: str, file: str, folder: Path, downloader: Any) -> Path:
    """Downloads a file into a folder unless it is there and right."""
    import pooch

    return Path(pooch.retrieve(url, digest, fname=file, path=folder, downloader=downloader))


def _unpack(source: DataSet, path: Path, folder: Path) -> None:
    """Puts the files of an archive into a folder, each whole and checked, and removes the archive.

    Raises:
        ValueError: if a file is not in the archive or its content is not that of the data set.
    """
    assert source.archive is not None
    for file, digest in source.digests.items():
        content = read_member(path, source.archive, file)
        if (found := hashlib.sha256(content).hexdigest()) != digest:
            raise ValueError(f"the SHA-256 of {file} in {source.archive.name} is {found}, not {digest}")
        unfinished = folder / f"{file}.{os.getpid()}.part"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(folder / file)
        finally:
            unfinished.unlink(missing_ok=True)
    path.unlink()


def download(source: DataSet, file: str, folder: Path) -> Path:
    """Downloads a file from the first mirror of a data set that gives the right content.

    Where files come in an archive, all of them are put into the folder. A file that is there already and right is left
    alone, and one that is not right is replaced. Nothing incomplete or wrong ever stands under the file's name.

    Args:
        source: the data set.
        file: name of the file, without ".gz"; a key of ``source.digests``.
        folder: where it goes, uncompressed; made where it is missing.

    Returns:
        Where it lies.

    Raises:
        ModuleNotFoundError: if pooch is not installed.
        ConnectionError: if no mirror gave it; the message says what went wrong with each, and how to do without.
    """
    try:
        import pooch  # noqa: F401
    except ModuleNotFoundError as error:
        reasons = ['downloads need pooch: run pip install ".[lab]" in a clone of supple']
        raise ModuleNotFoundError(_advice(source, file, folder, reasons)) from error
    reasons = []
    for mirror in source.mirrors:
        url = _address(source, mirror, file)
        try:
            if source.archive is None:
                return _retrieve(url, f"sha256:{source.digests[file]}", file, folder, _decompressed)
            _unpack(source, _retrieve(url, f"md5:{source.archive.md5}", source.archive.name, folder, _as_it_is), folder)
            return folder / file
        except (OSError, ValueError) as error:  # what requests raises is an OSError
            reasons.append(f"{url}: {error}")
    raise ConnectionError(_advice(source, file, folder, reasons))


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
