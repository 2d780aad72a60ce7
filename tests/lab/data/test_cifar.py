"""The binary version of CIFAR: files and archives made here, whole and broken; a server that hands out an archive."""

import contextlib
import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from supple.lab import data
from supple.lab.data import fetching
from supple.lab.data.sources import DATA_SETS

FILES = {
    "cifar10": ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], "cifar-10-batches-bin", [10]),
    "cifar100": (["train.bin"], ["test.bin"], "cifar-100-binary", [20, 100]),
}


def records(count, classes, seed):
    """Bytes of a file, with its labels and images, written one record after the other."""
    generator = np.random.default_rng(seed)
    content, labels, images = b"", [], []
    for _ in range(count):
        image = generator.integers(0, 256, (3, 32, 32), dtype=np.uint8)
        numbers = [int(generator.integers(0, most)) for most in classes]
        content += bytes(numbers)
        for colour in range(3):
            for row in range(32):
                content += bytes(image[colour, row].tolist())
        labels.append(numbers[-1])
        images.append(image)
    return content, labels, np.stack(images)


def contents(name):
    train, test, _, classes = FILES[name]
    return {file: records(3, classes, seed) for seed, file in enumerate((*train, *test))}


def tar(name, written):
    """The archive of a data set."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file, (content, *_) in written.items():
            member = tarfile.TarInfo(f"{FILES[name][2]}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def small(name, written, *mirrors):
    """The data set with the digests of the small files."""
    source = DATA_SETS[name]
    digests = {file: hashlib.sha256(content).hexdigest() for file, (content, *_) in written.items()}
    archive = replace(source.archive, md5=hashlib.md5(tar(name, written)).hexdigest())
    return replace(source, digests=MappingProxyType(digests), mirrors=mirrors, archive=archive)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["extracted", "beside", "archive", "archive in its folder"])
@pytest.mark.parametrize("train", [True, False])
def test_images_and_labels(tmp_path, monkeypatch, name, place, train):
    written = contents(name)
    folder = tmp_path / {"extracted": FILES[name][2], "archive in its folder": name}.get(place, ".")
    folder.mkdir(exist_ok=True)
    if place.startswith("archive"):
        (folder / DATA_SETS[name].archive.name).write_bytes(tar(name, written))
    else:
        for file, (content, *_) in written.items():
            (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not CIFAR-100?'s"):
        data.load(name, tmp_path, train)
    found = data.load(name, tmp_path, train, verify=False)
    monkeypatch.setitem(DATA_SETS, name, small(name, written))
    assert torch.equal(data.load(name, tmp_path, train).images, found.images)
    expected = [written[file] for file in FILES[name][0 if train else 1]]
    assert found.labels.tolist() == [label for _, labels, _ in expected for label in labels]
    assert torch.equal(found.images, torch.from_numpy(np.concatenate([images for *_, images in expected])))
    assert (found.classes, found.name) == (FILES[name][3][-1], name)
    assert found.images.shape[1:] == (3, 32, 32)


def broken():
    one = records(2, [20, 100], 0)[0]
    whole = tar("cifar100", contents("cifar100"))
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-100-binary/other.bin"))
    links = io.BytesIO()
    with tarfile.open(fileobj=links, mode="w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("cifar-100-binary/train.bin")
            link.type, link.linkname = kind, "cifar-100-binary/train.bin"
            archive.addfile(link)
    return {
        "link to itself": ("cifar-100-binary.tar.gz", links.getvalue(), r"does not hold cifar-100-binary/train\.bin"),
        "cut short": ("train.bin", one[:-1], r"train\.bin is cut short.*records of 3074 bytes, but the last has 3073"),
        "empty": ("train.bin", b"", r"train\.bin is cut short.*there is none"),
        "of CIFAR-10": ("train.bin", records(3, [10], 0)[0], r"train\.bin is cut short or not in the binary format"),
        "coarse label": ("train.bin", bytes([20, 5]) + one[2:], r"byte 0 of record 0, a label, is 20, .* 0 to 19"),
        "fine label": ("train.bin", one + bytes([1, 100]) + one[2:3074], r"byte 1 of record 2, a label, is 100"),
        "archive cut short": ("cifar-100-binary.tar.gz", whole[:-3000], r"cifar-100-binary\.tar\.gz is cut short"),
        "archive damaged": (
            "cifar-100-binary.tar.gz",
            whole[:5000] + b"damaged!" + whole[5008:],
            r"cifar-100-binary\.tar\.gz is damaged",
        ),
        "web page": ("cifar-100-binary.tar.gz", b"<html>", r"cifar-100-binary\.tar\.gz is not gzip.*web page"),
        "no archive": ("cifar-100-binary.tar.gz", gzip.compress(b"text" * 300), r"tar\.gz is no tar archive"),
        "other archive": ("cifar-100-binary.tar.gz", other.getvalue(), r"does not hold cifar-100-binary/train\.bin"),
    }


@pytest.mark.parametrize("kind", broken())
def test_a_broken_file_is_named(tmp_path, kind):
    file, content, message = broken()[kind]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data.load("cifar100", tmp_path, verify=False)


def test_a_folder_without_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither train\.bin nor train\.bin\.gz nor cifar-100-binary\.tar\.gz"):
        data.load("cifar100", tmp_path)


@contextlib.contextmanager
def serve(body, asked):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/kriz/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    monkeypatch.setenv("SUPPLE_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def test_download_unpacks_the_archive_once(cache, monkeypatch):
    written, asked = contents("cifar10"), []
    with serve(tar("cifar10", written), asked) as mirror:
        monkeypatch.setitem(DATA_SETS, "cifar10", small("cifar10", written, mirror))
        train, test = data.load("cifar10"), data.load("cifar10", train=False)
    assert asked == ["/kriz/cifar-10-binary.tar.gz"]
    assert (len(train), len(test)) == (15, 3)
    assert {path.name: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == {
        file: content for file, (content, *_) in written.items()
    }
    assert fetching.state("cifar10").verified


def test_files_beside_each_other_in_the_cache_are_found(cache, monkeypatch):
    written = contents("cifar10")
    monkeypatch.setitem(DATA_SETS, "cifar10", small("cifar10", written))
    (cache / "cifar10").mkdir(parents=True)
    for file, (content, *_) in written.items():
        (cache / "cifar10" / file).write_bytes(content)
    assert len(data.load("cifar10")) == 15


def test_what_an_interruption_left_is_replaced(cache, monkeypatch):
    written = contents("cifar100")
    folder = cache / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    (folder / "train.bin").write_bytes(b"cut")
    (folder / "test.bin").write_bytes(b"")
    (cache / "cifar100" / "cifar-100-binary.tar.gz").write_bytes(tar("cifar100", written))
    with serve(b"", []) as mirror:
        monkeypatch.setitem(DATA_SETS, "cifar100", small("cifar100", written, mirror))
        assert len(data.load("cifar100")) == 3


@pytest.mark.parametrize("wrong", ["archive", "file in it"])
def test_a_wrong_download_leaves_no_file_and_says_what_to_do(cache, monkeypatch, wrong):
    written = contents("cifar100")
    source = small("cifar100", written)
    if wrong == "archive":
        source = replace(source, archive=replace(source.archive, md5="0" * 32))
    else:
        source = replace(source, digests={**source.digests, "train.bin": "0" * 64})
    with serve(tar("cifar100", written), []) as mirror:
        monkeypatch.setitem(DATA_SETS, "cifar100", replace(source, mirrors=(mirror,)))
        with pytest.raises(ConnectionError) as raised:
            data.load("cifar100")
    assert f"get 1 file, each from any one of its addresses:\n  {mirror}cifar-100-binary.tar.gz\n" in str(raised.value)
    assert not list(cache.rglob("train.bin*"))
