"""IDX files written here with struct, read back; and every way in which a file can be wrong."""

import gzip
import lzma
import math
import struct
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supple.lab.data.formats import parse_idx, read_content

FORMATS = {0x08: "B", 0x09: "b", 0x0B: "h", 0x0C: "i", 0x0D: "f", 0x0E: "d"}
NAMES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}


def read_idx(path):
    return parse_idx(read_content(path), str(path))


def encode(code, shape, values):
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)
    return header + struct.pack(f">{len(values)}{FORMATS[code]}", *values)


@given(
    code=st.sampled_from(sorted(FORMATS)),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_values_shape_and_type_survive(code, shape, data):
    count = 1
    for size in shape:
        count *= size
    low, high = {"B": (0, 255), "b": (-128, 127), "h": (-(2**15), 2**15 - 1)}.get(FORMATS[code], (-(2**23), 2**23))
    values = data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    array = parse_idx(encode(code, shape, values), "file")
    assert array.dtype == np.dtype(NAMES[code])
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.shape == tuple(shape)
    assert array.ravel().tolist() == values


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_reads_plain_and_compressed_files(tmp_path, compress):
    path = tmp_path / "images"
    path.write_bytes(compress(encode(0x08, (2, 3), range(6))))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_idx(str(path)).tolist() == [[0, 1, 2], [3, 4, 5]]


GOOD = encode(0x08, (3, 2, 2), range(12))
ZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("web", b"<!DOCTYPE html>", "not an IDX file"),
        ("empty", b"", "not an IDX file"),
        ("no-dimensions", b"\0\0\x08\0", "not an IDX file"),
        ("type", b"\0\0\x0a\x01\0\0\0\0", "element type 0x0A"),
        ("header", GOOD[:10], "cut short: 3 dimensions need a header of 16 bytes, not 10"),
        ("short", GOOD[:-1], "cut short.*28 bytes.*has 27"),
        ("long", GOOD + b"\0", "bytes too many.*28 bytes.*has 29"),
        ("count", GOOD.replace(b"\0\0\0\x03", b"\0\0\0\x04"), "cut short.*32 bytes.*has 28"),
        ("web.gz", b"<!DOCTYPE html>", "is not gzip.*web page"),
        ("plain.gz", GOOD, "is not gzip.*rename it to plain$"),
        ("short.gz", ZIPPED[:-9], "cut short"),
        ("damaged.gz", ZIPPED[:-8] + b"\0\0\0\0" + ZIPPED[-4:], "damaged"),
        ("scrambled.gz", ZIPPED[:10] + b"\xff" * 10 + ZIPPED[20:], "damaged"),
        ("short.xz", lzma.compress(GOOD)[:-5], "damaged or cut short"),
    ],
)
def test_errors_name_the_file_and_the_fault(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_idx(path)
    assert str(raised.value).startswith(str(path))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_whole_or_refused(content):
    try:
        array = parse_idx(content, "file")
    except ValueError:
        return
    assert len(content) == 4 + 4 * array.ndim + array.nbytes


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")


@pytest.mark.parametrize("pack", [gzip.compress, partial(lzma.compress, preset=0)])
def test_of_a_bomb_no_more_is_decompressed_than_is_expected(tmp_path, pack):
    """What unpacks to 40 MB takes a few: by the limit that is given, or by what an IDX header says."""
    zeros = pack(bytes(40_000_000))
    header = struct.pack(">HBBIII", 0, 8, 3, 2, 3, 2)
    named = tmp_path / "bomb"
    for content, limit in ((zeros, 1_000_000), (pack(header + bytes(40_000_000)), None)):
        named.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError, match="bomb has bytes too many"):
            read_content(named, limit)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


def test_an_array_of_any_size_is_read_without_a_limit(tmp_path):
    """The end of a compressed file is read too, which has its checksum."""
    for shape in ((0,), (3,), (1, 1, 1), (2000, 3)):
        content = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(math.prod(shape))
        (tmp_path / "a").write_bytes(gzip.compress(content))
        assert read_idx(tmp_path / "a").shape == shape
        (tmp_path / "a").write_bytes(gzip.compress(content)[:-4] + b"\0\0\0\1")
        with pytest.raises(ValueError, match="damaged"):
            read_idx(tmp_path / "a")
